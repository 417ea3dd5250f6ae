"""What a workflow file, an agent in it, and a deployment's own file say of redaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, model_validator

from circuit.definition.fault_text import suggestion
from circuit.definition.field import Part, by_kind, fault
from circuit.security.kinds import KINDS
from circuit.security.rules import PLACES

MOST_RULES = 30
_HINT = f"there are {', '.join(KINDS)}; or give {{name, pattern}}"


def _check_kind(value: str) -> str:
    if value not in KINDS:
        raise fault("kind", f"no kind is called {value!r}", suggestion(value, tuple(KINDS), "kinds") or _HINT)
    return value


def _check_pattern(value: str) -> str:
    from circuit.security.pattern import Pattern, PatternFault

    try:
        Pattern.parse(value)
    except PatternFault as error:
        raise fault("pattern", f"the pattern cannot be used: {error}", "see docs/how-to/personal-data.md") from None
    return value


KnownKind = Annotated[str, AfterValidator(_check_kind), Field(json_schema_extra={"enum": list(KINDS)})]
Where = Literal["logs", "events", "prompts"]


class RedactionRule(Part):
    """What is taken out of text, where, and what stands there instead."""

    kind: Annotated[KnownKind | None, Field(description="What is found by its form and checksum.")] = None
    pattern: Annotated[
        Annotated[str, AfterValidator(_check_pattern)] | None,
        Field(description="A regular expression, in the place of a kind, whose matches have a greatest length."),
    ] = None
    name: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=60)] | None,
        Field(description="Its name, in figures and in what stands instead. Default: the kind."),
    ] = None
    replace: Annotated[
        Annotated[str, Field(max_length=200)] | None,
        Field(
            description="What stands instead: a text, or `hash` for [NAME:...] that is the same for equal values. "
            "Default: [NAME]."
        ),
    ] = None
    where: Annotated[
        list[Where] | None,
        Field(min_length=1, description="Where: logs, events (what executions tell), prompts. Default: everywhere."),
    ] = None

    @model_validator(mode="after")
    def _one(self) -> RedactionRule:
        if self.kind is not None and self.pattern is not None:
            raise fault("several", "kind and pattern exclude each other", "keep one of them", at=["pattern"])
        if self.kind is None and self.pattern is None:
            raise fault("incomplete", "the rule says nothing of what it finds", "give kind, or name and pattern")
        if self.pattern is not None and self.name is None:
            raise fault("incomplete", "a rule with a pattern needs a name", "give name")
        return self


Rules = Annotated[
    list[
        Annotated[
            Annotated[KnownKind, Tag("<text>")] | Annotated[RedactionRule, Tag("<mapping>")],
            by_kind("the name of a kind, or {kind | name and pattern, replace, where}", "text", "mapping"),
        ]
    ],
    Field(max_length=MOST_RULES),
]


def rules_json(entries: Sequence[str | RedactionRule] | None) -> list[dict[str, Any]]:
    """Rules as canonical JSON."""
    return [_rule_json(RedactionRule(kind=entry) if isinstance(entry, str) else entry) for entry in entries or ()]


def _rule_json(rule: RedactionRule) -> dict[str, Any]:
    places = [place for place in PLACES if place in (rule.where or PLACES)]
    said = {
        "name": rule.name or rule.kind,
        "kind": rule.kind,
        "pattern": rule.pattern,
        "replace": rule.replace,
        "where": None if len(places) == len(PLACES) else places,
    }
    return {name: value for name, value in said.items() if value is not None}

"""Guards: what must hold of a whole binding before its transition may fire.

A guard is a list of structured rules and a list of CEL conditions, and all of them must hold. Judging never raises:
a rule or condition that has no answer (a missing field, a wrong type) makes the verdict faulty and says why, and a
faulty verdict does not hold. `and` and `or` decide as CEL does: a part that settles the matter outweighs a part
that has no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from circuit.expressions.cel import EvaluationFault, Expression
from circuit.expressions.path import MISSING
from circuit.expressions.value import is_list, is_number, is_object, same
from circuit.expressions.value import kind as kind_of
from circuit.net.scope import ScopePath
from circuit.value import dataclass

COMPARISONS = ("field_equals", "field_greater_than", "field_less_than", "field_contains")
KINDS = ("field_exists", *COMPARISONS, "and", "or", "not")
MAX_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard or a rule says. `reasons` tell why it does not hold; `faulty` says that one had no answer."""

    holds: bool
    reasons: tuple[str, ...] = ()
    faulty: bool = False


HOLDS = Verdict(True)


@dataclass(frozen=True, slots=True)
class Rule:
    """One structured rule. `parts` are the rules below `and`, `or` and `not`; the others have `field` and `value`."""

    kind: str
    id: str = ""
    description: str = ""
    field: ScopePath | None = None
    value: Any = None
    parts: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Rule:
        """The rule that a mapping as in the workflow file spells. Raises `ValueError`."""
        return _parse(value, 1)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that the rule reads, in order."""
        own = () if self.field is None else (self.field.text,)
        return own + tuple(path for part in self.parts for path in part.paths)

    @property
    def roots(self) -> frozenset[str]:
        """Which parts of a scope the rule reads."""
        own = frozenset[str]() if self.field is None else frozenset(self.field.roots)
        return own.union(*(part.roots for part in self.parts))

    def judge(self, scope: Mapping[str, Any]) -> Verdict:
        """Whether the rule holds in this scope."""
        verdict = self._judge(scope)
        if verdict.holds or not (self.id or self.description):
            return verdict
        label = self.id or self.description
        return Verdict(False, tuple(f"{label}: {reason}" for reason in verdict.reasons), verdict.faulty)

    def _judge(self, scope: Mapping[str, Any]) -> Verdict:
        if self.field is not None:
            found = self.field.get(scope)
            if self.kind == "field_exists":
                return HOLDS if found is not MISSING else Verdict(False, (self.field.absence(scope),))
            if found is MISSING:
                return Verdict(False, (self.field.absence(scope),), faulty=True)
            return _compare(self.kind, self.field.text, found, self.value)
        if self.kind == "not":
            verdict = self.parts[0].judge(scope)
            if verdict.faulty:
                return verdict
            return Verdict(False, (f"not ({self.parts[0]}): it does hold",)) if verdict.holds else HOLDS
        return self._judge_parts(scope)

    def _judge_parts(self, scope: Mapping[str, Any]) -> Verdict:
        settles = self.kind == "or"
        reasons: list[str] = []
        faulty = False
        for part in self.parts:
            verdict = part.judge(scope)
            if verdict.holds and settles:
                return HOLDS
            if not verdict.holds and not verdict.faulty and not settles:
                return verdict
            reasons += verdict.reasons
            faulty = faulty or verdict.faulty
        if faulty:
            return Verdict(False, tuple(reasons), faulty=True)
        return Verdict(not settles, tuple(reasons))

    def __str__(self) -> str:
        if self.id:
            return self.id
        if self.field is not None:
            return f"{self.kind} {self.field}" + ("" if self.kind == "field_exists" else f" {self.value!r}")
        return f"{self.kind} of {', '.join(str(part) for part in self.parts)}"


@dataclass(frozen=True, slots=True)
class Guard:
    """Rules and conditions that must all hold. `needs` names the parts of a scope that they read."""

    rules: tuple[Rule, ...] = ()
    conditions: tuple[Expression, ...] = ()
    needs: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        needs = frozenset[str]().union(*(rule.roots for rule in self.rules))
        object.__setattr__(self, "needs", needs.union(*(condition.names for condition in self.conditions)))

    def judge(self, scope: Mapping[str, Any]) -> Verdict:
        """Whether everything holds in this scope; reasons come for each rule and condition that does not."""
        reasons: list[str] = []
        faulty = False
        for rule in self.rules:
            verdict = rule.judge(scope)
            if not verdict.holds:
                reasons += verdict.reasons
                faulty = faulty or verdict.faulty
        for condition in self.conditions:
            try:
                value = condition.evaluate(scope)
            except EvaluationFault as fault:
                reasons.append(str(fault))
                faulty = True
                continue
            if value is True:
                continue
            if value is False:
                reasons.append(f"{condition.source}: is false")
            else:
                reasons.append(f"{condition.source}: gives {kind_of(value)}, not true or false")
                faulty = True
        return Verdict(False, tuple(reasons), faulty) if reasons else HOLDS


def _compare(kind: str, name: str, found: Any, value: Any) -> Verdict:
    if kind == "field_equals":
        return HOLDS if same(found, value) else Verdict(False, (f"{name} is {_brief(found)}, not {_brief(value)}",))
    if kind == "field_contains":
        return _contains(name, found, value)
    if not _comparable(found, value):
        reason = f"{name} is {kind_of(found)}, which cannot be compared with {kind_of(value)}"
        return Verdict(False, (reason,), faulty=True)
    greater = kind == "field_greater_than"
    if found > value if greater else found < value:
        return HOLDS
    return Verdict(False, (f"{name} is {_brief(found)}, not {'above' if greater else 'below'} {_brief(value)}",))


def _comparable(left: Any, right: Any) -> bool:
    return (is_number(left) and is_number(right)) or (isinstance(left, str) and isinstance(right, str))


def _contains(name: str, found: Any, value: Any) -> Verdict:
    if isinstance(found, str) and isinstance(value, str):
        holds = value in found
    elif is_list(found):
        holds = any(same(item, value) for item in found)
    elif is_object(found) and isinstance(value, str):
        holds = value in found
    else:
        return Verdict(False, (f"{name} is {kind_of(found)}, which cannot contain {kind_of(value)}",), faulty=True)
    return HOLDS if holds else Verdict(False, (f"{name} does not contain {_brief(value)}",))


def _brief(value: Any) -> str:
    """A value as reasons show it. Long texts and containers show their kind only."""
    if isinstance(value, str) and len(value) > 40:
        return f"a string of {len(value)} characters"
    if is_object(value) or is_list(value):
        return kind_of(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _parse(value: object, depth: int) -> Rule:
    if depth > MAX_DEPTH:
        raise ValueError(f"rules are nested deeper than {MAX_DEPTH} levels")
    if not is_object(value):
        raise ValueError(f"a rule must be a mapping like {{field_exists: data.content}}, not {kind_of(value)}")
    kinds = [key for key in value if key not in ("id", "description")]
    if len(kinds) != 1 or kinds[0] not in KINDS:
        raise ValueError(f"a rule has exactly one of {', '.join(KINDS)}; here: {', '.join(map(str, kinds)) or 'none'}")
    kind = str(kinds[0])
    body: Any = value[kind]
    name, description = value.get("id") or "", value.get("description") or ""
    if not isinstance(name, str) or not isinstance(description, str):
        raise ValueError("a rule's id and description must be text")
    if kind == "field_exists":
        return Rule(kind, name, description, field=ScopePath.parse(body))
    if kind in COMPARISONS:
        if not is_object(body) or set(body) != {"field", "value"}:
            raise ValueError(f"{kind} needs exactly field and value, as in {{field: metadata.status, value: draft}}")
        return Rule(kind, name, description, field=ScopePath.parse(body["field"]), value=body["value"])
    if kind == "not":
        return Rule(kind, name, description, parts=(_parse(body, depth + 1),))
    if not is_list(body) or not body:
        raise ValueError(f"{kind} needs a list of rules that is not empty")
    return Rule(kind, name, description, parts=tuple(_parse(part, depth + 1) for part in body))

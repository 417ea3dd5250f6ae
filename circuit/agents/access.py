"""What an agent's policies say of each of its tools, before any of them is called: for people who look at agents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from circuit.agents.policy import matches
from circuit.agents.toolbox.fetch import NAME as FETCH
from circuit.agents.toolbox.files import NAMES
from circuit.agents.toolbox.shell import NAME as SHELL
from circuit.value import dataclass


class Standing(StrEnum):
    """Whether a tool may be called: at once, when a person has allowed the call, or not at all."""

    ALLOWED = "allowed"
    APPROVAL = "needs_approval"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Ground:
    """What one policy says of a tool. `number` counts them from 1; 0 is what the tool itself asks."""

    number: int
    says: str

    def as_dict(self) -> dict[str, Any]:
        return {"policy": self.number, "says": self.says}


@dataclass(frozen=True, slots=True)
class Access:
    """How a tool, or all tools of a pattern, stand under the policies of an agent."""

    tool: str
    standing: Standing
    grounds: tuple[Ground, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "tool": self.tool,
            "access": self.standing.value,
            "policies": [ground.as_dict() for ground in self.grounds],
        }


def access_to(policies: Sequence[Mapping[str, Any]], tool: str, doubt: str = "") -> Access:
    """How `tool` stands under `policies` (in canonical form); `doubt` says why each call of it must be allowed anyway.

    A pattern stands as what is said of all that it means; what is said of a part of that is among the grounds.
    """
    standing = Standing.ALLOWED
    grounds: list[Ground] = []
    if doubt:
        standing = Standing.APPROVAL
        grounds.append(Ground(0, doubt))
    allowing = [rule["allow"] for rule in policies if "allow" in rule]
    if allowing and not any(matches(patterns, tool) for patterns in allowing):
        inside = any(_inside(patterns, tool) for patterns in allowing)
        standing = standing if inside else Standing.DENIED
        grounds += [
            Ground(number, f"allows only {_listed(rule['allow'])}")
            for number, rule in enumerate(policies, 1)
            if "allow" in rule
        ]
    for number, rule in enumerate(policies, 1):
        if said := _said(rule, tool):
            grounds.append(Ground(number, said))
        if "deny" in rule and matches(rule["deny"], tool):
            standing = Standing.DENIED
        if "require_approval" in rule and matches(rule["require_approval"], tool) and standing is Standing.ALLOWED:
            standing = Standing.APPROVAL
    return Access(tool, standing, tuple(grounds))


def named_tools(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The tools of an agent (in canonical form) by their names, as far as these can be told without asking a server: of
    a server there is its pattern."""
    return list(dict.fromkeys(name for entry in entries for name in _names(entry)))


def _names(entry: Mapping[str, Any]) -> Iterator[str]:
    kind, name = entry["kind"], str(entry.get("prefix") or entry.get("name") or "")
    match kind:
        case "files":
            yield from NAMES
        case "shell":
            yield SHELL
        case "http":
            yield FETCH
        case "agent" | "hand_over":
            yield f"{kind}.{name}"
        case "named":
            meant = [known for known in NAMES if fnmatchcase(known, name)]
            yield from meant or [name]
        case "function":
            yield name
        case _:
            yield f"{name}.*"


def _said(rule: Mapping[str, Any], tool: str) -> str:
    """What `rule` says of `tool`, or of a part of what this means; nothing where it says nothing of it."""
    if "deny" in rule and _concerns(rule["deny"], tool):
        return _of(rule["deny"], tool, "denies")
    if "require_approval" in rule and _concerns(rule["require_approval"], tool):
        by = f" by {_listed(rule['roles'])}" if rule.get("roles") else ""
        return f"{_of(rule['require_approval'], tool, 'asks for approval of')}{by}"
    if "before" in rule and _concerns(rule["before"], tool):
        return f"asks for {rule['require']} before {_listed(rule['before'])}"
    if "limit" in rule and _concerns(rule["limit"], tool):
        return f"allows {rule['to']} call{'' if rule['to'] == 1 else 's'} of {_listed(rule['limit'])} in a run"
    return ""


def _of(patterns: Sequence[str], tool: str, verb: str) -> str:
    """Patterns that mean `tool`, or else those that it means in part."""
    meaning = [pattern for pattern in patterns if fnmatchcase(tool, pattern)]
    return f"{verb} {_listed(meaning or [pattern for pattern in patterns if fnmatchcase(pattern, tool)])}"


def _concerns(patterns: Sequence[str], tool: str) -> bool:
    return matches(patterns, tool) or _inside(patterns, tool)


def _inside(patterns: Sequence[str], tool: str) -> bool:
    """Whether `tool` is a pattern that means one of `patterns`."""
    return any(fnmatchcase(pattern, tool) for pattern in patterns)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)

"""Policies of tools: which calls an agent may make, which a person must allow, in which order, and how often.

Each policy is one mapping with the key that says what it does; the names of tools in it are patterns (`fs.*`):

    {allow: [...]}                       nothing else may be called
    {deny: [...]}                        these may not
    {require_approval: [...], roles, timeout}    a person allows each call, with exactly these arguments
    {require: A, before: [...]}          these only after A gave a result
    {limit: [...], to: N}                N calls of these in a run at most
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from typing import Any

from circuit.errors import ToolDenied
from circuit.value import dataclass


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """Who may allow a call, and for how long that is waited for."""

    roles: tuple[str, ...] = ()
    timeout_seconds: float | None = None


@dataclass(slots=True)
class Record:
    """What an agent has done in a run so far: how often it called each tool, and which gave a result."""

    calls: dict[str, int] = field(default_factory=dict[str, int])
    succeeded: set[str] = field(default_factory=set[str])

    def called(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of an agent, in the canonical form of the workflow file."""

    rules: tuple[Mapping[str, Any], ...] = ()

    def offered(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that may be called at all: a model does not see the others."""
        return [name for name in names if self._forbidden(name) is None]

    def check(self, name: str, record: Record) -> None:
        """Raise `ToolDenied` where a call of `name` is not allowed now, before it is made."""
        forbidden = self._forbidden(name)
        if forbidden is not None:
            raise ToolDenied(forbidden)
        for rule in self.rules:
            # What is required may itself be called, also where a pattern means it among those that wait for it.
            if "before" in rule and matches(rule["before"], name) and not matches([rule["require"]], name):
                first = rule["require"]
                if not any(matches([first], done) for done in record.succeeded):
                    raise ToolDenied(f"{name} may be called only after {first} gave a result: call {first} first")
            if "limit" in rule and matches(rule["limit"], name):
                made = sum(count for called, count in record.calls.items() if matches(rule["limit"], called))
                if made >= rule["to"]:
                    what = ", ".join(rule["limit"])
                    raise ToolDenied(f"{what} may be called {rule['to']} times in a run, and it was")

    def approval(self, name: str) -> ApprovalRule | None:
        """Who must allow a call of `name`, if somebody must."""
        for rule in self.rules:
            if "require_approval" in rule and matches(rule["require_approval"], name):
                return ApprovalRule(tuple(rule.get("roles", ())), rule.get("timeout"))
        return None

    def _forbidden(self, name: str) -> str | None:
        for number, rule in enumerate(self.rules, 1):
            if "deny" in rule and matches(rule["deny"], name):
                return f"a policy denies {name} (the agent's policy {number})"
        allowing = [rule["allow"] for rule in self.rules if "allow" in rule]
        if allowing and not any(matches(patterns, name) for patterns in allowing):
            return f"no policy allows {name}"
        return None


def matches(patterns: Sequence[str], name: str) -> bool:
    """Whether one of the patterns means `name`."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)

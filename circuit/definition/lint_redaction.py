"""Checks of rules of redaction that stand together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from circuit.definition.tree import PathTuple
from circuit.definition.validation import Report
from circuit.security.redactor import conflict
from circuit.security.rules import rules_of


def lint_rules(report: Report, path: PathTuple, plain: Sequence[Mapping[str, Any]]) -> None:
    """Report rules of one list that do not go together."""
    names = [rule["name"] for rule in plain]
    for index, name in enumerate(names):
        if name in names[:index]:
            report.add((*path, index), f"two rules are called {name}", "name one of them differently")
    found = conflict(rules_of(plain))
    if found is not None:
        first, second = found
        message = f"the rule {second} would change what stands instead of what {first} takes out"
        report.add((*path, names.index(first)), message, f"give {first} a `replace` that no rule matches")

"""Checks of rules of redaction that stand together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from circuit.definition.tree import PathTuple
from circuit.definition.validation import Report
from circuit.security.rules import Rule, rules_of


def lint_rules(
    report: Report, path: PathTuple, plain: Sequence[Mapping[str, Any]], others: Sequence[Rule] = ()
) -> None:
    """Report rules of one list that do not go together, or not with the `others` that count beside them."""
    if not plain:
        return
    names = [rule["name"] for rule in plain]
    for index, name in enumerate(names):
        if name in names[:index]:
            report.add((*path, index), f"two rules are called {name}", "name one of them differently")
    rules = rules_of(plain)
    _extent(report, path, rules)
    from circuit.security.redactor import conflicts

    for first, second in conflicts([*dict.fromkeys((*others, *rules))]):
        if first in rules:
            message = f"the rule {second.name} would change what stands instead of what {first.name} takes out"
            hint = f"give {first.name} a `replace` that no rule matches"
            report.add((*path, rules.index(first)), message, hint)
        elif second in rules:
            message = f"the rule would change what stands instead of what {first.name} takes out"
            hint = f"{first.name} counts beside it: write a pattern that does not match its replacement"
            report.add((*path, rules.index(second)), message, hint)


def _extent(report: Report, path: PathTuple, rules: Sequence[Rule]) -> None:
    from circuit.security.pattern import LARGEST, Pattern

    size = 0
    for index, rule in enumerate(rules):
        if rule.pattern is None:
            continue
        size += Pattern.parse(rule.pattern).size
        if size > LARGEST:
            message = f"the patterns of these rules have more than {LARGEST:,} characters, with repetitions written out"
            report.add((*path, index), message, "allow fewer repetitions, or leave rules out")
            return

"""When a case is complete: when all its tokens lie in terminal places, or when the predicate of its workflow holds.

A predicate knows `tokens`, a list for each place, of the tokens that lie there, held by a firing or not; and `case`.
Where it does no more than to count tokens (`size(tokens.answers) >= 3 && size(tokens.open) == 0`), it can be told in
terms of the net.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

from circuit.expressions.cel import EvaluationFault, Expression
from circuit.net.marking import Marking
from circuit.net.scope import token_view
from circuit.net.structure import Net

VARIABLES = ("tokens", "case")
"""What a predicate may use."""

_PLACE = r"""tokens(?:\.(\w+)|\[\s*['"]([^'"]+)['"]\s*\])"""
_COUNT = re.compile(rf"(?:size\(\s*{_PLACE}\s*\)|{_PLACE}\.size\(\))\s*(==|!=|>=|<=|>|<)\s*(\d{{1,9}})")
_MOST_ALTERNATIVES = 16


class Count(NamedTuple):
    """How many tokens must lie in a place: `least`, and fewer than `below`, where that is said."""

    place: str
    least: int = 0
    below: int | None = None


def is_complete(net: Net, marking: Marking, case: Mapping[str, Any]) -> bool:
    """Whether a case is complete that stands so. A predicate that has no answer does not hold."""
    if net.complete_when is None:
        return all(net.places[name].resting for name in marking.places())
    try:
        return net.complete_when.evaluate(_scope(net, marking, case)) is True
    except EvaluationFault:
        return False


def incompleteness(net: Net, marking: Marking, case: Mapping[str, Any]) -> str:
    """Why a case is not complete that stands so, in words."""
    if net.complete_when is None:
        return "not all tokens lie in terminal places"
    try:
        net.complete_when.evaluate(_scope(net, marking, case))
    except EvaluationFault as fault:
        return f"complete_when has no answer: {fault}"
    return f"complete_when does not hold: {net.complete_when.source}"


def counts(predicate: Expression) -> tuple[tuple[Count, ...], ...] | None:
    """The alternatives of which one must hold, each with all its counts; None where the predicate asks for more."""
    found: list[tuple[Count, ...]] = []
    for alternative in predicate.source.split("||"):
        parts = [_COUNT.fullmatch(part.strip()) for part in alternative.split("&&")]
        ways = [_ways(match) for match in parts if match is not None]
        if len(ways) < len(parts):
            return None
        found += product(*ways)
    return tuple(found) if len(found) <= _MOST_ALTERNATIVES else None


def _ways(match: re.Match[str]) -> list[Count]:
    place = next(name for name in match.groups()[:4] if name is not None)
    number = int(match[6])
    below, over = Count(place, 0, number), Count(place, number + 1)
    ways = {
        "==": [Count(place, number, number + 1)],
        "!=": [below, over],
        ">=": [Count(place, number)],
        ">": [over],
        "<=": [Count(place, 0, number + 1)],
        "<": [below],
    }[match[5]]
    return [count for count in ways if count.below is None or count.below > count.least]


def _scope(net: Net, marking: Marking, case: Mapping[str, Any]) -> dict[str, Any]:
    tokens = {name: [token_view(token, case) for token in marking.tokens(name)] for name in net.places}
    return {"tokens": tokens, "case": case}

"""Arguments of a call that come value by value, each with its place (`$.city.names[0]`), as Vertex sends them.

Text may come in pieces: what follows at a place that is to go on is added to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

from circuit.providers.parser import mapping, sequence, text

_STEP = re.compile(r"""\.?([^.\[\]"']+)|\[(\d+)\]|\[(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')\]""")
LONGEST_LIST = 10_000
"""A place further in a list than this is no place: the list would have to be made."""


class PartialArguments:
    """The arguments of one call in the making."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self._open: str | None = None

    def take(self, call: Mapping[str, Any]) -> None:
        """What one more piece of the call brings. What has no place that can be read is left out."""
        self.value |= mapping(call.get("args"))
        for item in sequence(call.get("partialArgs")):
            self._put(mapping(item))

    def _put(self, partial: Mapping[str, Any]) -> None:
        path = text(partial.get("jsonPath"))
        steps = steps_of(path)
        value = _value(partial)
        if not steps or value is _NOTHING:
            self._open = path if partial.get("willContinue") else None
            return
        goes_on = self._open == path
        self._open = path if partial.get("willContinue") else None
        place: Any = self.value
        for step, after in pairwise(steps):
            below = _at(place, step)
            if not isinstance(below, list if isinstance(after, int) else dict):
                below = [] if isinstance(after, int) else {}
                if not _set(place, step, below):
                    return
            place = below
        before = _at(place, steps[-1])
        if goes_on and isinstance(before, str) and isinstance(value, str):
            value = before + value
        _set(place, steps[-1], value)


def steps_of(path: str) -> list[str | int]:
    """The steps of a path, names and indexes; none where it cannot be read, or is the whole."""
    if not path.startswith("$"):
        return []
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            return []
        name, index, double, single = found.groups()
        steps.append(int(index) if index else next(one for one in (name, double, single) if one is not None))
        at = found.end()
    return steps


_NOTHING = object()


def _value(partial: Mapping[str, Any]) -> Any:
    for name in ("stringValue", "numberValue", "boolValue"):
        if name in partial:
            number = partial[name]
            return int(number) if isinstance(number, float) and number.is_integer() else number
    return None if "nullValue" in partial else _NOTHING


def _at(place: Any, step: str | int) -> Any:
    if isinstance(step, int):
        items = cast("list[Any]", place) if isinstance(place, list) else []
        return items[step] if step < len(items) else None
    return cast("dict[str, Any]", place).get(step) if isinstance(place, dict) else None


def _set(place: Any, step: str | int, value: Any) -> bool:
    """Put `value` there; whether that is possible."""
    if isinstance(place, dict) and isinstance(step, str):
        cast("dict[str, Any]", place)[step] = value
        return True
    if isinstance(place, list) and isinstance(step, int) and step < LONGEST_LIST:
        items = cast("list[Any]", place)
        items += [None] * (step + 1 - len(items))
        items[step] = value
        return True
    return False

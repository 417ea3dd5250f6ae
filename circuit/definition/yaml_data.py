"""YAML that is no workflow file as plain data, as JSON would hold it: dates and words like `no` stay text."""

from __future__ import annotations

import re
from typing import Any, cast

import yaml

MOST_VALUES = 1_000_000
"""With aliases written out."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOOLEAN = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")


class _Plain(_LOADER):
    """YAML 1.1 takes more for dates and for yes and no than JSON has."""


_Plain.yaml_implicit_resolvers = {
    first: [(tag, fits) for tag, fits in known if tag.rpartition(":")[2] not in ("timestamp", "bool")]
    for first, known in _LOADER.yaml_implicit_resolvers.items()
}
for _first in "tTfF":
    _Plain.yaml_implicit_resolvers.setdefault(_first, []).append(("tag:yaml.org,2002:bool", _BOOLEAN))


def yaml_data(written: bytes) -> Any:
    """What a YAML text holds. Raises `ValueError` where it is none, or too much."""
    try:
        value = yaml.load(written, _Plain)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    pending, count = [value], 0
    while pending:
        one = pending.pop()
        count += 1
        if count > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES} values")
        if isinstance(one, dict):
            pending += cast("dict[Any, Any]", one).values()
        elif isinstance(one, list):
            pending += cast("list[Any]", one)
    return value

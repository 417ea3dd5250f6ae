"""Colours: what a place demands of the data of its tokens, as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

MAX_FAULTS = 20
_MAX_MESSAGE = 300


class Colour:
    """A named JSON Schema, compiled. Without a `$schema` it is read as draft 2020-12.

    Raises `ValueError` for a schema that is none. References outside the schema are refused: nothing is fetched.
    """

    __slots__ = ("_validator", "name", "schema")

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        self.name = name
        self.schema = schema
        try:
            # The mask keeps data, which may be private and large, out of messages.
            self._validator = jsonschema_rs.validator_for(
                dict(schema), mask="the value", validate_formats=True, offline=True
            )
        except jsonschema_rs.ValidationError as error:
            where = "/".join(str(step) for step in error.instance_path)
            raise ValueError((f"{where}: " if where else "") + _short(error.message)) from None
        except Exception as error:
            raise ValueError(f"not a JSON Schema: {_short(str(error))}") from None

    def accepts(self, data: Mapping[str, Any]) -> bool:
        """Whether `data` fits."""
        try:
            return self._validator.is_valid(data)
        except Exception:
            # The library refuses what JSON cannot hold (a lone surrogate, a key that is no string) by raising.
            return False

    def faults(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """What in `data` does not fit, each as `path: what`; empty if it fits. At most `MAX_FAULTS` of them."""
        if self.accepts(data):
            return ()
        found: list[str] = []
        try:
            for error in self._validator.iter_errors(data):
                where = ".".join(str(step) for step in error.instance_path)
                found.append((f"{where}: " if where else "") + _short(error.message))
                if len(found) == MAX_FAULTS:
                    break
        except Exception as error:
            found.append(f"not a JSON value: {_short(str(error))}")
        return tuple(found)

    def __repr__(self) -> str:
        return f"Colour({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Colour) and (self.name, self.schema) == (other.name, other.schema)

    def __hash__(self) -> int:
        return hash(self.name)


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"

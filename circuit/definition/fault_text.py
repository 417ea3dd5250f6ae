"""Turns the errors of pydantic into faults in plain words, at the place in the file where they lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from circuit.definition.field import IDENTIFIER, kind_of
from circuit.definition.shape import Spot, known_keys

_KIND_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_KINDS = {"nothing": "nothing", "list": "a list", "mapping": "a mapping"}
_SECRETS = ("api_key", "headers", "base_url")


def suggestion(name: str, known: Sequence[str], what: str = "") -> str:
    """A hint for a name that is not known: the one that was probably meant, or those that there are."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if not close and len(name) > 2:
        close = [one for one in known if one.startswith(name) or (len(one) > 2 and name.startswith(one))]
    if close:
        return f"did you mean {close[0]}?"
    if not known:
        return f"there are no {what}" if what else ""
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"known {what or 'names'}: {shown}"


def shown(value: Any) -> str:
    """A value as a message shows it."""
    kind = kind_of(value)
    if kind in _KINDS:
        return _KINDS[kind]
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def describe(error: Mapping[str, Any], spot: Spot) -> tuple[str, str]:
    """Message and hint of one error of pydantic."""
    kind: str = error["type"]
    context: Mapping[str, Any] = error.get("ctx") or {}
    name = _name(spot)
    given = _given(error, spot)
    if kind == "missing":
        return f"the key {name!r} is missing", _description(spot, "add it: ")
    if kind == "extra_forbidden":
        model = spot.model
        return f"unknown key {name!r}", suggestion(name, known_keys(model), "keys") if model else ""
    if kind == "wrong_kind":
        return f"{name} must be {context['expected']}, not {_kind_shown(error, spot)}", ""
    if kind == "unknown_type":
        return _unknown_type(error["input"], name, context)
    if kind in _KIND_TYPES:
        return f"{name} must be {_KIND_TYPES[kind]}, not {given}", _kind_hint(kind, error["input"])
    if kind == "literal_error":
        allowed = tuple(_literals(spot, context))
        value = error["input"]
        hint = suggestion(value, allowed, "values") if isinstance(value, str) else ""
        return f"{name} must be one of {', '.join(allowed)}, not {given}", hint
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        return f"{name} must be {_bounds(spot)}, not {given}", ""
    if kind == "string_pattern_mismatch":
        what = "a name" if context.get("pattern") == IDENTIFIER else "the name of a variable"
        return f"{given} is not {what}", "names have letters, digits, _ and -, and begin with a letter or _"
    if kind == "string_too_short":
        return f"{name} must not be empty", ""
    if kind == "string_too_long":
        return f"{name} may have {context['max_length']:,} characters at most", ""
    if kind in ("too_long", "too_short"):
        limit = f"{context['max_length']:,} entries at most" if kind == "too_long" else "one entry at least"
        return f"{name} must have {limit}", ""
    return str(context.get("message", error["msg"])), str(context.get("hint", ""))


def _kind_hint(kind: str, value: Any) -> str:
    if kind == "string_type" and kind_of(value) in ("number", "boolean"):
        return "write it in quotes"
    if kind == "bool_type" and isinstance(value, str):
        return "without quotes, and no other words: yes, no, on and off are text"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "without quotes"
    return ""


def _name(spot: Spot) -> str:
    """What a message calls the thing: its key, and for an entry of a list the list's."""
    keys = [segment for segment in spot.path if isinstance(segment, str)]
    if not keys:
        return "the file"
    return keys[-1] if spot.path and isinstance(spot.path[-1], str) else f"an entry of {keys[-1]}"


def _given(error: Mapping[str, Any], spot: Spot) -> str:
    return "this" if _is_secret(spot) else shown(error["input"])


def _kind_shown(error: Mapping[str, Any], spot: Spot) -> str:
    kind = kind_of(error["input"])
    return _KINDS.get(kind) or (f"a {kind}" if _is_secret(spot) else shown(error["input"]))


def _is_secret(spot: Spot) -> bool:
    return any(segment in _SECRETS for segment in spot.path)


def _unknown_type(value: Any, name: str, context: Mapping[str, Any]) -> tuple[str, str]:
    if not isinstance(value, dict):
        return f"{name} must be {context['expected']}, not {shown(value)}", ""
    named: Any = value.get("type")  # type: ignore[reportUnknownMemberType]
    known: Sequence[str] = context["known"]
    if named is None:
        return f"the key 'type' is missing in {name}", f"known types: {', '.join(known)}"
    hint = suggestion(named, known, "types") if isinstance(named, str) else ""
    return f"{name} type must be one of {', '.join(known)}, not {shown(named)}", hint


def _literals(spot: Spot, context: Mapping[str, Any]) -> list[str]:
    text: str = context.get("expected", "")
    return [part.strip().strip("'") for part in text.replace(" or ", ", ").split(",") if part.strip()]


def _bounds(spot: Spot) -> str:
    found: dict[str, float] = {}
    for constraint in spot.constraints:
        for bound in ("ge", "gt", "le", "lt"):
            value = getattr(constraint, bound, None)
            if value is not None:
                found[bound] = value
    if "ge" in found and "le" in found:
        return f"between {found['ge']:,} and {found['le']:,}"
    if "ge" in found:
        return "0 or more" if found["ge"] == 0 else f"at least {found['ge']:,}"
    return f"at most {found['le']:,}" if "le" in found else "in range"


def _description(spot: Spot, before: str) -> str:
    model = spot.model
    if model is None:
        return ""
    for name, info in _fields(model):
        if spot.path and name == spot.path[-1] and info.description:
            description: str = info.description
            first = re.split(r"(?<!\.)[.:;](?:\s|$)", description)[0]
            return before + first[0].lower() + first[1:]
    return ""


def _fields(model: type[BaseModel]) -> list[tuple[str, Any]]:
    return [(info.alias or name, info) for name, info in model.model_fields.items()]

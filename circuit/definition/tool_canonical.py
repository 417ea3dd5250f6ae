"""The canonical form of capabilities, tools and policies: mappings with a kind, seconds, lists of patterns."""

from __future__ import annotations

from typing import Any

from circuit.definition.agent_reference import reference_text
from circuit.definition.field import Part, seconds
from circuit.definition.tool_document import CAPABILITIES, TOOL_KINDS, CapabilityEntry, Policy, ToolEntry

_DURATIONS = ("seconds", "timeout")
_LISTS = ("allow", "deny", "require_approval", "before", "limit")


def capability_json(entry: str | CapabilityEntry) -> dict[str, Any]:
    """A capability as `{name, ...options}`."""
    if isinstance(entry, str):
        return {"name": entry}
    name = next(name for name in CAPABILITIES if getattr(entry, name) is not None)
    return {"name": name, **_options(getattr(entry, name))}


def tool_json(entry: str | ToolEntry) -> dict[str, Any]:
    """A tool as `{kind, ...settings}`; a bare name is `{kind: named, name}`."""
    if isinstance(entry, str):
        return {"kind": "named", "name": entry}
    kind = next(kind for kind in TOOL_KINDS if getattr(entry, kind) is not None)
    value = getattr(entry, kind)
    return {"kind": kind, "name": value} if isinstance(value, str) else {"kind": kind, **_options(value)}


def policy_json(entry: Policy) -> dict[str, Any]:
    """A policy with lists of patterns, and its time in seconds."""
    made = _options(entry)
    return {name: [value] if name in _LISTS and isinstance(value, str) else value for name, value in made.items()}


def _options(part: Part) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in type(part).model_fields:
        value: Any = getattr(part, name)
        if value is None:
            continue
        if name in _DURATIONS:
            value = seconds(value)
        elif name in ("headers", "env"):
            value = {key: reference_text(item) for key, item in value.items()}
        made[name] = value
    return made

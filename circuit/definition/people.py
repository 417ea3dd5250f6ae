"""Which people may do what a transition asks of one: its own roles say so, or else those of the places from which it
takes tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TAKING = ("consume", "drain")
_ASKS = (("trigger", "manual"), ("action", "human"))
"""What of a transition asks for a person: the key, and its type."""


def asking(transition: Mapping[str, Any]) -> Iterator[str]:
    """The keys of what asks for a person and names no roles."""
    for key, kind in _ASKS:
        part: Mapping[str, Any] = transition.get(key) or {}
        if part.get("type") == kind and not part.get("roles"):
            yield key


def holders(transition: Mapping[str, Any], places: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The places that the transition takes tokens from and that name roles, with these."""
    taken = [arc["place"] for arc in transition["from_places"] if arc["mode"] in TAKING]
    return {name: places[name]["roles"] for name in taken if places.get(name, {}).get("roles")}


def common(asked: Mapping[str, Sequence[str]]) -> list[str]:
    """The roles that all of these places name."""
    first, *others = asked.values()
    return [role for role in first if all(role in other for other in others)]


def with_roles(transition: Mapping[str, Any], places: Mapping[str, Any]) -> Mapping[str, Any]:
    """The transition; what asks for a person and names no roles asks for those that its places have in common."""
    asked = holders(transition, places)
    if not asked:
        return transition
    return {**transition, **{key: {**transition[key], "roles": common(asked)} for key in asking(transition)}}

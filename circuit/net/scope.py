"""What guards, mappings and expressions can see of a binding, and the paths by which they look.

A scope is a plain mapping:

- `data`, `metadata`: those of the consumed token, only where exactly one is consumed;
- `tokens`: by place `{"id", "version", "data", "metadata"}`, or a list of these where the binding takes more than one
  token of the place (consumed ones before read ones), and always where how many it takes shows only then;
- `case`: `id`, `workflow_id`, `started_at` (ISO 8601) and `fired`, the completed firings by transition.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuit.expressions.path import MISSING, Path
from circuit.net.marking import Token

ROOTS = ("data", "metadata", "tokens", "case")


@dataclass(frozen=True, slots=True)
class ScopePath:
    """A path into a scope: `data.x`, `metadata.x`, `tokens.PLACE.data.x`, `case.id`; or a bare name, which means
    `metadata.NAME` where there is one, else `data.NAME`."""

    text: str
    path: Path
    bare: bool

    @classmethod
    def parse(cls, text: object) -> ScopePath:
        """The path that `text` spells. Raises `ValueError`."""
        if not isinstance(text, str):
            raise ValueError(f"a path must be text like data.content, not {text!r}")
        path = Path.parse(text)
        bare = len(path.segments) == 1
        if not bare and path.segments[0] not in ROOTS:
            raise ValueError(f"path {text!r} must begin with data., metadata., tokens. or case., or be a bare name")
        return cls(text, path, bare)

    @property
    def roots(self) -> tuple[str, ...]:
        """Which parts of a scope this path looks into."""
        return ("metadata", "data") if self.bare else self.path.segments[:1]

    def get(self, scope: Mapping[str, Any]) -> Any:
        """What lies at the path, or `MISSING`."""
        if not self.bare:
            return self.path.get(scope)
        found = self.path.get(scope.get("metadata") or {})
        return found if found is not MISSING else self.path.get(scope.get("data") or {})

    def absence(self, scope: Mapping[str, Any]) -> str:
        """Why there is nothing at the path, in words."""
        if "data" not in scope and self.roots[0] in ("data", "metadata"):
            return f"{self.text} means nothing here: more or less than one token is consumed; use tokens.PLACE"
        return f"{self.text} is missing"

    def __str__(self) -> str:
        return self.text


def token_view(token: Token, case: Mapping[str, Any]) -> dict[str, Any]:
    """A token as scopes show it; its id is `CASE.NUMBER`."""
    return {
        "id": f"{case.get('id', '')}.{token.number}",
        "version": token.version,
        "data": token.data,
        "metadata": token.metadata,
    }


def scope_of(
    consumed: Sequence[Token],
    read: Sequence[Token],
    case: Mapping[str, Any],
    needs: Collection[str] = ROOTS,
    lists: Collection[str] = (),
) -> dict[str, Any]:
    """The scope of a binding that consumes and reads these tokens; `tokens` is left out unless it is among `needs`.
    The places in `lists` have a list of tokens, however many they are."""
    scope: dict[str, Any] = {"case": case}
    if len(consumed) == 1 and not lists:
        scope["data"] = consumed[0].data
        scope["metadata"] = consumed[0].metadata
    if "tokens" in needs:
        views: dict[str, list[dict[str, Any]]] = {place: [] for place in lists}
        for token in (*consumed, *read):
            views.setdefault(token.place, []).append(token_view(token, case))
        scope["tokens"] = {
            place: found[0] if len(found) == 1 and place not in lists else found for place, found in views.items()
        }
    return scope

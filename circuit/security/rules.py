"""Rules of redaction: what is taken out of text before it is logged, shown or sent to a model, and what stands there
instead."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from circuit.value import dataclass

if TYPE_CHECKING:
    from circuit.security.kinds import Kind

PLACES = ("logs", "events", "prompts")
"""Where rules may apply."""
HASH = "hash"
"""The replacement that tells equal values apart from others, and nothing else of them."""
_LETTERS = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")
_MARK = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """Takes out what is of a known `kind`, or what `pattern` matches. `replace` is what stands there instead (None:
    the name in brackets), `places` where the rule applies."""

    name: str
    kind: str | None = None
    pattern: str | None = None
    replace: str | None = None
    places: tuple[str, ...] = PLACES

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Rule:
        """The rule that is written as JSON."""
        places = tuple(plain.get("where") or PLACES)
        return cls(plain["name"], plain.get("kind"), plain.get("pattern"), plain.get("replace"), places)

    @property
    def known(self) -> Kind | None:
        """What is known of its kind."""
        from circuit.security.kinds import KINDS

        return None if self.kind is None else KINDS[self.kind]

    def instead(self, found: str, key: bytes | None) -> str:
        """What stands in the place of `found`. A hash takes a key: without one it tells nothing."""
        if self.replace is None or (self.replace == HASH and key is None):
            return f"[{self.name}]"
        if self.replace != HASH:
            return self.replace
        from circuit.security.folding import folded

        dropped = "" if self.known is None else self.known.dropped
        value = "".join(one for one in folded(found).casefold() if one not in dropped)
        mark = hmac.new(key or b"", f"{self.name}\0{value}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
        # Letters alone: no rule takes them for a number.
        return f"[{self.name}:{mark[:_MARK].encode().translate(_LETTERS).decode()}]"


def rules_of(plain: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The rules that are written as JSON, in their order."""
    return tuple(map(Rule.of, plain))

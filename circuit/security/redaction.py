"""Takes secrets out of text that others wrote and people will read, such as the message of a provider's error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

MASK = "***"
SHORTEST_SECRET = 4
"""A shorter value is no secret, and masking it would make the text unreadable."""

_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_*.-]{6,}|\b(?i:bearer)\s+(?=\S*[0-9_=*])[A-Za-z0-9._~+/*-]{6,}=*")


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` without the values in `secrets`, plain or escaped as in URLs and JSON, and without what looks like a key.

    Servers quote keys in part (`sk-ab***yz`), which no comparison with the value would find.
    """
    return _KEY_LIKE.sub(MASK, without(text, secrets))


def without(text: str, secrets: Iterable[str]) -> str:
    """`text` without the values in `secrets`, plain or escaped as in URLs and JSON."""
    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            forms |= {
                secret,
                quote(secret, safe=""),
                json.dumps(secret)[1:-1],
                json.dumps(secret, ensure_ascii=False)[1:-1],
            }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def excerpt(text: str, limit: int) -> str:
    """`text` on one line, without control characters, and at most `limit` characters long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"

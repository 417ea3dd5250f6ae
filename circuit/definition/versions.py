"""What a version is known by: the hash of its content."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: keys in order, no white space, no escapes that are not needed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: Any) -> str:
    """The SHA-256 of the canonical JSON of a value, in hex. Two spellings of one content have one hash."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()

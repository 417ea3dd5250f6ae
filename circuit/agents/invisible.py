"""Characters that people do not see and models read: instructions can be hidden in them.

What is left out: Unicode's tag characters, direction overrides and isolates, and characters of no width that join
nothing. Joiners that scripts and emoji need stay.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile("[\U000e0000-\U000e007f\u202a-\u202e\u2066-\u2069\u200b\u2060-\u2064\ufeff]")


def visible(text: str) -> tuple[str, int]:
    """`text` without them, and how many there were."""
    if text.isascii():
        return text, 0
    return _INVISIBLE.subn("", text)

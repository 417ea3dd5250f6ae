"""What some servers of OpenAI's protocol tell of a model's thinking as `reasoning_details`: OpenRouter, Snowflake.

The entries come piece by piece; put together they go back as they came, or the model behind the server does not take
its own calls again (signatures of Claude, of Gemini, what OpenAI encrypts).
"""

from __future__ import annotations

from typing import Any

from circuit.providers.assembly import joined
from circuit.providers.parser import mapping, sequence, text

_SPOKEN = ("text", "summary")


class Thoughts:
    """The entries of one answer in the making. What the last one says is in them when they are closed: there are as
    many pieces as tokens, and put together each time they would take time that grows with the square of their number.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self._pieces: dict[str, list[str]] = {}

    def take(self, details: Any) -> str:
        """What one more piece of the entries says; they are kept."""
        said: list[str] = []
        for item in sequence(details):
            entry = mapping(item)
            said += (text(entry.get(name)) for name in _SPOKEN)
            if not entry:
                continue
            last = self.entries[-1] if self.entries else {}
            same = all(entry.get(name) == last.get(name) for name in ("type", "index"))
            if not same or not any(name in entry for name in (*_SPOKEN, "signature")):
                self.close()
                self.entries.append(dict(entry))
                continue
            for name, value in entry.items():
                if name in _SPOKEN:
                    self._pieces.setdefault(name, [text(last.get(name))]).append(text(value))
                elif value is not None:
                    last[name] = value
        return "".join(said)

    def close(self) -> None:
        """Put together what the last entry says."""
        for name, pieces in self._pieces.items():
            self.entries[-1][name] = joined("".join(pieces))
        self._pieces = {}

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
    """The entries of one answer in the making."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

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
                self.entries.append(dict(entry))
                continue
            for name, value in entry.items():
                if name in _SPOKEN:
                    last[name] = joined(text(last.get(name)) + text(value))
                elif value is not None:
                    last[name] = value
        return "".join(said)

"""Prompt templates: text in which `{name}` stands for a value.

Only braces that hold nothing but an identifier count, so JSON in a prompt needs no escape. What is put in is
never looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

TEMPLATE_VARIABLES = ("input_data", "token_id", "current_place", "token_metadata", "workflow_id", "history_count")

_NAME = re.compile(r"\{([^\W\d]\w*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. `names` are the names in it and the offsets of their opening braces, in order."""

    text: str
    names: tuple[tuple[str, int], ...]
    _literals: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """The template that `text` spells; any text is one."""
        # Splitting on a pattern with one group gives literal, name, literal, name, ..., literal.
        literals = tuple(_NAME.split(text)[::2])
        return cls(text, tuple((match[1], match.start()) for match in _NAME.finditer(text)), literals)

    def render(self, values: Mapping[str, str]) -> str:
        """The text with every name replaced. Raises `ValueError` with the names that have no value."""
        missing = sorted({name for name, _ in self.names if name not in values})
        if missing:
            raise ValueError(f"the template uses {', '.join(missing)}, for which there is no value")
        parts = [self._literals[0]]
        for (name, _), literal in zip(self.names, self._literals[1:], strict=True):
            parts.append(values[name])
            parts.append(literal)
        return "".join(parts)

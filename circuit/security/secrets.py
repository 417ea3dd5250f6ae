"""References to secrets: `${NAME}` stands for an environment variable, and is resolved only when it is needed.

A workflow holds references and never values, so that no secret gets into a table, a log or an event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class UnresolvedReference(ValueError):
    """A reference to variables that are not set, or set to nothing. `names` are theirs."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(f"not set in the environment: {', '.join(names)}")
        self.names = names


def references(text: str) -> tuple[str, ...]:
    """The names that `text` refers to, each once, in their order."""
    return tuple(dict.fromkeys(_REFERENCE.findall(text)))


def resolve(text: str, environment: Mapping[str, str]) -> str:
    """`text` with each `${NAME}` replaced by its value; all other text stays, and values are not resolved again.

    White space around a value is dropped: a key that was read from a file often ends in a line break.
    Raises `UnresolvedReference` with all the names that are not set.
    """
    missing = tuple(name for name in references(text) if not environment.get(name, "").strip())
    if missing:
        raise UnresolvedReference(missing)
    return _REFERENCE.sub(lambda match: environment[match.group(1)].strip(), text)

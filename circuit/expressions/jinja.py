"""Prompts in Jinja2, in its sandbox: for those that need conditions and loops.

A name without a value is nothing, as it is in plain templates. There are no other files to include, and nothing that a
template does changes what it was given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import ChainableUndefined, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_TEXT = 4 * 1024 * 1024
_SANDBOX = ImmutableSandboxedEnvironment(undefined=ChainableUndefined, autoescape=False, keep_trailing_newline=True)


class JinjaFault(ValueError):
    """What is wrong with a template, and at which offset of its text."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class JinjaTemplate:
    """A parsed template. `names` are the names that it takes from outside, with the offset where each stands first."""

    text: str
    names: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, text: str) -> JinjaTemplate:
        """The template that `text` spells. Raises `JinjaFault`."""
        try:
            tree = _SANDBOX.parse(text)
            _SANDBOX.compile(text)
        except TemplateSyntaxError as error:
            raise JinjaFault(error.message or "this is no template", _line(text, error.lineno)) from None
        if any(True for _ in meta.find_referenced_templates(tree)):
            raise JinjaFault("a prompt cannot include or extend another file")
        found = sorted(meta.find_undeclared_variables(tree))
        return cls(text, tuple((name, _first(text, name)) for name in found))

    def render(self, values: Mapping[str, Any]) -> str:
        """The text with `values`. Raises `ValueError` where it cannot be made."""
        pieces: list[str] = []
        size = 0
        try:
            for piece in _compiled(self.text).generate(dict(values)):
                size += len(piece)
                if size > LONGEST_TEXT:
                    raise ValueError(f"it is longer than {LONGEST_TEXT} characters")
                pieces.append(piece)
        except (TemplateError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        return "".join(pieces)


@lru_cache(maxsize=256)
def _compiled(text: str) -> Any:
    return _SANDBOX.from_string(text)


def _line(text: str, number: int) -> int:
    """Where the line of that number begins."""
    return sum(len(line) for line in text.splitlines(keepends=True)[: max(0, number - 1)])


def _first(text: str, name: str) -> int:
    found = re.search(rf"\b{re.escape(name)}\b", text)
    return found.start() if found else 0

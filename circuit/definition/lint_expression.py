"""Checks of CEL expressions: syntax, and the names of tokens and firings that they speak of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from circuit.definition.compiler import ALWAYS, ONE_TOKEN
from circuit.definition.fault_text import suggestion
from circuit.definition.scene import Scene
from circuit.definition.tree import PathTuple
from circuit.expressions.cel import ExpressionFault, compile_expression

CASE_FIELDS = ("id", "workflow_id", "started_at", "fired")

_STRING = re.compile(r"\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL)
_TOKENS_DOT = re.compile(r"(?<![\w.])tokens\s*\.\s*([A-Za-z_]\w*)")
_TOKENS_INDEX = re.compile(r"(?<![\w.])tokens\s*\[\s*(['\"])((?:(?!\1).)*)\1\s*\]")
_FIRED_DOT = re.compile(r"(?<![\w.])case\s*\.\s*fired\s*\.\s*([A-Za-z_]\w*)")
_FIRED_INDEX = re.compile(r"(?<![\w.])case\s*\.\s*fired\s*\[\s*(['\"])((?:(?!\1).)*)\1\s*\]")
_CASE_DOT = re.compile(r"(?<![\w.])case\s*\.\s*([A-Za-z_]\w*)")
_ONE_TOKEN = re.compile(r"(?<![\w.])(?:data|metadata)\b")
_UNDECLARED = re.compile(r"undeclared reference to '(\w+)")
_TOKEN_PART = re.compile(r"\s*\.\s*(data|metadata|id|version)\b")
_NOT_BOOLEAN = ("INT", "UINT", "DOUBLE", "STRING", "BYTES", "NULL", "LIST", "MAP", "TIMESTAMP", "DURATION")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a transition binds: tokens by place, and how many it consumes. `known` is false where an arc is at fault.
    Of the places in `lists` it takes a number that shows only when it fires."""

    weights: dict[str, int]
    consumed: int
    known: bool = True
    lists: frozenset[str] = frozenset()

    @property
    def one(self) -> bool:
        return (self.consumed == 1 and not self.lists) or not self.known

    def several(self, place: str) -> str | None:
        """How many tokens of a place are bound, in words, where expressions see a list of them."""
        if place in self.lists:
            return f"several tokens of {place} may be bound"
        weight = self.weights.get(place, 0)
        return f"{weight} tokens of {place} are bound" if weight > 1 else None

    @property
    def amount(self) -> str:
        if self.lists:
            return "as many tokens as there are may be"
        return "no token is" if self.consumed == 0 else f"{self.consumed} tokens are"


def check_expression(
    scene: Scene, path: PathTuple, source: str, inputs: Inputs, *, condition: bool, beside: tuple[str, ...] = ()
) -> None:
    """Report what is wrong with the expression that stands at `path`. It may use `beside` too."""
    report = scene.report
    try:
        expression = compile_expression(source, (*(ONE_TOKEN if inputs.one else ALWAYS), *beside))
    except ExpressionFault as fault:
        one_token = None if inputs.one or not _compiles(source, beside) else _ONE_TOKEN.search(_masked(source))
        if one_token is not None:
            word, offset = one_token[0], one_token.start()
            message = f"{word} means nothing here: {inputs.amount} consumed, not one"
            report.add(path, message, f"use tokens.PLACE.{word}{_example(inputs, word)}", offset=offset)
        else:
            hint = _hyphen_hint(source, scene) or "expressions are written in CEL: see https://cel.dev"
            report.add(path, f"not a valid expression: {fault.message}", hint, offset=_offset(source, fault))
            return
    else:
        kind = expression.returns.partition("<")[0]
        if condition and kind in _NOT_BOOLEAN:
            message = f"the condition gives {expression.returns.lower()}, not true or false"
            report.add(path, message, "compare it with something", offset=0)
    _names(scene, path, source, inputs)


def check_filter(scene: Scene, path: PathTuple, source: str) -> None:
    """Report what is wrong with the filter of an arc that stands at `path`."""
    try:
        expression = compile_expression(source, ("token",))
    except ExpressionFault as fault:
        hint = "a filter looks at one token: write token.data.NAME or token.metadata.NAME"
        scene.report.add(path, f"not a valid filter: {fault.message}", hint, offset=_offset(source, fault))
        return
    if expression.returns.partition("<")[0] in _NOT_BOOLEAN:
        message = f"the filter gives {expression.returns.lower()}, not true or false"
        scene.report.add(path, message, "compare it with something", offset=0)
    elif "token" not in expression.names:
        scene.report.add(path, "the filter does not look at the token", "write token.data.NAME", offset=0)


def _names(scene: Scene, path: PathTuple, source: str, inputs: Inputs) -> None:
    report = scene.report
    for place, offset, end in _mentions(source, _TOKENS_DOT, _TOKENS_INDEX):
        check_token_name(scene, path, place, inputs, offset)
        part = _TOKEN_PART.match(source, end)
        if inputs.known and part and (several := inputs.several(place)):
            message = f"tokens.{place} is a list: {several}"
            report.add(
                path, message, f"write tokens.{place}[0].{part[1]}, or tokens.{place}.map(t, ...)", offset=offset
            )
    for name, offset, _ in _mentions(source, _FIRED_DOT, _FIRED_INDEX):
        if name not in scene.transitions:
            hint = suggestion(name, scene.transitions, "transitions")
            report.add(path, f"case.fired.{name}: there is no transition {name!r}", hint, offset=offset)
    for name, offset, _ in _mentions(source, _CASE_DOT, None):
        if name not in CASE_FIELDS:
            report.add(path, f"case has no {name!r}", suggestion(name, CASE_FIELDS, "fields"), offset=offset)


def check_token_name(scene: Scene, path: PathTuple, place: str, inputs: Inputs, offset: int | None = None) -> bool:
    """Whether `tokens.PLACE` speaks of an input of the transition; if not, a fault."""
    if place in inputs.weights or not inputs.known:
        return True
    if place in scene.places:
        message = f"tokens.{place}: the transition takes and reads no token of {place}"
        hint = f"its inputs are {', '.join(inputs.weights) or 'none'}; add {{place: {place}, mode: read}}"
    else:
        message = f"tokens.{place}: there is no place {place!r}"
        hint = suggestion(place, tuple(inputs.weights) or scene.places, "places")
        longer = [name for name in inputs.weights if name.startswith(f"{place}-")]
        if longer:
            hint = f'write tokens["{longer[0]}"]: a hyphen is a minus in CEL'
    scene.report.add(path, message, hint, offset=offset)
    return False


def _mentions(source: str, dotted: re.Pattern[str], indexed: re.Pattern[str] | None) -> Iterator[tuple[str, int, int]]:
    """Names that an expression mentions, with their offsets and ends; what stands in quotes is no mention."""
    masked = _masked(source)
    for match in dotted.finditer(masked):
        yield match[1], match.start(1), match.end()
    if indexed is not None:
        for match in indexed.finditer(source):
            if masked[match.start()] != " ":
                yield match[2], match.start(2), match.end()


def _compiles(source: str, beside: tuple[str, ...]) -> bool:
    try:
        compile_expression(source, (*ONE_TOKEN, *beside))
    except ExpressionFault:
        return False
    return True


def _masked(source: str) -> str:
    """The source with blanks for what stands in quotes."""
    return _STRING.sub(lambda match: '"' + " " * (len(match[0]) - 2) + '"', source)


def _offset(source: str, fault: ExpressionFault) -> int:
    undeclared = _UNDECLARED.match(fault.message)
    # CEL points at the end of a name with dots; its beginning says more.
    if undeclared and (found := re.search(rf"(?<![\w.]){undeclared[1]}\b", _masked(source))):
        return found.start()
    lines = source.split("\n")
    before = sum(len(line) + 1 for line in lines[: fault.line - 1])
    return max(0, min(before + fault.column - 1, len(source.rstrip()) - 1))


def _example(inputs: Inputs, word: str) -> str:
    return f", as in tokens.{next(iter(inputs.weights))}.{word}" if inputs.weights else ""


def _hyphen_hint(source: str, scene: Scene) -> str:
    names = [name for name in (*scene.places, *scene.transitions) if "-" in name and f".{name}" in source]
    return f'write ["{names[0]}"]: a hyphen is a minus in CEL' if names else ""

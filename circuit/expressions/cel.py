"""CEL (Common Expression Language) behind one door: compiled once, evaluated on plain JSON values.

No exception of the library leaves this file. A source that does not compile raises `ExpressionFault` with line and
column; an evaluation that fails (a missing key, a wrong type, a value that CEL or JSON cannot hold) raises
`EvaluationFault`. The library cuts strings at a NUL character; tokens hold none, because Postgres stores none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cel_expr_python import cel

from circuit.expressions.value import is_list, is_object

MAX_SOURCE_LENGTH = 4000

_ERROR: Any = cel.Type.ERROR
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_COMPILE_ERROR = re.compile(
    r"ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?=\n \||\nERROR: <input>:|(?: \[[A-Z_]+\])?\Z)", re.DOTALL
)
_OTHER_LANGUAGE = re.compile(r"\b(?:and|or|not)\b|[^=!<>]=[^=]")
_MISSING_KEY = re.compile(r'Key not found in map : "(.*)"', re.DOTALL)
_NO_VARIABLE = re.compile(r'No value with name "(.*)" found in Activation')


class ExpressionFault(ValueError):
    """A source that is not a valid expression. `line` and `column` count from 1 and tell where the first fault is."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class EvaluationFault(ValueError):
    """An expression that has no value for these inputs."""


class Expression:
    """A compiled expression. Immutable.

    `variables` are those that it was compiled with, `names` those of them that its source mentions (nothing else
    needs to be handed in), and `returns` is the type that it is known to give: `BOOL`, `INT`, ... or `DYN`.
    """

    __slots__ = ("_program", "names", "returns", "source", "variables")

    def __init__(self, source: str, variables: tuple[str, ...], program: Any) -> None:
        self.source = source
        self.variables = variables
        mentioned = set(_IDENTIFIER.findall(source))
        self.names = tuple(name for name in variables if name in mentioned)
        self.returns = str(program.return_type())
        self._program = program

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value for these variables, as plain JSON; an instant comes as ISO 8601, a duration as `12.5s`.

        Raises `EvaluationFault`.
        """
        try:
            # The library converts what it is handed, so it gets only what the source mentions.
            result = self._program.eval(data={name: values[name] for name in self.names if name in values})
            value = result.plain_value()
            if type(value) is bool:
                return value
            failed = type(value) is str and result.type() == _ERROR
        except Exception as error:
            # The library's own failures on odd inputs (a lone surrogate, say) come as several types.
            raise EvaluationFault(f"{self.source}: {_readable(str(error))}") from None
        if failed:
            raise EvaluationFault(f"{self.source}: {_readable(value)}")
        try:
            return self._plain(value)
        except RecursionError:
            raise EvaluationFault(f"{self.source}: gives a value that is nested too deeply") from None

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, str | int):
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise EvaluationFault(f"{self.source}: gives {value}, which JSON cannot hold")
            return value
        if is_list(value):
            return [self._plain(item) for item in value]
        if is_object(value):
            return {self._key(key): self._plain(item) for key, item in value.items()}
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        if isinstance(value, timedelta):
            return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
        kind = "bytes" if isinstance(value, bytes | bytearray) else "a type"
        raise EvaluationFault(f"{self.source}: gives {kind}, which JSON cannot hold")

    def _key(self, key: object) -> str:
        if isinstance(key, str):
            return key
        raise EvaluationFault(f"{self.source}: gives an object with the key {key!r}; keys are strings")

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and (self.source, self.variables) == (other.source, other.variables)

    def __hash__(self) -> int:
        return hash((self.source, self.variables))


def compile_expression(source: str, variables: Sequence[str]) -> Expression:
    """The expression that `source` spells, over these variables of any type. Raises `ExpressionFault`."""
    if len(source) > MAX_SOURCE_LENGTH:
        raise ExpressionFault(
            f"the expression has {len(source)} characters; at most {MAX_SOURCE_LENGTH} are allowed: split it up"
        )
    if not source.strip():
        raise ExpressionFault("the expression is empty")
    if not source.isprintable() and any("\ud800" <= character <= "\udfff" for character in source):
        raise ExpressionFault("the expression holds half of a surrogate pair, which is no character")
    names = tuple(variables)
    try:
        return Expression(source, names, _environment(names).compile(source))
    except Exception as error:
        raise _fault(str(error), source) from None


@cache
def _environment(variables: tuple[str, ...]) -> Any:
    return cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN))


def _fault(text: str, source: str) -> ExpressionFault:
    if "recursion" in text:
        return ExpressionFault("the expression is nested too deeply, or chains more than 32 operators; split it up")
    found = [(int(line), int(column), _tidy(what)) for line, column, what in _COMPILE_ERROR.findall(text)]
    if not found:
        return ExpressionFault(text.removeprefix("INVALID_ARGUMENT: ").strip() or "the expression cannot be compiled")
    line, column, message = found[0]
    more = [f"{what} (at {at}:{offset})" for at, offset, what in found[1:]]
    hint = " (CEL writes &&, ||, ! and ==)" if _OTHER_LANGUAGE.search(source) else ""
    return ExpressionFault("; ".join([message, *more]) + hint, max(line, 1), max(column, 1))


def _tidy(message: str) -> str:
    message = message.strip().replace(" (in container '')", "")
    if message.startswith("Syntax error: mismatched input '<EOF>'"):
        return "Syntax error: the expression ends too early"
    return re.sub(r" expecting \{.*\}", "", message, flags=re.DOTALL)


def _readable(text: str) -> str:
    """The library's message of a failed evaluation, without its status code."""
    if "construction from null" in text:
        return "a text holds half of a surrogate pair, which is no character"
    message = text.partition(": ")[2] or text
    missing = _MISSING_KEY.fullmatch(message)
    if missing:
        return f"there is no key {missing[1]!r}"
    unknown = _NO_VARIABLE.fullmatch(message)
    if unknown:
        return f"{unknown[1]} is not known here" + (
            "; it needs exactly one consumed token" if unknown[1] in ("data", "metadata") else ""
        )
    if "SELECT to non-message type" in message:
        return "a field is asked of something that is not an object"
    return message.replace("No matching overloads found : ", "no operation for these types: ")

"""From an agent's answer to its structured output, or to a readable reason why it is none."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import jsonschema_rs

from circuit.errors import ContentFiltered, InvalidOutput, ModelRefusal, OutputTruncated

ANSWER_LIMIT = 4 * 1024 * 1024
"""How many bytes an answer may have."""
DEEPEST = 100
"""How deep an output may be nested."""

_FAULTS_SHOWN = 5
_FAULT_LENGTH = 200
_FENCE = re.compile(r"```[A-Za-z0-9_-]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL)
_MASK = "the value"


def interpret(text: str, reason: str, schema: Mapping[str, Any] | None) -> Any:
    """The structured output in `text`, which ended for `reason`; None where no schema asks for one.

    Raises `ModelRefusal` where the model refused, `ContentFiltered` where its provider's filter stopped it,
    `OutputTruncated` where the structured answer stopped at `max_tokens`, `InvalidOutput` where it is no JSON, does
    not fit, or cannot be stored.
    """
    if reason == "refusal":
        raise ModelRefusal(_refusal("the model", text))
    if reason == "content_filter":
        raise ContentFiltered(_refusal("the provider's content filter", text))
    check_text(text)
    if schema is None:
        return None
    if reason == "length":
        raise OutputTruncated(
            "the model stopped at max_tokens before its structured answer was whole:"
            " raise max_tokens in llm_config, or ask for less in output_schema"
        )
    value = _parse(text)
    fault = unstorable(value)
    if fault is not None:
        raise InvalidOutput(f"the model's answer cannot be stored: {fault}")
    _validate(value, schema)
    return value


def check_text(text: str) -> None:
    """Raises `InvalidOutput` where `text` holds what no database row and no JSON frame can hold."""
    if "\0" in text:
        raise InvalidOutput("the model's answer holds a NUL character, which cannot be stored")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidOutput("the model's answer holds half of a surrogate pair, which is no text") from None


def check_size(size: int) -> None:
    """Raises `InvalidOutput` where an answer of `size` bytes is too large."""
    if size > ANSWER_LIMIT:
        raise InvalidOutput(f"the model's answer is longer than {ANSWER_LIMIT} bytes: set max_tokens in llm_config")


def _refusal(who: str, text: str) -> str:
    words = " ".join(text.replace("\0", " ").encode("utf-8", "replace").decode().split())
    return f"{who} refused to answer" + (f": {words[:500]}" if words else "")


def _parse(text: str) -> Any:
    """The JSON in `text`: as it is, or inside a code fence. Raw control characters in strings are let through,
    because models that are held to a schema write them; NaN and Infinity are not, because they are no JSON."""
    bare = text.strip().removeprefix("\ufeff").strip()
    if not bare:
        raise InvalidOutput("the model gave an empty answer where output_schema asks for JSON")
    try:
        return _loads(bare)
    except ValueError as error:
        fault = str(error)
    fences = _FENCE.findall(bare)
    if len(fences) == 1:
        try:
            return _loads(fences[0].strip())
        except ValueError as error:
            fault = str(error)
    raise InvalidOutput(f"the model's answer is not JSON ({fault}); it begins with {bare[:80]!r}")


def _loads(text: str) -> Any:
    try:
        return json.loads(text, strict=False, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def unstorable(root: Any) -> str | None:
    """What in `root` cannot be stored as JSON in Postgres, and where; without recursion."""
    pending: list[tuple[str, Any, int]] = [("", root, 0)]
    while pending:
        path, value, depth = pending.pop()
        where = path or "the value"
        if depth > DEEPEST:
            return f"it is nested more than {DEEPEST} deep"
        if isinstance(value, str):
            try:
                check_text(value)
            except InvalidOutput:
                return f"{where} holds a NUL character or half of a surrogate pair"
        elif isinstance(value, float) and not math.isfinite(value):
            return f"{where} is a number too large"
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"{where} is an integer of more than 64 bits"
        elif isinstance(value, Mapping):
            for key, inner in cast("Mapping[str, Any]", value).items():
                try:
                    check_text(key)
                except InvalidOutput:
                    return f"a key in {where} holds a NUL character or half of a surrogate pair"
                pending.append((f"{path}.{key}" if path else key, inner, depth + 1))
        elif isinstance(value, list):
            pending += [(f"{path}[{at}]", item, depth + 1) for at, item in enumerate(cast("list[Any]", value))]
    return None


def _validate(value: Any, schema: Mapping[str, Any]) -> None:
    try:
        # Offline: a schema must not make this process fetch what its author refers to.
        validator = jsonschema_rs.validator_for(dict(schema), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise InvalidOutput(f"output_schema is not a JSON Schema: {str(error).splitlines()[0]}") from None
    faults: list[str] = []
    for error in validator.iter_errors(value):
        if len(faults) == _FAULTS_SHOWN:
            faults.append("and more")
            break
        path = ".".join(str(step) for step in error.instance_path)
        message = error.message if len(error.message) <= _FAULT_LENGTH else error.message[: _FAULT_LENGTH - 1] + "…"
        faults.append(f"{path}: {message}" if path else message)
    if faults:
        raise InvalidOutput(f"the model's answer does not fit output_schema: {'; '.join(faults)}")

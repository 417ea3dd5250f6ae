"""What a tool is, to an agent: a name, a schema of its arguments, and something that can be called.

A tool raises `ToolError` for what the model should hear of; the run goes on. Anything else that it raises becomes
`tool_failed`, without its traceback.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import field
from typing import Any, Protocol, cast

import jsonschema_rs
import orjson
from pydantic_core import to_jsonable_python

from circuit.agents.output import unstorable
from circuit.errors import (
    Cancelled,
    CircuitError,
    StorageError,
    ToolArgumentsInvalid,
    ToolArgumentsMalformed,
    ToolError,
    ToolFailed,
    ToolOutputBinary,
    ToolOutputInvalid,
    ToolOutputTooLarge,
    ToolsMisconfigured,
    ToolTimeout,
)
from circuit.providers.provider import ToolSpec
from circuit.providers.wire import wire_name
from circuit.security.redaction import excerpt, redact, without
from circuit.value import dataclass

DEFAULT_SECONDS = 120.0
RESULT_LIMIT = 256 * 1024
"""How many bytes a result may have, as JSON: it goes into the prompt."""
_BINARY = (bytes, bytearray, memoryview)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL as JSON writes it, and not a backslash before what only looks like that."""
_MESSAGE_LIMIT = 500
_FAULTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Who calls. `key` is the same for the same call of the same firing, also after a crash: what a tool does outside
    can be done under it once. A tool that asks models itself says in `spent` what that took: `usage` and `cost`."""

    execution_id: str
    agent_id: str
    call_id: str
    key: str
    principal: str = ""
    spent: dict[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)


Call = Callable[[Mapping[str, Any], ToolContext], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `seconds` bounds a call; `secrets` are values that no text may show; `doubt` says why a person must
    allow each call of it, whatever the policies say; `successor` is the agent that goes on after it, if one does; `pin`
    is what a workflow fixes it by, where it comes from a server."""

    spec: ToolSpec
    call: Call
    seconds: float = DEFAULT_SECONDS
    secrets: tuple[str, ...] = field(default=(), repr=False)
    doubt: str = ""
    successor: str = ""
    pin: str = ""

    @property
    def name(self) -> str:
        return self.spec.name


class Toolset(Protocol):
    """Where tools come from; closed when the process ends."""

    async def tools(self) -> Iterable[Tool]:
        """The tools as they are now. Raises `ToolsMisconfigured`."""
        ...

    async def aclose(self) -> None:
        """Let go of what they hold. Twice is fine."""
        ...


def table(tools: Iterable[Tool]) -> dict[str, Tool]:
    """The tools by their names. Raises `ToolsMisconfigured` where two would have the same name for a model."""
    found: dict[str, Tool] = {}
    wired: dict[str, str] = {}
    for tool in tools:
        other = wired.setdefault(wire_name(tool.name), tool.name)
        if tool.name in found or other != tool.name:
            raise ToolsMisconfigured(f"two tools have the name {tool.name!r} for a model: give one of them a prefix")
        found[tool.name] = tool
    return found


def read_arguments(text: str) -> tuple[dict[str, Any], bool]:
    """The arguments that a model wrote, and whether it encoded them twice: then they are decoded twice. Nothing at all
    is none.

    Raises `ToolArgumentsMalformed`.
    """
    value: Any = {}
    twice = False
    for _ in range(2):
        try:
            value = json.loads(text, strict=False) if text.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ToolArgumentsMalformed(f"the arguments are not JSON: {error}") from None
        if not isinstance(value, str):
            break
        text, twice = value, True
    if value is None:
        return {}, twice
    if not isinstance(value, dict):
        raise ToolArgumentsMalformed(f"the arguments must be a JSON object, not {type(cast('Any', value)).__name__}")
    if (fault := unstorable(value)) is not None:
        raise ToolArgumentsMalformed(f"the arguments cannot be taken: {fault}; write it as text, or leave it out")
    return cast("dict[str, Any]", value), twice


def validator_of(schema: Mapping[str, Any]) -> Any:
    """What holds values against a JSON Schema. Raises `ValueError`, which says in a line why `schema` is none."""
    try:
        return jsonschema_rs.validator_for(dict(schema), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def check_arguments(tool: Tool, arguments: Mapping[str, Any]) -> None:
    """Raises `ToolArgumentsInvalid` with what does not fit the tool's schema."""
    try:
        validator = validator_of(tool.spec.parameters)
    except ValueError as error:
        raise ToolsMisconfigured(f"the schema of the tool {tool.name} is none: {error}") from None
    faults: list[str] = []
    for error in validator.iter_errors(dict(arguments)):
        path = ".".join(str(step) for step in error.instance_path)
        faults.append(excerpt(f"{path}: {error.message}" if path else error.message, 200))
        if len(faults) == _FAULTS_SHOWN:
            break
    if faults:
        raise ToolArgumentsInvalid(f"the arguments do not fit the tool's schema: {'; '.join(faults)}")


async def call_tool(tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> Any:
    """What the tool gives back, as JSON. Raises `ToolError`."""
    fault: ToolError
    limit = asyncio.timeout(tool.seconds)
    try:
        async with limit:
            return as_result(tool, await tool.call(arguments, context))
    except ToolError as error:
        fault = type(error)(_told(tool, error.message), details=error.details)
    except (StorageError, Cancelled):
        # Not the tool's: what it records for the run that asks it could not be kept, or counts no more.
        raise
    except CircuitError as error:
        fault = ToolFailed(_told(tool, f"{tool.name} failed ({error.code}): {error.message}"))
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        fault = ToolFailed(f"{tool.name} failed: it was cancelled from within")
    except (Exception, SystemExit) as error:
        # A tool must not be able to end the process.
        if isinstance(error, TimeoutError) and limit.expired():
            fault = ToolTimeout(f"{tool.name} did not come back within {tool.seconds:g} s")
        else:
            fault = ToolFailed(_told(tool, f"{tool.name} failed: {type(error).__name__}: {error}"))
    # Outside of the `except` blocks: what a tool raised may hold what nobody should see.
    raise fault


def as_result(tool: Tool, value: Any) -> Any:
    """`value` as JSON that a model can read: models, dataclasses, dates, sets and the like in their JSON form. Raises
    `ToolOutputInvalid`."""
    if isinstance(value, _BINARY):
        raise ToolOutputBinary(f"{tool.name} gave back {len(value)} bytes of binary data, which a model cannot read")
    # Measured before it is encoded: a result may be as large as memory.
    if isinstance(value, str) and len(value) > RESULT_LIMIT:
        raise _too_large(tool, len(value))
    try:
        encoded = orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error.__cause__, _Binary):
            raise ToolOutputBinary(f"{tool.name} gave back binary data, which a model cannot read") from None
        said = str(error.__cause__ or error).splitlines()[0]
        raise ToolOutputInvalid(_told(tool, f"{tool.name} gave back what is no JSON: {said}")) from None
    if len(encoded) > RESULT_LIMIT:
        raise _too_large(tool, len(encoded))
    if _NUL.search(encoded):
        raise ToolOutputBinary(f"{tool.name} gave back text with NUL characters, which is binary data")
    if tool.secrets:
        # A server may say what it was told.
        encoded = without(encoded.decode(), tool.secrets).encode()
    return orjson.loads(encoded)


class _Binary(TypeError):
    """Bytes somewhere within a result."""


def _plain(value: Any) -> Any:
    """The JSON form of what has none by itself, as what actions return has it."""
    if isinstance(value, _BINARY):
        raise _Binary
    if inspect.isgenerator(value) or inspect.isasyncgen(value) or inspect.isawaitable(value):
        raise TypeError(f"{type(value).__name__}, which has no value yet")
    return to_jsonable_python(value)


def _too_large(tool: Tool, size: int) -> ToolOutputTooLarge:
    return ToolOutputTooLarge(
        f"{tool.name} gave back {size} bytes, and {RESULT_LIMIT} are allowed: ask for a part of it"
    )


def _told(tool: Tool, text: str) -> str:
    return excerpt(redact(text, tool.secrets), _MESSAGE_LIMIT)

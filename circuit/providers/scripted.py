"""A provider that asks no model: it says what its options tell it to. For demos, dry runs and tests.

Options:
- `responses`: a list. An entry is text; or an object, which is sent as JSON (a structured answer); or
  `{when: TEXT, response: ...}`, chosen where the prompt holds TEXT (`/REGEX/` for a regular expression);
  or `{response: ..., reasoning: TEXT, finish: REASON}`; or `{tool_calls: [{name, arguments}], response: ...}`, which
  calls tools; or `{error: CODE, message, retry_after, text}`, which fails with one of the provider errors after saying
  `text`; or a list of all of these, which are the answers of one execution, turn by turn.
  The first entry whose `when` fits is taken; else the entries without `when` come in turn, one for each execution
  that completed, and the last one repeats. Failures before an answer fail the first attempts at it, one each.
- `delay_seconds` between pieces, `chunk_size` characters a piece, `seed`.

Without responses it makes up an answer that fits the output schema, the same for the same prompt and seed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from circuit.errors import (
    AuthenticationRefused,
    BadResponse,
    ContentFiltered,
    ContextTooLong,
    KeyExpired,
    KeyMissing,
    ModelNotFound,
    ModelRefusal,
    ModelRequestRefused,
    ProviderError,
    ProviderMisconfigured,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    StreamCut,
)
from circuit.providers.messages import Part, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, ReasoningChunk, TextChunk, ToolCallChunk
from circuit.providers.sample import NoSample, sample

DEFAULT_CHUNK_SIZE = 12
DEFAULT_MODEL = "scripted"

_ERRORS: dict[str, type[ProviderError]] = {
    error.code: error
    for error in (
        AuthenticationRefused,
        BadResponse,
        ContentFiltered,
        ContextTooLong,
        KeyExpired,
        KeyMissing,
        ModelNotFound,
        ModelRefusal,
        ModelRequestRefused,
        ProviderMisconfigured,
        ProviderTimeout,
        ProviderUnavailable,
        QuotaExceeded,
        RateLimited,
        StreamCut,
    )
}
_SPECIAL = (
    {"when", "response", "reasoning", "finish", "tool_calls"},
    {"error", "message", "retry_after", "text", "when"},
)


@dataclass(frozen=True, slots=True)
class _Reply:
    """One scripted answer, or one scripted failure after `text`."""

    text: str
    reasoning: str = ""
    finish: str = "stop"
    error: ProviderError | None = None
    calls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """The checked options."""

    responses: tuple[Any, ...] = ()
    delay_seconds: float = 0.0
    chunk_size: int = DEFAULT_CHUNK_SIZE
    seed: str = ""
    patterns: Mapping[int, re.Pattern[str]] = field(default_factory=dict[int, "re.Pattern[str]"])

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Script:
        """The script in `options`. Raises `ProviderMisconfigured`."""
        responses: Any = options.get("responses") or ()
        if not isinstance(responses, list | tuple):
            raise ProviderMisconfigured("responses of a scripted provider must be a list of texts and objects")
        entries = tuple(cast("list[Any]", responses))
        patterns: dict[int, re.Pattern[str]] = {}
        for index, entry in enumerate(entries):
            if not isinstance(entry, str | Mapping | list):
                raise ProviderMisconfigured(
                    f"response {index + 1} of a scripted provider is neither text nor object nor a list of turns"
                )
            pattern = _pattern(entry, index)
            if pattern is not None:
                patterns[index] = pattern
        delay = options.get("delay_seconds", 0.0)
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= 3600:
            raise ProviderMisconfigured("delay_seconds of a scripted provider must be a number from 0 to 3600")
        size = options.get("chunk_size", DEFAULT_CHUNK_SIZE)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ProviderMisconfigured("chunk_size of a scripted provider must be a whole number of at least 1")
        return cls(entries, float(delay), size, str(options.get("seed", "")), patterns)


class ScriptedProvider:
    """Says its script. `sleep` is handed in so that tests need not wait."""

    def __init__(
        self, options: Mapping[str, Any], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._script = Script.parse(options)
        self._sleep = sleep

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        prompt = _prompt(request)
        reply = self._reply(request, prompt)
        for kind, text in ((ReasoningChunk, reply.reasoning), (TextChunk, reply.text)):
            for begin in range(0, len(text), self._script.chunk_size):
                if self._script.delay_seconds:
                    await self._sleep(self._script.delay_seconds)
                yield kind(text[begin : begin + self._script.chunk_size])
        if reply.error is not None:
            raise reply.error
        parts: list[Part] = [ReasoningPart(reply.reasoning)] if reply.reasoning else []
        parts += [TextPart(reply.text)] if reply.text else []
        for index, (name, arguments) in enumerate(reply.calls):
            call = ToolCallPart(f"call_{request.turn}_{index}", name, arguments)
            yield ToolCallChunk(index, call.id, call.name, call.arguments)
            parts.append(call)
        said = reply.reasoning + reply.text + "".join(arguments for _, arguments in reply.calls)
        usage = {"input_tokens": _tokens(prompt), "output_tokens": _tokens(said)}
        finish = "tool_calls" if reply.calls and reply.finish == "stop" else reply.finish
        yield Finished(finish, request.model or DEFAULT_MODEL, usage, tuple(parts), usage)

    def _reply(self, request: ModelRequest, prompt: str) -> _Reply:
        script = self._script
        if not script.responses:
            return _Reply(self._made_up(request, prompt))
        for index, pattern in script.patterns.items():
            if pattern.search(prompt):
                return _read(script.responses[index])
        in_turn = [entry for index, entry in enumerate(script.responses) if index not in script.patterns]
        if not in_turn:
            raise ModelRequestRefused(
                "no scripted response fits this prompt: add one without `when`, which is used where no other fits"
            )
        if any(isinstance(entry, list) for entry in in_turn):
            turns = _in_turn(in_turn, request.occurrence, request.attempt)
            if not isinstance(turns, list):
                return _read(turns)
            return _read(_in_turn(cast("list[Any]", turns), request.turn, request.attempt))
        return _read(_in_turn(in_turn, request.occurrence + request.turn, request.attempt))

    def _made_up(self, request: ModelRequest, prompt: str) -> str:
        if request.output_schema is None:
            return f"This is a scripted answer of {len(prompt)} characters of prompt; no model was asked."
        seed = f"{self._script.seed}/{request.model}/{request.occurrence}/{request.turn}/{prompt}"
        try:
            value = sample(request.output_schema, seed)
        except NoSample as error:
            raise ModelRequestRefused(
                f"the scripted provider cannot make up an answer that fits the output_schema ({error}):"
                " give it responses"
            ) from None
        return _json(value)


def _in_turn(entries: Sequence[Any], number: int, attempt: int) -> Any:
    """The entry for the `attempt`th try at answer `number` (from 0): its failures come first, then the answer."""
    begin = 0
    for at, entry in enumerate(entries):
        if _fails(entry) and at < len(entries) - 1:
            continue
        if number == 0:
            return entries[min(begin + attempt - 1, at)]
        number -= 1
        begin = at + 1
    return entries[-1]


def _fails(entry: Any) -> bool:
    return _is_special(entry) and "error" in entry


def _pattern(entry: Any, index: int) -> re.Pattern[str] | None:
    """The pattern of an entry with `when`: `/.../` is a regular expression, other text stands for itself."""
    if not _is_special(entry) or "when" not in entry:
        return None
    when = entry["when"]
    if not isinstance(when, str):
        raise ProviderMisconfigured(f"`when` of response {index + 1} of a scripted provider must be text")
    if len(when) > 2 and when.startswith("/") and when.endswith("/"):
        try:
            return re.compile(when[1:-1], re.DOTALL)
        except re.error as error:
            raise ProviderMisconfigured(
                f"`when` of response {index + 1} of a scripted provider is not a regular expression: {error}"
            ) from None
    return re.compile(re.escape(when))


def _is_special(entry: Any) -> bool:
    """Whether `entry` is an instruction and not an answer: an answer may well have a key `error` or `when`."""
    if not isinstance(entry, Mapping):
        return False
    keys = set(cast("Mapping[str, Any]", entry))
    if "response" in keys or "tool_calls" in keys:
        return keys <= _SPECIAL[0]
    return "error" in keys and keys <= _SPECIAL[1] and cast("Mapping[str, Any]", entry)["error"] in _ERRORS


def _read(entry: Any) -> _Reply:
    if isinstance(entry, str):
        return _Reply(entry)
    if not _is_special(entry):
        return _Reply(_json(entry))
    if _fails(entry):
        code = entry["error"]
        message = entry.get("message") or f"the script says that the provider fails with {code}"
        return _Reply(str(entry.get("text", "")), error=_ERRORS[code](message, retry_after=entry.get("retry_after")))
    inner = _read(entry.get("response", ""))
    return _Reply(
        inner.text,
        str(entry.get("reasoning", inner.reasoning)),
        str(entry.get("finish", inner.finish)),
        inner.error,
        tuple(_call(call) for call in entry.get("tool_calls", ())),
    )


def _call(call: Any) -> tuple[str, str]:
    """The name and the arguments of a scripted call; arguments that are text are sent as they are, JSON or not."""
    if not isinstance(call, Mapping) or not isinstance(cast("Mapping[str, Any]", call).get("name"), str):
        raise ProviderMisconfigured("each of the tool_calls of a scripted provider must be an object with a name")
    arguments: Any = call.get("arguments", {})
    return call["name"], arguments if isinstance(arguments, str) else _json(arguments)


def _prompt(request: ModelRequest) -> str:
    """All that was said before, results of tools included."""
    said: list[str] = []
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, TextPart):
                said.append(part.text)
            elif isinstance(part, ToolResultPart):
                said.append(part.content)
    return "\n".join(said)


def _tokens(text: str) -> int:
    """A rough count, as if four characters were a token."""
    return -(-len(text) // 4)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()

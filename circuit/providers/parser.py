"""What the parsers of all providers have in common: bytes, cut anywhere, become chunks, and every stream has an end.

A parser is sans-IO. Its provider's own part is two methods: `event` (one event of the stream) and `whole` (the JSON of
a server that does not stream). Both yield chunks; `done` and `reason` say that the terminal marker came.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, cast

import orjson

from circuit.errors import BadResponse, CircuitError, StreamCut
from circuit.providers.assembly import Assembly
from circuit.providers.messages import calls_of
from circuit.providers.provider import Finished, ModelChunk, ModelRequest
from circuit.providers.sse import LINE_LIMIT, EventOversize, EventSplitter, ServerEvent

_HEAD = 6
_PINGS = ("ping", "keepalive", "keep-alive", "heartbeat")

InBand = Callable[[Any], CircuitError]
"""Makes an error of what the server reports inside an answer."""


class Splitter(Protocol):
    """Cuts bytes into events."""

    def feed(self, piece: bytes) -> list[ServerEvent]: ...

    def flush(self) -> ServerEvent | None: ...


class Parser(ABC):
    """Parses the body of one answer. `answer` says what the protocol calls one, for messages."""

    protocol: ClassVar[str]
    answer: ClassVar[str]
    splitter: ClassVar[type[Splitter]] = EventSplitter
    streams: ClassVar[tuple[bytes, ...]] = (b"data:", b"event:", b"id:", b"retry:", b":")
    """How a stream may begin. What begins as JSON and not as one of these is a whole answer."""

    def __init__(self, request: ModelRequest, place: str, in_band: InBand) -> None:
        self.model = request.model
        self.place = place
        self.in_band = in_band
        self.assembly = Assembly(self.protocol, _fresh(request))
        self.usage: dict[str, Any] = {}
        self.raw_usage: dict[str, Any] = {}
        self.reason: str | None = None
        self.detail = ""
        self.done = False
        """Whether the terminal marker was seen: nothing that matters can follow."""
        self.moved = False
        """Whether the server went on with its answer, also where that says nothing: it is set here, and taken back by
        who heard of it."""
        self._splitter: Splitter = self.splitter()
        self._whole: bytearray | None = None
        self._head = b""
        self._events = 0

    @property
    def answered(self) -> bool:
        """Whether the answer itself is whole, though its terminal marker may lack."""
        return self.done or self.reason is not None

    @abstractmethod
    def event(self, event: ServerEvent) -> Iterator[ModelChunk]:
        """What one event of the stream says."""

    @abstractmethod
    def whole(self, value: Any) -> Iterator[ModelChunk]:
        """What a whole answer says, as JSON, from a server that does not stream."""

    def feed(self, piece: bytes) -> list[ModelChunk]:
        """The chunks that `piece` completes, without the terminal one. Raises `BadResponse` and in-band errors."""
        if len(self._head) < _HEAD:
            undecided = not self._head
            self._head = (self._head + piece[: 2 * _HEAD]).lstrip()[:_HEAD]
            if undecided and self._head[:1] in (b"{", b"[") and self._head[:1] not in self.streams:
                self._whole = bytearray()
        if self._whole is not None:
            self._whole += piece
            if len(self._whole) > LINE_LIMIT:
                raise BadResponse(f"{self.place} sent an answer of more than {LINE_LIMIT} bytes")
            return []
        try:
            events = self._splitter.feed(piece)
        except EventOversize as oversize:
            raise BadResponse(f"{self.place} sent {oversize}") from None
        chunks: list[ModelChunk] = []
        for event in events:
            if self.done:
                break
            chunks += self._counted(event)
        return chunks

    def finish(self) -> list[ModelChunk]:
        """The last chunks, ending with `Finished`, when the body has ended.

        Raises `StreamCut` where the stream has no end of its own, `BadResponse` where it never was one.
        """
        chunks: list[ModelChunk] = []
        if self._whole is not None:
            value = parsed(bytes(self._whole).strip())
            if not isinstance(value, dict | list):
                raise BadResponse(f"{self.place} answered with something that is neither a stream nor a JSON object")
            chunks += self.whole(value)
        elif not self.done:
            event = self._splitter.flush()
            # What the end of the body cut off counts only if it is whole.
            if event is not None and (event.data.strip() == b"[DONE]" or isinstance(parsed(event.data.strip()), dict)):
                chunks += self._counted(event)
        if not self.answered:
            if not self._events and not self._resembles_stream():
                raise BadResponse(f"{self.place} answered with something that is not {self.answer}")
            raise StreamCut(f"{self.place} ended its stream before the answer was whole")
        chunks += self.assembly.rest()
        return [*chunks, self._finished()]

    def object_of(self, event: ServerEvent) -> dict[str, Any]:
        """The JSON object that `event` carries. Raises `BadResponse`, or the in-band error of an event `error`."""
        value = parsed(event.data.strip())
        if not isinstance(value, dict):
            if event.name == "error":
                raise self.in_band(event.data.strip().decode("utf-8", "replace"))
            raise BadResponse(f"{self.place} sent an event that is not a JSON object")
        return cast("dict[str, Any]", value)

    def _counted(self, event: ServerEvent) -> Iterator[ModelChunk]:
        if not _says_nothing(event):
            yield from self.event(event)
        self._events += 1

    def _finished(self) -> Finished:
        reason = self.reason or "stop"
        if reason == "stop" and self.assembly.calls:
            reason = "tool_calls"
        return Finished(reason, self.model, self.usage, self.assembly.parts(), self.raw_usage, self.detail)

    def _resembles_stream(self) -> bool:
        """Whether the body began as an event stream does, as far as it came."""
        return any(self._head.startswith(field) or field.startswith(self._head) for field in self.streams)


def _fresh(request: ModelRequest) -> str:
    """How the ids of calls begin that the provider gives none: as none does that was made before in this conversation,
    in this run or an earlier one."""
    calls = [call.id for message in request.messages for call in calls_of(message.parts)]
    taken = {known.rpartition("_")[0] for known in calls}
    number = request.turn
    while f"call_{number}" in taken:
        number += 1
    return f"call_{number}"


def _says_nothing(event: ServerEvent) -> bool:
    """Whether an event only keeps the connection open, whatever stands in it."""
    return event.name in _PINGS or event.data.strip() == b"null"


def parsed(data: bytes) -> Any:
    """The value of `data`, or None where it is no JSON. Not orjson's parser: that one takes no lone surrogates, and
    a pair of them may be cut in two by the server."""
    try:
        return json.loads(data.decode("utf-8"), strict=False)
    except (ValueError, RecursionError):
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is an object, else an empty one: what comes from outside may be anything."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def sequence(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def text(value: Any) -> str:
    """`value` if it is text, else none."""
    return value if isinstance(value, str) else ""


def position(value: Any) -> int | str:
    """Where in an answer something belongs: what the server says, if that can be a place, else the first one."""
    return value if isinstance(value, int | str) else 0


def written(value: Any) -> str:
    """`value` as JSON text, also where it holds integers of more than 64 bits or halves of surrogate pairs."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value)


def counts(**given: Any) -> dict[str, int]:
    """The counts that were given; input and output also where they are 0, the rest only where they say something."""
    return {
        name: count
        for name, given_count in given.items()
        if (count := count_of(given_count)) is not None and (count or name in ("input_tokens", "output_tokens"))
    }


def count_of(value: Any) -> int | None:
    """A count, also where it is written as a number that is whole by chance; None where it is none."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53 and value % 1 == 0
    return int(value) if whole else None

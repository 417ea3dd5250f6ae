"""What happens, in two closed unions: the events of a case and the events of an execution's stream.

Case events are the rows of `history`: gapless per case, and enough to rebuild every marking that a case ever had
(`TransitionFired` and `FiringFailed` carry what they consumed and produced). Stream events are the frames that
readers of an execution get; `encode_frame` makes their bytes once, for every protocol and for the log.
Both carry a version in their JSON, so that a later release reads what an earlier one wrote. To an earlier release, an
event of a kind that a later one added is a `LaterEvent`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

import orjson

from circuit.value import dataclass

EVENT_VERSION = 1
_VERSION = b',"v":%d}' % EVENT_VERSION

Wire = TypeVar("Wire")

MOST_WIRES = 16
"""How many readings of a frame are kept: readers choose what they make of it, and there may be many of them."""


@dataclass(frozen=True, slots=True)
class TokenRef:
    """One version of one token, and where it lay."""

    number: int
    version: int
    place: str


@dataclass(frozen=True, slots=True)
class TokenImage:
    """A token as it was produced. `parents` are the numbers of the tokens that it was made from, if its own is new."""

    number: int
    version: int
    place: str
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    parents: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a fork comes from: it begins with the marking that case `case_id` had after its event `seq`.

    `entered` is since when each of its tokens counts as lying in its place, in their order; `fired` is how often each
    transition had fired by then, and `runs` what the agents of places had done to tokens, by their numbers.
    """

    case_id: str
    seq: int
    entered: tuple[datetime, ...]
    fired: Mapping[str, int]
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


@dataclass(frozen=True, slots=True)
class CaseStarted:
    """The first event of a case. With an `origin` the case is a fork, and its tokens keep the numbers that they had
    there."""

    kind: ClassVar[str] = "case_started"
    workflow: str
    workflow_hash: str
    produced: tuple[TokenImage, ...]
    principal: str
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class TransitionFired:
    """A transition consumed and produced: an immediate one at once, an acting one when its action was done.

    `skipped` holds the error of an agent that was not `required` and failed for good; `superseded` says that the token
    which an agent ran on had moved on, so that nothing came of it. `removed` are the tokens that it took without having
    bound them: by its reset arcs, and of the firings that it cancelled.
    """

    kind: ClassVar[str] = "transition_fired"
    transition: str
    consumed: tuple[TokenRef, ...]
    produced: tuple[TokenImage, ...]
    read: tuple[TokenRef, ...] = ()
    firing: int | None = None
    execution_id: str | None = None
    principal: str | None = None
    skipped: Mapping[str, Any] | None = None
    superseded: bool | None = None
    removed: tuple[TokenRef, ...] = ()


@dataclass(frozen=True, slots=True)
class FiringBegun:
    """An acting transition reserved its tokens; its action starts when this is committed."""

    kind: ClassVar[str] = "firing_begun"
    transition: str
    firing: int
    execution_id: str
    reserved: tuple[TokenRef, ...]
    read: tuple[TokenRef, ...] = ()
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class FiringSuspended:
    """The action waits without a worker for what `awaits` and `key` name, until `wake_at` if that is set."""

    kind: ClassVar[str] = "firing_suspended"
    transition: str
    firing: int
    execution_id: str
    awaits: str
    key: str = ""
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FiringGranted:
    """A firing that waited for shared places holds them now: its action starts when this is committed."""

    kind: ClassVar[str] = "firing_granted"
    transition: str
    firing: int
    execution_id: str
    holds: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FiringResumed:
    """A new start of the same attempt, after the process that ran it was lost or what it waited for came. The journal
    is kept. `principal` is who sent what it waited for."""

    kind: ClassVar[str] = "firing_resumed"
    transition: str
    firing: int
    execution_id: str
    start: int
    reason: str
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class FiringRetried:
    """An attempt failed and another will follow at `retry_at`."""

    kind: ClassVar[str] = "firing_retried"
    transition: str
    firing: int
    execution_id: str
    attempt: int
    error: Mapping[str, Any]
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class BudgetUsedUp:
    """A call of a model was not made, for it could cost more than is left of a budget: so its firing fails, as the
    event after this one says. `scope` and `subject` say whose budget it is; `limit`, `spent` and what the call `needed`
    at most count in `unit`, which is `calls`, `tokens` or `usd`."""

    kind: ClassVar[str] = "budget_used_up"
    transition: str
    firing: int
    execution_id: str
    scope: str
    subject: str
    unit: str
    limit: int | float
    spent: int | float
    needed: int | float
    period: str | None = None


@dataclass(frozen=True, slots=True)
class InputScreened:
    """Screening found something in what an agent is told. `action` is what was done: `warn`, where it was made harmless
    and the agent goes on, or `refuse`, and then the firing fails. Each that was `found` has its `kind`, its `source`
    (`input`, `metadata`, `message`, `result` of a tool, `description` of one) with its `name` and the `path` in it, its
    `offset` in characters, how many there are (`count`) and its `words`, short and redacted; `more` are not listed."""

    kind: ClassVar[str] = "input_screened"
    transition: str
    firing: int
    execution_id: str
    agent_id: str
    action: str
    found: Sequence[Mapping[str, Any]]
    more: int = 0


@dataclass(frozen=True, slots=True)
class FiringFailed:
    """A firing failed for good: its tokens went to `on_failure` (then consumed and produced are set), or they stay
    and an incident is open. `firing` is None where it failed at its begin."""

    kind: ClassVar[str] = "firing_failed"
    transition: str
    error: Mapping[str, Any]
    firing: int | None = None
    execution_id: str | None = None
    consumed: tuple[TokenRef, ...] = ()
    produced: tuple[TokenImage, ...] = ()
    incident: int | None = None


@dataclass(frozen=True, slots=True)
class FiringCancelled:
    kind: ClassVar[str] = "firing_cancelled"
    transition: str
    firing: int
    execution_id: str


@dataclass(frozen=True, slots=True)
class IncidentResolved:
    """Somebody said that the transition may be tried again, or the tokens it was about have moved on."""

    kind: ClassVar[str] = "incident_resolved"
    incident: int
    transition: str
    reason: str
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class TokensChanged:
    """Somebody changed tokens by hand: `patched` data for an incident, `put_back` from a dead-letter place, or
    `modified` the case, for the reason that `note` gives. What is consumed and not produced was taken out, and what is
    produced and not consumed is new."""

    kind: ClassVar[str] = "tokens_changed"
    consumed: tuple[TokenRef, ...]
    produced: tuple[TokenImage, ...]
    reason: str
    principal: str
    incident: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class MessageTaken:
    """A message fired the transition of the event before this one. `message` is its id, `principal` who sent it."""

    kind: ClassVar[str] = "message_taken"
    transition: str
    message: str
    name: str
    key: str
    principal: str


@dataclass(frozen=True, slots=True)
class CaseMigrated:
    """The case goes on in another version of its workflow. Tokens whose place has another name there are consumed and
    produced anew; for none of them that is an arrival."""

    kind: ClassVar[str] = "case_migrated"
    workflow: str
    from_hash: str
    workflow_hash: str
    consumed: tuple[TokenRef, ...]
    produced: tuple[TokenImage, ...]
    principal: str


@dataclass(frozen=True, slots=True)
class CaseEnded:
    """The case is `completed`, `failed` or `cancelled`; nothing follows."""

    kind: ClassVar[str] = "case_ended"
    status: str
    reason: str = ""
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class LaterEvent:
    """An event of a kind that this release does not know: a later one wrote it, before or beside this one. Who shows a
    history passes over it; who works out what a case held cannot."""

    kind: str


CaseEvent = (
    CaseStarted
    | TransitionFired
    | FiringBegun
    | FiringSuspended
    | FiringGranted
    | FiringResumed
    | FiringRetried
    | BudgetUsedUp
    | InputScreened
    | FiringFailed
    | FiringCancelled
    | IncidentResolved
    | TokensChanged
    | MessageTaken
    | CaseMigrated
    | CaseEnded
    | LaterEvent
)

_CASE_EVENTS: dict[str, type[CaseEvent]] = {
    event.kind: event
    for event in (
        CaseStarted,
        TransitionFired,
        FiringBegun,
        FiringSuspended,
        FiringGranted,
        FiringResumed,
        FiringRetried,
        BudgetUsedUp,
        InputScreened,
        FiringFailed,
        FiringCancelled,
        IncidentResolved,
        TokensChanged,
        MessageTaken,
        CaseMigrated,
        CaseEnded,
    )
}


CASE_EVENTS = tuple(_CASE_EVENTS)
"""The kinds of case events that this release knows."""


def encode_event(event: CaseEvent) -> bytes:
    """The body of a history row: the event's fields as JSON, and the version."""
    return orjson.dumps(event)[:-1] + _VERSION


def decode_event(kind: str, body: Mapping[str, Any]) -> CaseEvent:
    """The event that a history row holds."""
    cls = _CASE_EVENTS.get(kind)
    if cls is None:
        return LaterEvent(kind)
    values: dict[str, Any] = {one.name: body[one.name] for one in fields(cls) if one.name in body}
    for name in ("consumed", "read", "reserved", "removed"):
        if name in values:
            values[name] = tuple(TokenRef(ref["number"], ref["version"], ref["place"]) for ref in values[name])
    if "produced" in values:
        values["produced"] = tuple(_image(image) for image in values["produced"])
    for name in ("retry_at", "wake_at"):
        if values.get(name) is not None:
            values[name] = datetime.fromisoformat(values[name])
    if values.get("origin") is not None:
        values["origin"] = _origin(values["origin"])
    return cls(**values)


def _origin(origin: Mapping[str, Any]) -> Origin:
    entered = tuple(datetime.fromisoformat(at) for at in origin["entered"])
    return Origin(origin["case_id"], origin["seq"], entered, origin["fired"], origin.get("runs") or {})


def _image(image: Mapping[str, Any]) -> TokenImage:
    return TokenImage(
        image["number"],
        image["version"],
        image["place"],
        image["data"],
        image["metadata"],
        tuple(image["parents"]),
    )


class StreamType(StrEnum):
    """The types of stream events. `COMPLETED` and `FAILED` are terminal and come once."""

    RESTARTED = "restarted"
    CONTENT_CHUNK = "content_chunk"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = (StreamType.COMPLETED, StreamType.FAILED)

ENVELOPE = ("executionId", "eventType", "attempt", "sequence", "timestamp", "cursor")
"""The keys of every frame, whatever it says."""


@dataclass(frozen=True, slots=True)
class StreamDelta:
    """What an action says while it runs: a stream event without its place in the stream.

    `fields` are the keys that `docs/reference/events.md` lists for the type (`content`, `status`, `toolName`, ...).
    """

    type: StreamType
    fields: Mapping[str, Any]

    @classmethod
    def content(cls, text: str) -> StreamDelta:
        return cls(StreamType.CONTENT_CHUNK, {"content": text})

    @classmethod
    def restarted(cls, reason: str) -> StreamDelta:
        return cls(StreamType.RESTARTED, {"reason": reason})

    @classmethod
    def thinking(
        cls, status: str, content: str | None = None, found: Sequence[Mapping[str, Any]] | None = None
    ) -> StreamDelta:
        said = {"status": status, "content": content, "found": found}
        return cls(StreamType.THINKING, {name: value for name, value in said.items() if value or name == "status"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One stream event as it is sent and stored. `start` is the frame's `attempt`; `body` its JSON bytes.

    A frame of a compacted stream may hold the text of several: of the `merged` that end with its own number.
    `wires` keeps what its readers made of it, so that it is made once for all of them.
    """

    start: int
    sequence: int
    type: StreamType
    at: datetime
    body: bytes
    merged: int = 1
    wires: dict[object, Any] = field(default_factory=dict[object, Any], compare=False, repr=False)

    def wire(self, encode: Callable[[Frame], Wire]) -> Wire:
        """`encode` of this frame."""
        found = self.wires.get(encode)
        if found is None:
            found = encode(self)
            if len(self.wires) < MOST_WIRES:
                self.wires[encode] = found
        return found

    @property
    def terminal(self) -> bool:
        return self.type.terminal


def encode_frame(execution_id: str, start: int, sequence: int, delta: StreamDelta, at: datetime) -> Frame:
    """The frame of `delta` at this place of the stream of `execution_id`."""
    instant = at if at.tzinfo is UTC else at.astimezone(UTC)
    body = {
        "executionId": execution_id,
        "eventType": delta.type.value,
        "attempt": start,
        "sequence": sequence,
        "timestamp": instant.isoformat(timespec="milliseconds")[:-6] + "Z",
        "cursor": f"{start}-{sequence}",
        **delta.fields,
    }
    return Frame(start, sequence, delta.type, instant, lasting(body))


def lasting(value: Any) -> bytes:
    """JSON of `value` that is kept: bytes that take no more memory than they are long. What the encoder hands out holds
    what it reserved for the longest escapes of every text, 16 times as much."""
    return bytes(memoryview(orjson.dumps(value)))

"""What happens in a case, in words: one or a few lines for each event, and the marking that results.

Pure: events and frames in, lines out. Everything that users or models wrote is cleaned here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import orjson

from circuit.cli.terminal import clean, compact, one_line
from circuit.events import (
    BudgetUsedUp,
    CaseEnded,
    CaseEvent,
    CaseMigrated,
    CaseStarted,
    FiringBegun,
    FiringCancelled,
    FiringFailed,
    FiringGranted,
    FiringResumed,
    FiringRetried,
    FiringSuspended,
    Frame,
    IncidentResolved,
    InputScreened,
    LaterEvent,
    MessageTaken,
    StreamType,
    TokenImage,
    TokenRef,
    TokensChanged,
    TransitionFired,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line for people. `style` is a Rich style, for terminals."""

    text: str
    style: str = ""


@dataclass(slots=True)
class Saying:
    """What an execution says in one go: its answer, or what it thinks, with the name of that (`thought`, `draft`)."""

    status: str
    text: str = ""


@dataclass(slots=True)
class Speech:
    """What one execution has said in its present start, `fresh` what of that nobody has shown yet."""

    label: str
    said: list[Saying] = field(default_factory=list[Saying])
    done: bool = False
    fresh: list[Saying] = field(default_factory=list[Saying])

    @property
    def status(self) -> str:
        """What it is doing, in words; nothing while it answers."""
        return self.said[-1].status if self.said else ""

    @property
    def text(self) -> str:
        """Its answer so far."""
        return "".join(saying.text for saying in self.said if not saying.status)

    def say(self, text: str, status: str = "") -> None:
        """It goes on saying `text`."""
        for sayings in (self.said, self.fresh):
            if not sayings or sayings[-1].status != status:
                sayings.append(Saying(status))
            sayings[-1].text += text

    def named(self, status: str) -> str:
        """By what its lines begin."""
        return f"{self.label} ({status})" if status else self.label

    def clear(self) -> None:
        """What it has said counts no more."""
        self.said.clear()
        self.fresh.clear()


class Narrator:
    """Follows one case: keeps its marking and what its executions say."""

    def __init__(self, places: Sequence[str] = ()) -> None:
        self._places = list(places)
        self._lying: dict[int, str] = {}
        self._transitions: dict[str, str] = {}
        self.speeches: dict[str, Speech] = {}

    def marking(self) -> dict[str, int]:
        """How many tokens lie in each place that holds any, in the order of the workflow file."""
        counts = Counter(self._lying.values())
        order = [place for place in self._places if place in counts]
        return {place: counts[place] for place in [*order, *(place for place in counts if place not in order)]}

    def marking_text(self) -> str:
        """The marking on one line."""
        return one_line("  ".join(f"{place}: {count}" for place, count in self.marking().items()) or "no tokens")

    def event(self, at: datetime, event: CaseEvent) -> list[Line]:
        """What `event` says, in lines; the marking moves with it."""
        match event:
            case CaseStarted():
                self._put(event.produced)
                origin = event.origin
                fork = f" as a fork of case {origin.case_id} after its event {origin.seq}" if origin else ""
                return [Line(f"case started{fork}: {self.marking_text()}", "bold")]
            case TransitionFired():
                self._take((*event.consumed, *event.removed))
                self._put(event.produced)
                self._finish(event.execution_id)
                path = self._path(event.consumed, event.produced)
                by = f" by {one_line(event.principal, 60)}" if event.principal else ""
                if event.superseded:
                    return [Line(f"{one_line(event.transition)} is done too late: its token has moved on", "yellow")]
                lines = [Line(f"{one_line(event.transition)} fired{by}: {path}", "green")]
                if event.removed:
                    lines.append(Line(f"  it took away {one_line(_places(event.removed))}", "yellow"))
                if event.skipped:
                    lines.append(Line(f"  without its output: {_error(event.skipped)}", "yellow"))
                return lines
            case FiringBegun():
                label = self._label(event.transition, event.firing)
                self._transitions[event.execution_id] = label
                self.speeches[event.execution_id] = Speech(label)
                return [Line(f"{label} begins (execution {event.execution_id})", "cyan")]
            case FiringSuspended():
                until = f" for at most {_duration((event.wake_at - at).total_seconds())}" if event.wake_at else ""
                if event.awaits == "tool_approval":
                    what = "somebody to allow the call of a tool (circuit approvals)"
                else:
                    what = one_line(f"{event.awaits} {event.key}".rstrip())
                return [Line(f"{one_line(event.transition)} waits for {what}{until}", "yellow")]
            case FiringGranted():
                held = ", ".join(f"{amount} x {one_line(place, 60)}" for place, amount in event.holds.items())
                return [Line(f"{one_line(event.transition)} has what it waited for: {held}", "cyan")]
            case FiringResumed():
                by = f" by {one_line(event.principal)}" if event.principal else ""
                whats = {"retry": "is tried again", "woken": f"is woken{by}"}
                what = whats.get(event.reason, "goes on after its process was lost")
                return [Line(f"{one_line(event.transition)} {what} (start {event.start})", "yellow")]
            case FiringRetried():
                wait = max(0.0, (event.retry_at - at).total_seconds())
                return [
                    Line(
                        f"{one_line(event.transition)} failed at try {event.attempt}: {_error(event.error)};"
                        f" try {event.attempt + 1} follows in {wait:.1f} s",
                        "yellow",
                    )
                ]
            case BudgetUsedUp():
                whose = f"{event.scope} {event.subject}".strip()
                left = f"{event.spent:g} of {event.limit:g} {event.unit} are spent"
                return [Line(f"the budget of {one_line(whose)} is used up: {left}, {event.needed:g} more asked", "red")]
            case InputScreened():
                what = "refused" if event.action == "refuse" else "made harmless"
                places = dict.fromkeys(
                    f"{str(one['kind']).replace('_', ' ')} in {one['source']} {one['name']}" for one in event.found
                )
                return [Line(f"screening {what}: {one_line(', '.join(places), 160)}", "yellow")]
            case FiringFailed():
                return self._failed(event)
            case FiringCancelled():
                self._finish(event.execution_id)
                return [Line(f"{one_line(event.transition)} was cancelled", "yellow")]
            case IncidentResolved():
                return [Line(f"incident {event.incident} is resolved: {one_line(event.reason)}", "green")]
            case TokensChanged():
                self._take(event.consumed)
                self._put(event.produced)
                by = one_line(event.principal, 60)
                if event.reason == "put_back":
                    return [Line(f"put back by {by}: {self._path(event.consumed, event.produced)}", "green")]
                if event.reason == "modified":
                    path = self._path(event.consumed, event.produced)
                    return [Line(f"tokens changed by {by}: {path} ({one_line(event.note or '')})", "green")]
                return [Line(f"data changed by {by} for incident {event.incident}: {_places(event.produced)}", "green")]
            case MessageTaken():
                return [Line(f"  by the message {one_line(event.name)} of {one_line(event.principal, 60)}")]
            case CaseMigrated():
                self._take(event.consumed)
                self._put(event.produced)
                by = one_line(event.principal, 60)
                return [Line(f"moved by {by} to the version {event.workflow_hash[:12]}: {self.marking_text()}", "bold")]
            case CaseEnded():
                reason = f": {one_line(event.reason)}" if event.reason else ""
                return [
                    Line(f"case {event.status}{reason}", "bold green" if event.status == "completed" else "bold red")
                ]
            case LaterEvent():
                return [Line(f"{one_line(event.kind)}: a later release wrote this, and can say what it is", "yellow")]

    def frame(self, execution_id: str, frame: Frame) -> Line | None:
        """Take in what an execution says; a line where it is more than text, and the case's events do not say it."""
        body: dict[str, Any] = orjson.loads(frame.body)
        told = execution_id in self._transitions
        speech = self.speeches.setdefault(execution_id, Speech(self._transitions.get(execution_id, execution_id)))
        match frame.type:
            case StreamType.CONTENT_CHUNK:
                speech.say(str(body.get("content", "")))
                return None
            case StreamType.THINKING:
                speech.say(str(body.get("content", "")), one_line(str(body.get("status", "")), 80) or "thinking")
                return None
            case StreamType.RESTARTED:
                speech.clear()
                if frame.sequence == 1 and told:
                    return None
                return Line(f"{speech.label} begins its answer anew: {one_line(str(body.get('reason')))}", "yellow")
            case StreamType.TOOL_CALL:
                call = f"{one_line(str(body.get('toolName')))} {compact(body.get('arguments'), 120)}"
                return Line(f"{speech.label} calls the tool {call}", "cyan")
            case StreamType.TOOL_RESULT:
                tool, result = one_line(str(body.get("toolName"))), body.get("result")
                if (error := _failure(result)) is not None:
                    return Line(f"{speech.label} has no result of {tool}: {error}", "yellow")
                return Line(f"{speech.label} has a result of {tool} {compact(result, 120)}", "cyan")
            case StreamType.COMPLETED:
                speech.done = True
                return None if told else Line(f"{speech.label} completed", "green")
            case StreamType.FAILED:
                speech.done = True
                return (
                    None if told else Line(f"{speech.label} failed for good: {_error(body.get('error') or {})}", "red")
                )

    def _failed(self, event: FiringFailed) -> list[Line]:
        self._take(event.consumed)
        self._put(event.produced)
        self._finish(event.execution_id)
        if event.produced:
            after = self._path(event.consumed, event.produced)
        elif event.incident is not None:
            after = f"its tokens stay where they are, and incident {event.incident} is open"
        else:
            after = "its tokens stay where they are"
        return [Line(f"{one_line(event.transition)} failed for good: {_error(event.error)}; {after}", "red")]

    def _label(self, transition: str, firing: int) -> str:
        name = one_line(transition, 60)
        live = {speech.label for speech in self.speeches.values() if not speech.done}
        return f"{name}#{firing}" if name in live else name

    def _finish(self, execution_id: str | None) -> None:
        speech = self.speeches.get(execution_id or "")
        if speech is not None:
            speech.done = True

    def _put(self, images: Sequence[TokenImage]) -> None:
        for image in images:
            self._lying[image.number] = image.place

    def _take(self, references: Sequence[TokenRef]) -> None:
        for reference in references:
            self._lying.pop(reference.number, None)

    @staticmethod
    def _path(consumed: Sequence[TokenRef], produced: Sequence[TokenImage]) -> str:
        return one_line(f"{_places(consumed)} -> {_places(produced)}")


def _duration(seconds: float) -> str:
    """A time in the largest unit that has a whole number of it."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{max(0.0, seconds):g} s"


def _places(tokens: Sequence[TokenRef] | Sequence[TokenImage]) -> str:
    counts = Counter(token.place for token in tokens)
    return ", ".join(f"{count} x {place}" if count > 1 else place for place, count in counts.items()) or "nothing"


def _failure(result: Any) -> str | None:
    """Why a call of a tool has no result, where that is what the result says."""
    error: Any = cast("Mapping[str, Any]", result).get("error") if isinstance(result, Mapping) else None
    if not isinstance(error, Mapping) or not {"code", "message"} <= cast("Mapping[str, Any]", error).keys():
        return None
    return one_line(_error(cast("Mapping[str, Any]", error)), 300)


def _error(error: Mapping[str, Any]) -> str:
    return clean(one_line(f"{error.get('code', 'error')}: {error.get('message', '')}"), keep="")

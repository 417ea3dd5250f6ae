"""Replays the history of one case through the net: what its rows must be, and where the history breaks the rules.

Each event is applied to a marking as the owner applied it; what it consumes must lie there, free or held by the firing
that ends, as often as the arcs of its transition say. So the state equation of the net holds for every event, and with
it every P-invariant for every marking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from circuit.engine.audit.fault import LOST, MEND, Fault, of_case
from circuit.errors import Crashed, SchemaMismatch
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
    IncidentResolved,
    InputScreened,
    LaterEvent,
    MessageTaken,
    TokenImage,
    TokenRef,
    TokensChanged,
    TransitionFired,
)
from circuit.ids import CaseKey
from circuit.net.marking import Marking, Token
from circuit.net.selection import FAN_OUT
from circuit.net.structure import InputArc, Net, OutputArc, Transition
from circuit.storage.records import ExecutionStatus, FiringState


@dataclass(slots=True)
class Replayed:
    """A firing as its events tell it. `execution` is the status that its execution must have; `stands` is how a
    live one stands, and `incident` says that its end raised one."""

    number: int
    transition: str
    reserved: tuple[TokenRef, ...]
    begun_at: datetime
    state: FiringState | None = None
    attempt: int = 1
    start: int = 1
    execution: ExecutionStatus = ExecutionStatus.RUNNING
    crashed: bool = False
    incident: bool = False
    stands: FiringState = FiringState.RUNNING

    @property
    def live(self) -> bool:
        return self.state is None


@dataclass(slots=True)
class Replay:
    """A case as far as its events were applied. `version` is the one of its workflow that it is on; who applies events
    sets `net` before each that changes it. `arrivals` are the versions with which the tokens came to where they lie,
    `counted` is what of `fired` came up to the event `counted_upto`."""

    key: CaseKey
    net: Net | None
    marking: Marking = field(default_factory=Marking)
    seq: int = 0
    last_token: int = 0
    version: str = ""
    started: CaseStarted | None = None
    started_at: datetime | None = None
    ended: CaseEnded | None = None
    ended_at: datetime | None = None
    firings: dict[int, Replayed] = field(default_factory=dict[int, Replayed])
    incidents: dict[int, bool] = field(default_factory=dict[int, bool])
    fired: Counter[str] = field(default_factory=Counter[str])
    arrivals: dict[int, int] = field(default_factory=dict[int, int])
    counted: Counter[str] = field(default_factory=Counter[str])
    counted_upto: int = 0

    def apply(self, seq: int, at: datetime, event: CaseEvent) -> Iterator[Fault]:
        """Take the next event of the case. Raises `SchemaMismatch` for a kind that this release does not know."""
        if isinstance(event, LaterEvent):
            raise SchemaMismatch(
                f"event {seq} of case {self.key} is of the kind {event.kind!r}, which this release does not know:"
                " a later one wrote it, and only such a one can say what the case held from then on"
            )
        if seq != self.seq + 1:
            yield self._fault("I2", seq, f"the event before it has the number {self.seq}: events are missing", LOST)
        if self.ended is not None:
            yield self._fault("I6", seq, f"{event.kind} follows on case_ended")
        if (self.started is None) != isinstance(event, CaseStarted):
            yield self._fault(
                "I2", seq, f"{event.kind} cannot stand here: a history begins with one case_started", LOST
            )
        self.seq = max(seq, self.seq)
        match event:
            case CaseStarted():
                yield from self._start(seq, at, event)
            case FiringBegun():
                yield from self._begin(seq, at, event)
            case TransitionFired():
                yield from self._fire(seq, at, event)
            case FiringFailed():
                yield from self._fail(seq, at, event)
            case FiringCancelled():
                live = self._live(event.firing)
                if live is None:
                    yield self._fault("I2", seq, f"firing {event.firing} is cancelled and does not live")
                else:
                    self._leave(live, FiringState.CANCELLED, ExecutionStatus.CANCELLED)
            case FiringSuspended():
                live = self._live(event.firing)
                if live is None:
                    yield self._fault("I2", seq, f"firing {event.firing} is suspended and does not live")
                else:
                    live.stands = FiringState.SUSPENDED
            case FiringGranted():
                if self._live(event.firing) is None:
                    yield self._fault("I2", seq, f"firing {event.firing} is granted something and does not live")
            case FiringResumed():
                live = self._live(event.firing)
                if live is None or event.start != live.start + 1:
                    yield self._fault("I2", seq, f"firing {event.firing} cannot begin its start {event.start} here")
                if live is not None:
                    live.start, live.stands = event.start, FiringState.RUNNING
            case FiringRetried():
                live = self._live(event.firing)
                if live is None or event.attempt != live.attempt:
                    yield self._fault("I2", seq, f"attempt {event.attempt} of firing {event.firing} cannot fail here")
                if live is not None:
                    live.attempt, live.stands = event.attempt + 1, FiringState.OFFERED
            case BudgetUsedUp():
                if self._live(event.firing) is None:
                    yield self._fault("I2", seq, f"firing {event.firing} asks for a budget and does not live")
            case InputScreened():
                if self._live(event.firing) is None:
                    yield self._fault("I2", seq, f"firing {event.firing} is told something and does not live")
            case IncidentResolved():
                if not self.incidents.get(event.incident, False):
                    yield self._fault("I2", seq, f"incident {event.incident} is resolved and was not open")
                self.incidents[event.incident] = False
            case TokensChanged():
                yield from self._change(seq, at, event.consumed, event.produced)
            case MessageTaken():
                if not self.fired.get(event.transition) and not any(
                    live.transition == event.transition for live in self.firings.values()
                ):
                    yield self._fault("I2", seq, f"message {event.message} fired {event.transition}, which never did")
            case CaseMigrated():
                yield from self._migrate(seq, at, event)
            case CaseEnded():
                self.ended, self.ended_at = event, at

    def _start(self, seq: int, at: datetime, event: CaseStarted) -> Iterator[Fault]:
        self.started, self.started_at, self.version = event, at, event.workflow_hash
        yield from self._produce(seq, at, event.produced, kept=())
        if event.origin is not None:
            # A fork has a past already.
            self.fired.update(event.origin.fired)
            self.counted.update(event.origin.fired)
            for image, entered in zip(event.produced, event.origin.entered, strict=True):
                self.marking.replace(_token(image, entered))

    def _migrate(self, seq: int, at: datetime, event: CaseMigrated) -> Iterator[Fault]:
        if event.from_hash != self.version:
            yield self._fault("I7", seq, f"it leaves version {event.from_hash}, and is on version {self.version}")
        self.version = event.workflow_hash
        yield from self._change(seq, at, event.consumed, event.produced, moved=True)

    def _change(
        self,
        seq: int,
        at: datetime,
        consumed: Sequence[TokenRef],
        produced: Sequence[TokenImage],
        *,
        moved: bool = False,
    ) -> Iterator[Fault]:
        """Exchange tokens where they lie. One that stays in its place, or whose place itself was `moved`, has come when
        it came."""
        before = {token.number: token for ref in consumed if (token := self.marking.get(ref.number))}
        arrivals = {number: self.arrivals[number] for number in before}
        yield from self._exchange(seq, at, consumed, produced)
        for image in produced:
            token = before.get(image.number)
            if token is not None and (moved or token.place == image.place):
                self.marking.move(_token(image, token.entered_at))
                self.arrivals[image.number] = arrivals[image.number]

    # -- firings ----------------------------------------------------------------------------------------------------

    def _begin(self, seq: int, at: datetime, event: FiringBegun) -> Iterator[Fault]:
        if event.firing in self.firings:
            yield self._fault("I2", seq, f"firing {event.firing} begins a second time")
            return
        transition = self._transition(event.transition)
        if transition is not None:
            if not transition.acting:
                yield self._fault("I1", seq, f"{event.transition} is immediate and has a firing")
            asked = () if transition.refresh else transition.consumes
            yield from self._arcs(seq, "reserves", event.transition, event.reserved, asked)
        self.firings[event.firing] = Replayed(event.firing, event.transition, event.reserved, at)
        for ref in event.reserved:
            problem = self._missing(ref)
            if problem is not None:
                yield self._fault("I1", seq, f"{event.transition} reserves {_named(ref)}, {problem}")
            else:
                self.marking.reserve(ref.number, event.firing)

    def _fire(self, seq: int, at: datetime, event: TransitionFired) -> Iterator[Fault]:
        transition = self._transition(event.transition)
        if self.net is not None and transition is None:
            yield self._fault("I1", seq, f"the workflow has no transition {event.transition}")
        if transition is not None:
            if transition.acting and event.firing is None:
                yield self._fault("I2", seq, f"{event.transition} is acting and fired without a firing")
            if not event.superseded:
                yield from self._arcs(seq, "consumes", event.transition, event.consumed, transition.consumes)
                yield from self._made(seq, transition, event)
            yield from self._emptied(seq, transition, event)
        label = transition.label if transition is not None else event.transition
        self.fired[label] += 1
        if seq <= self.counted_upto:
            self.counted[label] += 1
        if event.firing is not None:
            execution = ExecutionStatus.COMPLETED if event.skipped is None else ExecutionStatus.FAILED
            yield from self._end(seq, event.firing, event, FiringState.COMPLETED, execution)
        if transition is not None and transition.refresh:
            # An agent that runs on a place patches its token where it lies: that is no arrival.
            yield from self._change(seq, at, event.consumed, event.produced, moved=True)
        else:
            yield from self._exchange(seq, at, (*event.consumed, *event.removed), event.produced)

    def _made(self, seq: int, transition: Transition, event: TransitionFired) -> Iterator[Fault]:
        """As many tokens as the weights say, and of each element of a list one."""
        moved = Counter(token.place for token in event.produced)
        asked = Counter[str]()
        for arc in transition.outputs:
            if arc.record and event.skipped is not None:
                continue
            asked[arc.place] += arc.weight if arc.each is None else _elements(transition, arc.place, event.produced)
        if moved != +asked:
            told = f"{event.transition} produces {_counted(moved)}; its arcs say {_counted(asked)}"
            yield self._fault("I1", seq, told)

    def _emptied(self, seq: int, transition: Transition, event: TransitionFired) -> Iterator[Fault]:
        """What is taken without being bound lies where reset arcs empty a place, or was held by a cancelled firing; of
        a place that is emptied, nothing is left."""
        places = {arc.place for arc in transition.resets}
        if not transition.cancels:
            places_left = sorted({ref.place for ref in event.removed} - places)
            if places_left:
                told = f"{event.transition} takes tokens away from {', '.join(places_left)} without a reset arc"
                yield self._fault("I1", seq, told)
        gone = {ref.number for ref in (*event.consumed, *event.removed)}
        for arc in transition.resets:
            if not arc.picky and any(token.number not in gone for token in self.marking.tokens(arc.place)):
                yield self._fault("I1", seq, f"{event.transition} resets {arc.place} and leaves tokens there")

    def _fail(self, seq: int, at: datetime, event: FiringFailed) -> Iterator[Fault]:
        if event.incident is not None:
            if event.incident in self.incidents:
                yield self._fault("I2", seq, f"incident {event.incident} is raised a second time")
            self.incidents[event.incident] = True
        if event.firing is not None:
            yield from self._end(seq, event.firing, event, FiringState.FAILED, ExecutionStatus.FAILED)
        transition = self._transition(event.transition)
        if event.consumed and transition is not None:
            yield from self._arcs(seq, "consumes", event.transition, event.consumed, transition.consumes)
            where = OutputArc(transition.on_failure or "", len(event.consumed))
            yield from self._arcs(seq, "diverts", event.transition, event.produced, (where,))
        yield from self._exchange(seq, at, event.consumed, event.produced)

    def _end(
        self,
        seq: int,
        number: int,
        event: TransitionFired | FiringFailed,
        state: FiringState,
        execution: ExecutionStatus,
    ) -> Iterator[Fault]:
        found = self.firings.get(number)
        if found is None or not found.live:
            was = "never began" if found is None else f"is {found.state} already"
            yield self._fault("I2", seq, f"firing {number} ends with {event.kind} and {was}")
            return
        if found.transition != event.transition:
            yield self._fault("I2", seq, f"firing {number} is one of {found.transition}, not of {event.transition}")
        transition = self._transition(event.transition)
        refresh = transition is not None and transition.refresh
        if event.consumed and event.consumed != found.reserved and not refresh:
            yield self._fault("I1", seq, f"firing {number} consumes other tokens than it had reserved")
        error = event.error if isinstance(event, FiringFailed) else event.skipped
        found.crashed = error is not None and error.get("code") == Crashed.code
        found.incident = isinstance(event, FiringFailed) and event.incident is not None
        self._leave(found, state, execution)

    def _leave(self, live: Replayed, state: FiringState, execution: ExecutionStatus) -> None:
        live.state, live.execution = state, execution
        for ref in live.reserved:
            if self.marking.reserved_by(ref.number) == live.number:
                self.marking.release(ref.number)

    # -- tokens -----------------------------------------------------------------------------------------------------

    def _exchange(
        self, seq: int, at: datetime, consumed: Sequence[TokenRef], produced: Sequence[TokenImage]
    ) -> Iterator[Fault]:
        gone: list[TokenRef] = []
        for ref in consumed:
            problem = self._missing(ref)
            if problem is not None:
                yield self._fault("I1", seq, f"it consumes {_named(ref)}, {problem}")
            if ref.number in self.marking:
                self.marking.take(ref.number)
            gone.append(ref)
        yield from self._produce(seq, at, produced, kept=gone)

    def _produce(
        self, seq: int, at: datetime, produced: Sequence[TokenImage], *, kept: Sequence[TokenRef]
    ) -> Iterator[Fault]:
        before = {ref.number: ref.version for ref in kept}
        for image in produced:
            if image.number in before:
                if image.version != before[image.number] + 1:
                    told = f"after version {before[image.number]}"
                    yield self._fault("I1", seq, f"it produces token {image.number} at version {image.version} {told}")
            elif image.number <= self.last_token or image.version != 1:
                yield self._fault(
                    "I1", seq, f"it produces token {image.number} at version {image.version} a second time"
                )
            self.last_token = max(self.last_token, image.number)
            self.arrivals[image.number] = image.version
            if image.number in self.marking:
                self.marking.take(image.number)
            self.marking.put(_token(image, at))

    def _missing(self, ref: TokenRef) -> str | None:
        """Why the token that `ref` names cannot be taken, or None."""
        token = self.marking.get(ref.number)
        if token is None:
            return "which does not exist here"
        if (token.version, token.place) != (ref.version, ref.place):
            return f"which lies in {token.place} at version {token.version} here"
        if self.marking.reserved_by(ref.number) is not None:
            return f"which firing {self.marking.reserved_by(ref.number)} holds"
        return None

    def _arcs(
        self,
        seq: int,
        does: str,
        name: str,
        tokens: Sequence[TokenRef | TokenImage],
        arcs: Sequence[InputArc | OutputArc],
    ) -> Iterator[Fault]:
        moved = Counter(token.place for token in tokens)
        asked = Counter[str]()
        for arc in arcs:
            asked[arc.place] += arc.weight
            if isinstance(arc, InputArc) and arc.several:
                # All that were there, or a whole group.
                least = 0 if arc.gather is not None else arc.weight
                asked[arc.place] += max(moved[arc.place], least) - arc.weight
        if moved != +asked:
            yield self._fault("I1", seq, f"{name} {does} {_counted(moved)}; its arcs say {_counted(asked)}")

    # -- the rest ---------------------------------------------------------------------------------------------------

    def _live(self, number: int) -> Replayed | None:
        found = self.firings.get(number)
        return found if found is not None and found.live else None

    def _transition(self, name: str) -> Transition | None:
        return None if self.net is None else self.net.transitions.get(name)

    def _fault(self, invariant: str, seq: int, message: str, remedy: str = MEND) -> Fault:
        return of_case(invariant, self.key, "history", message, remedy, seq=seq)


def _elements(transition: Transition, place: str, produced: Sequence[TokenImage]) -> int:
    """Of how many elements of a list the tokens in a place were made; as many as the tokens themselves say."""
    for image in produced:
        mark = (image.metadata.get(FAN_OUT) or {}).get(transition.label) or {}
        if image.place == place and "index" in mark:
            return mark["size"]
    return 0


def _token(image: TokenImage, entered_at: datetime) -> Token:
    return Token(image.number, image.version, image.place, image.data, image.metadata, entered_at)


def _counted(places: Counter[str]) -> str:
    return ", ".join(f"{count} of {place}" for place, count in sorted(places.items())) or "nothing"


def _named(ref: TokenRef) -> str:
    return f"token {ref.number} at version {ref.version} in {ref.place}"

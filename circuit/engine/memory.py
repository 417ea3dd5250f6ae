"""One case in memory: what its owner knows of it, and the few changes that every part of the owner makes to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from circuit.definition.workflow import Workflow
from circuit.engine.agenda import Agenda
from circuit.engine.draft import Draft
from circuit.errors import CircuitError
from circuit.events import StreamDelta
from circuit.net import firing as rule
from circuit.net.binding import Binding
from circuit.net.marking import Marking, Run, Token
from circuit.security.redactor import NOTHING, Redaction
from circuit.storage.records import (
    CaseState,
    ExecutionRow,
    ExecutionStatus,
    FiringRow,
    FiringState,
    IncidentRow,
)
from circuit.streams.encoding import encode
from circuit.value import dataclass, replace

HOLDS = "holds"
"""Where the request of a firing says what it holds of shared places: amounts by their names."""


@dataclass(slots=True)
class LiveFiring:
    """A firing that is offered, running or suspended, with the tokens that it holds."""

    row: FiringRow
    execution: ExecutionRow
    binding: Binding

    @property
    def running(self) -> bool:
        return self.row.state is FiringState.RUNNING

    @property
    def due_at(self) -> datetime | None:
        """When it goes on by itself: a retry, or a wait whose time is up."""
        return self.row.retry_at or self.row.wake_at


class Memory:
    """One case: its row, marking, live firings, open incidents and the counts of its firings."""

    def __init__(self, workflow: Workflow, state: CaseState, redaction: Redaction = NOTHING) -> None:
        self.workflow = workflow
        self._redaction = redaction
        self.net = workflow.net
        self.key = state.key
        self.row = state.row
        self.marking = Marking()
        self.firings: dict[int, LiveFiring] = {}
        self.incidents: dict[int, IncidentRow] = {}
        # By label: the history knows which choice of a transition fired, guards count them together.
        self.fired: dict[str, int] = {
            label: sum(state.fired.get(name, 0) for name in {label, *names}) for label, names in self.net.labels.items()
        }
        self.firings_ended = sum(self.fired.values())
        self.fired_seq = state.fired_seq
        self.journal = {number: dict(steps) for number, steps in state.journal.items()}
        self.agenda = Agenda(self.net)
        # How many open incidents are about each binding that must not be tried.
        self.blocked: Counter[tuple[str, frozenset[tuple[int, int]]]] = Counter()
        # Set when the case goes on in another version: what is here then is of no use for it any more.
        self.migrated = False
        # Firings that have not been granted yet what they ask of shared places.
        self.waiting = set(state.waiting)
        self.awaited = state.awaited
        self.case: dict[str, Any] = {
            "id": str(self.key.case),
            "workflow_id": self.row.workflow_id,
            "started_at": self.row.started_at.isoformat(),
            "fired": self.fired,
        }
        for row in state.incidents:
            self.block(row)
        for token, _ in state.tokens:
            self.marking.put(token)
        executions = {row.firing: row for row in state.executions}
        for row in state.firings:
            binding = Binding(
                row.transition,
                tuple(self._held(number) for number, _ in row.request["consumed"])
                + tuple(_token(image) for image in row.request.get("refreshed", ())),
                tuple(_token(image) for image in row.request["read"]),
            )
            rule.reinstate(self.net, self.marking, binding, row.number)
            self.firings[row.number] = LiveFiring(row, executions[row.number], binding)

    def told(self, error: CircuitError) -> CircuitError:
        """`error` as the rows and the readers are told of it."""
        return error.saying(self._redaction.text(error.message)) if self._redaction else error

    def execution_id(self, number: int) -> str:
        """The public id of the execution of firing `number`."""
        return f"{self.case['id']}.{number}"

    def numbers(self) -> Iterator[int]:
        """Fresh token numbers."""
        while True:
            number = self.row.next_token
            self.row = replace(self.row, next_token=number + 1)
            yield number

    def due_at(self) -> datetime | None:
        """When something of the case goes on by itself, if nothing happens before."""
        due = [at for live in self.firings.values() if (at := live.due_at) is not None]
        if (at := self.agenda.due_at) is not None:
            due.append(at)
        return min(due, default=None)

    def count(self, transition: str) -> None:
        """`transition` fired once more."""
        self.fired[self.net.transitions[transition].label] += 1
        self.firings_ended += 1
        self.agenda.counted()

    def block(self, incident: IncidentRow) -> None:
        """Keep an open incident, and what it is about from being tried."""
        self.incidents[incident.number] = incident
        self.blocked[_blocking(incident)] += 1

    def unblock(self, number: int) -> IncidentRow:
        """Let go of an incident, and of what it was about unless another one is about the same."""
        incident = self.incidents.pop(number)
        blocking = _blocking(incident)
        self.blocked[blocking] -= 1
        if not self.blocked[blocking]:
            del self.blocked[blocking]
        return incident

    def settle(self, transition: str, effect: rule.Effect, draft: Draft) -> None:
        """Take what a firing moved into the draft, and look again at what it may have enabled."""
        self.agenda.changed(transition)
        for number, version in effect.takes:
            draft.touch(number, version)
        for token, from_version in effect.moves:
            draft.touch(token.number, from_version)
        for token in effect.puts:
            draft.touch(token.number, None)

    def run_of(self, binding: Binding) -> Run:
        """The run that has begun on the token of a refresh."""
        token = self.marking.get(binding.consumed[0].number)
        assert token is not None and token.runs is not None
        return token.runs[binding.transition]

    def give_back(self, live: LiveFiring, draft: Draft, *, undone: bool = False) -> None:
        """A firing lets go of its tokens without a result."""
        for token in rule.abort(self.net, self.marking, live.binding, live.row.number, undone=undone):
            draft.touch(token.number, token.version)

    def touch_held(self, binding: Binding, draft: Draft) -> None:
        """The reservations of these tokens change."""
        for token in binding.consumed:
            draft.touch(token.number, token.version)

    def change(self, live: LiveFiring, draft: Draft, **changes: Any) -> None:
        """Change the row of a live firing."""
        live.row = replace(live.row, **changes)
        draft.change_firing(live.row)

    def leave(
        self, live: LiveFiring, state: FiringState, draft: Draft, *, error: Mapping[str, Any] | None = None
    ) -> None:
        """A firing ends."""
        self.change(live, draft, state=state, retry_at=None, wake_at=None, awaits=None, error=error)
        if HOLDS in live.row.request:
            draft.free_holds(live.row.number, live.row.request[HOLDS])
            self.waiting.discard(live.row.number)
        del self.firings[live.row.number]
        self.journal.pop(live.row.number, None)
        self.agenda.changed(live.binding.transition)

    def end_execution(
        self,
        live: LiveFiring,
        status: ExecutionStatus,
        draft: Draft,
        *,
        usage: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """An agent run ends."""
        live.execution = replace(live.execution, status=status, finished_at=draft.now, usage=usage or {}, error=error)
        draft.change_execution(live.execution)

    def frame(self, live: LiveFiring, sequence: int, delta: StreamDelta, draft: Draft) -> None:
        """A frame of the present start that the step itself writes: the terminal one, mostly."""
        number = live.row.number
        draft.frame(number, encode(self.execution_id(number), live.row.start, sequence, delta, draft.now))

    def _held(self, number: int) -> Token:
        token = self.marking.get(number)
        if token is None:
            raise LookupError(f"case {self.key}: token {number} is held by a firing and is not there")
        return token


def _token(image: Mapping[str, Any]) -> Token:
    return Token(
        image["number"],
        image["version"],
        image["place"],
        image["data"],
        image["metadata"],
        datetime.fromisoformat(image["entered_at"]),
    )


def _blocking(incident: IncidentRow) -> tuple[str, frozenset[tuple[int, int]]]:
    return incident.transition, frozenset(incident.blocks)

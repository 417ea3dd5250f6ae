"""One step of a case while it is being worked out: what changed, each row once.

A step may move a token through many places; the database sees only where it began and where it ends. So the draft
remembers, for each token that the step touches, the version that is stored, and compares at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from circuit.engine.action import Exchange
from circuit.events import CaseEvent, Frame
from circuit.ids import CaseKey
from circuit.net.marking import Marking, Token
from circuit.storage.records import (
    AskedRow,
    AwaitedMessage,
    CaseRow,
    CaseWrite,
    CommandResult,
    ExchangeRow,
    ExecutionRow,
    FiringRow,
    HoldRow,
    Holds,
    IncidentRow,
    JournalRow,
    Mail,
    MessageRow,
    NewCase,
    StreamRow,
    TokenMove,
)
from circuit.value import replace


class Draft:
    """Collects the changes of one step and gives them as one `CaseWrite`."""

    __slots__ = (
        "_asked",
        "_before",
        "_changed",
        "_events",
        "_exchanges",
        "_executions_changed",
        "_executions_opened",
        "_frames",
        "_holds",
        "_incidents_changed",
        "_incidents_opened",
        "_journal",
        "_key",
        "_leaving",
        "_mail",
        "_not_before",
        "_opened",
        "_opened_cases",
        "_settled",
        "_stored",
        "callers",
        "now",
    )

    def __init__(self, key: CaseKey, before: CaseRow, now: datetime, leaving: Collection[str] = ()) -> None:
        """`leaving` are the kinds of events that go to the outbox too."""
        self.now = now
        # The traces of those whose commands this step applies.
        self.callers: tuple[str, ...] = ()
        self._leaving = leaving
        self._key = key
        self._before = before
        self._events: list[tuple[datetime, CaseEvent]] = []
        self._stored: dict[int, int | None] = {}
        self._opened: dict[int, FiringRow] = {}
        self._changed: dict[int, FiringRow] = {}
        self._executions_opened: dict[int, ExecutionRow] = {}
        self._executions_changed: dict[int, ExecutionRow] = {}
        self._incidents_opened: dict[int, IncidentRow] = {}
        self._incidents_changed: dict[int, IncidentRow] = {}
        self._frames: list[StreamRow] = []
        self._not_before: datetime | None = None
        self._journal: list[JournalRow] = []
        self._settled: list[CommandResult] = []
        self._holds: Holds | None = None
        self._exchanges: list[ExchangeRow] = []
        self._mail: Mail | None = None
        self._opened_cases: list[NewCase] = []
        self._asked: list[AskedRow] = []

    def record(self, event: CaseEvent) -> None:
        self._events.append((self.now, event))

    def touch(self, number: int, stored_version: int | None) -> None:
        """This step changes a token: `stored_version` is what the database holds of it, None if nothing."""
        self._stored.setdefault(number, stored_version)

    def open_firing(self, row: FiringRow, execution: ExecutionRow) -> None:
        self._opened[row.number] = row
        self._executions_opened[row.number] = execution

    def change_firing(self, row: FiringRow) -> None:
        rows = self._opened if row.number in self._opened else self._changed
        rows[row.number] = row

    def change_execution(self, row: ExecutionRow) -> None:
        rows = self._executions_opened if row.firing in self._executions_opened else self._executions_changed
        rows[row.firing] = row

    def open_incident(self, row: IncidentRow) -> None:
        self._incidents_opened[row.number] = row

    def change_incident(self, row: IncidentRow) -> None:
        rows = self._incidents_opened if row.number in self._incidents_opened else self._incidents_changed
        rows[row.number] = row

    def frame(self, firing: int, frame: Frame) -> None:
        self._frames.append(StreamRow(firing, frame))

    def rely(self, due: datetime) -> None:
        """This step does something that is due since `due`."""
        if self._not_before is None or due > self._not_before:
            self._not_before = due

    def journal(self, row: JournalRow) -> None:
        self._journal.append(row)

    def ask_holds(self, firing: int, amounts: Mapping[str, int]) -> None:
        """A firing asks for what it holds of shared places."""
        self._holds = self._holds or Holds()
        self._holds.asked += [HoldRow(place, firing, amount, self.now) for place, amount in amounts.items()]

    def free_holds(self, firing: int, amounts: Mapping[str, int]) -> None:
        """A firing that asked for it has ended: what it held is there again, and it waits for nothing any more."""
        holds = self._holds = self._holds or Holds()
        asked = [row for row in holds.asked if row.firing != firing]
        if len(asked) == len(holds.asked):
            holds.freed += [HoldRow(place, firing, amount, self.now) for place, amount in amounts.items()]
        holds.asked = asked

    def say(self, firing: int, exchange: Exchange) -> None:
        """What a firing adds to a conversation, for it has completed."""
        messages = [
            MessageRow(said["role"], said["parts"], said.get("agent_id"), said.get("covers"))
            for said in exchange.messages
        ]
        self._exchanges.append(ExchangeRow(exchange.conversation, exchange.agent_id, exchange.token, firing, messages))

    def open_case(self, new: NewCase) -> None:
        """Another case begins with this step."""
        self._opened_cases.append(new)

    def ask(self, asked: AskedRow) -> None:
        """This step asks something of another case."""
        self._asked.append(asked)

    def await_messages(self, put: Sequence[AwaitedMessage], taken: Sequence[AwaitedMessage]) -> None:
        """The case waits for other messages after this step than before."""
        self._mail = Mail(put, taken)

    def answer_message(self) -> None:
        """This step answers a message, whatever it says."""
        self._mail = self._mail or Mail()

    def settle(self, result: CommandResult) -> None:
        self._settled.append(result)

    @property
    def seq(self) -> int:
        """The number of the case's last event after this step."""
        return self._before.seq + len(self._events)

    def write(
        self,
        after: CaseRow,
        marking: Marking,
        *,
        fired: Mapping[str, int] | None = None,
        release: bool,
        due_at: datetime | None,
        migrated: bool = False,
    ) -> CaseWrite | None:
        """The step as one write, or None if it changes nothing. `after` is the case's row but for its `seq`."""
        before, events = self._before, self._events
        changed = events or release or self._settled or self._stored or self._changed or self._mail
        if not changed and after == before:
            return None
        put: list[tuple[Token, int | None]] = []
        moved: list[TokenMove] = []
        taken: list[tuple[int, int]] = []
        for number, stored in self._stored.items():
            token = marking.get(number)
            if token is None:
                if stored is not None:
                    taken.append((number, stored))
            elif stored is None:
                put.append((token, marking.reserved_by(number)))
            else:
                moved.append(TokenMove(token, stored, marking.reserved_by(number)))
        leaving = self._leaving
        return CaseWrite(
            self._key,
            before.seq,
            replace(after, seq=self.seq) if events else after,
            events=events,
            tokens_put=put,
            tokens_moved=moved,
            tokens_taken=taken,
            firings_opened=tuple(self._opened.values()),
            firings_changed=tuple(self._changed.values()),
            executions_opened=tuple(self._executions_opened.values()),
            executions_changed=tuple(self._executions_changed.values()),
            frames=self._frames,
            journal=self._journal,
            incidents_opened=tuple(self._incidents_opened.values()),
            incidents_changed=tuple(self._incidents_changed.values()),
            commands_settled=self._settled,
            fired=fired,
            outbox=[seq for seq, (_, event) in enumerate(events, before.seq + 1) if event.kind in leaving]
            if leaving
            else (),
            release=release,
            due_at=due_at,
            holds=self._holds,
            exchanges=self._exchanges,
            not_before=self._not_before,
            mail=self._mail,
            migrated=migrated,
            opened=self._opened_cases,
            asked=self._asked,
        )

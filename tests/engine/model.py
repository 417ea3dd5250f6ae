"""A model of the tables: what a `CaseWrite` does to a case, in plain dictionaries, with the guards of the real writer.

It is no store for anybody to use: it lets the owner's loop run under a seeded scheduler, many thousand times a minute.
Whatever goes in is sent through JSON, as the real tables would send it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson

from circuit.events import CaseEvent, CaseStarted, Frame, TokenImage, decode_event, encode_event
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage.records import (
    AwaitedMessage,
    CaseRow,
    CaseState,
    CaseStatus,
    CaseWrite,
    CommandResult,
    CommandRow,
    ExecutionRow,
    FiringRow,
    FiringState,
    IncidentRow,
)


class RefusedWrite(Exception):
    """A guard of the model did not hold."""


def through_json(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value))


@dataclass
class ModelCase:
    """The rows of one case, and who owns it (an incarnation's number)."""

    key: CaseKey
    row: CaseRow
    owner: int | None = None
    fenced: set[int] = field(default_factory=set)
    due_at: datetime | None = None
    tokens: dict[int, tuple[Token, int | None]] = field(default_factory=dict)
    history: list[tuple[int, datetime, CaseEvent]] = field(default_factory=list)
    firings: dict[int, FiringRow] = field(default_factory=dict)
    executions: dict[int, ExecutionRow] = field(default_factory=dict)
    incidents: dict[int, IncidentRow] = field(default_factory=dict)
    journal: dict[tuple[int, int, str], Any] = field(default_factory=dict)
    frames: dict[int, list[Frame]] = field(default_factory=dict)
    commands: dict[Any, CommandRow] = field(default_factory=dict)
    results: dict[Any, CommandResult] = field(default_factory=dict)
    fired_seq: int = 0
    holds: dict[tuple[int, str], int] = field(default_factory=dict)
    granted: set[int] = field(default_factory=set)
    awaited: set[AwaitedMessage] = field(default_factory=set)
    children: dict[CaseKey, int] = field(default_factory=dict)
    dismissed: set[CaseKey] = field(default_factory=set)
    told: set[CaseKey] = field(default_factory=set)
    """The cases that it has opened, each with the firing that did; those that it has told that nobody waits for them
    any more; those that have told it of their end."""

    @classmethod
    def start(cls, key: CaseKey, workflow_id: str, tokens: list[Token], now: datetime) -> ModelCase:
        images = tuple(TokenImage(t.number, t.version, t.place, t.data, t.metadata) for t in tokens)
        row = CaseRow(workflow_id, "hash", CaseStatus.RUNNING, 1, len(tokens) + 1, 1, 1, now)
        case = cls(key, row)
        case.tokens = {token.number: (token, None) for token in tokens}
        case.history.append((1, now, CaseStarted(workflow_id, "hash", images, "test")))
        return case

    def apply(self, write: CaseWrite, incarnation: int) -> None:
        """Commit `write`, or raise `RefusedWrite` and change nothing."""
        self._guard(write, incarnation)
        for number, _ in write.tokens_taken:
            del self.tokens[number]
        for move in write.tokens_moved:
            self.tokens[move.token.number] = (self._stored(move.token), move.reserved_by)
        for token, reserved_by in write.tokens_put:
            self.tokens[token.number] = (self._stored(token), reserved_by)
        for offset, (at, event) in enumerate(write.events, 1):
            body = orjson.loads(encode_event(event))
            self.history.append((write.expected_seq + offset, at, decode_event(event.kind, body)))
        for row in [*write.firings_opened, *write.firings_changed]:
            self.firings[row.number] = replace(row, request=through_json(row.request))
        for row in [*write.executions_opened, *write.executions_changed]:
            self.executions[row.firing] = row
        for row in [*write.incidents_opened, *write.incidents_changed]:
            self.incidents[row.number] = row
        for entry in write.journal:
            self.journal.setdefault((entry.firing, entry.attempt, entry.step), through_json(entry.value))
        if write.holds is not None:
            for row in write.holds.freed:
                del self.holds[row.firing, row.place]
                self.granted.discard(row.firing)
            for row in write.holds.asked:
                assert (row.firing, row.place) not in self.holds, "a firing asked twice"
                self.holds[row.firing, row.place] = row.amount
        if write.mail is not None:
            assert self.awaited.isdisjoint(write.mail.put) and self.awaited.issuperset(write.mail.taken)
            self.awaited = self.awaited.difference(write.mail.taken) | set(write.mail.put)
        for new in write.opened:
            assert new.key not in self.children, "a case was opened twice"
            assert new.row.parent is not None
            self.children[new.key] = new.row.parent.firing
        for asked in write.asked:
            self.dismissed.add(CaseKey(self.key.tenant, asked.case))
        for stored in write.frames:
            self.frames.setdefault(stored.firing, []).append(stored.frame)
        for result in write.commands_settled:
            self.results[result.id] = result
        self.row = write.row
        if write.fired is not None:
            assert write.fired == self.fired(), "the counts that are written down are not those of the history"
            self.fired_seq = write.row.seq
        if write.release:
            self.owner = None
            self.due_at = write.due_at

    def _guard(self, write: CaseWrite, incarnation: int) -> None:
        def must(holds: bool, what: str) -> None:
            if not holds:
                raise RefusedWrite(what)

        must(not self.refuses(incarnation), "another owner, or a fenced one")
        must(self.row.seq == write.expected_seq, "another seq")
        assert not self.row.status.terminal, "a terminal case was written to"
        must(write.row.seq == write.expected_seq + len(write.events), "seq does not count the events")
        for number, version in write.tokens_taken:
            must(number in self.tokens and self.tokens[number][0].version == version, f"take of {number}")
        for move in write.tokens_moved:
            number = move.token.number
            must(number in self.tokens and self.tokens[number][0].version == move.from_version, f"move of {number}")
        taken = {number for number, _ in write.tokens_taken}
        for token, _ in write.tokens_put:
            must(token.number not in self.tokens or token.number in taken, f"put of {token.number}")
        for row in write.firings_opened:
            must(row.number not in self.firings, f"firing {row.number} opened twice")
        for row in write.firings_changed:
            must(row.number in self.firings and self.firings[row.number].state.live, f"firing {row.number} ended")
        for result in write.commands_settled:
            must(result.id not in self.results, "a command settled twice")

    def _stored(self, token: Token) -> Token:
        return replace(token, data=through_json(token.data), metadata=through_json(token.metadata))

    def refuses(self, incarnation: int) -> bool:
        """Whether nothing that this incarnation writes counts."""
        return incarnation in self.fenced or self.owner != incarnation

    def record(self, name: tuple[int, int, str], value: Any, incarnation: int) -> Any:
        """Append to the journal, where the first write wins; what it holds now. Raises `RefusedWrite`."""
        if self.refuses(incarnation):
            raise RefusedWrite(f"incarnation {incarnation} records {name}")
        return self.journal.setdefault(name, through_json(value))

    def take_over(self, incarnation: int, now: datetime) -> None:
        """The incarnation is declared dead and its case is free."""
        self.fenced.add(incarnation)
        if self.owner == incarnation:
            self.lose_owner()
            self.due_at = now

    def lose_owner(self) -> None:
        """The owner counts for dead: its running firings count a crash."""
        self.owner = None
        for number, row in self.firings.items():
            if row.state is FiringState.RUNNING:
                self.firings[number] = replace(row, crashes=row.crashes + 1)

    def retire(self, incarnation: int, now: datetime) -> None:
        """The incarnation ends in good order and gives back its case."""
        self.fenced.add(incarnation)
        if self.owner == incarnation:
            self.owner = None
            self.due_at = now

    def asking(self) -> dict[int, dict[str, int]]:
        """What firings have asked for and were not granted, in the order of asking."""
        asked: dict[int, dict[str, int]] = {}
        for (firing, place), amount in self.holds.items():
            if firing not in self.granted:
                asked.setdefault(firing, {})[place] = amount
        return asked

    def held(self, place: str) -> int:
        """How much of a shared place this case holds."""
        return sum(amount for (firing, name), amount in self.holds.items() if name == place and firing in self.granted)

    def state(self) -> CaseState:
        """What a worker reads when it claims the case."""
        live = [row for row in self.firings.values() if row.state.live]
        journal: dict[int, dict[str, Any]] = {}
        for row in live:
            for (firing, attempt, step), value in self.journal.items():
                if (firing, attempt) == (row.number, row.attempt):
                    journal.setdefault(firing, {})[step] = value
        return CaseState(
            self.key,
            self.row,
            list(self.tokens.values()),
            live,
            [self.executions[row.number] for row in live],
            [row for row in self.incidents.values() if row.resolved_at is None],
            [command for command in self.commands.values() if command.id not in self.results],
            self.fired(),
            journal,
            self.fired_seq,
            frozenset(self.asking()),
            frozenset(self.awaited),
        )

    def fired(self) -> dict[str, int]:
        """How often each transition fired; the choices of one are counted together."""
        fired: dict[str, int] = {}
        for _, _, event in self.history:
            if event.kind == "transition_fired":
                name = event.transition.partition("@")[0]
                fired[name] = fired.get(name, 0) + 1
        return fired

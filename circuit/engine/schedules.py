"""What of cases goes on by itself, and when: the next runs of place agents, timers, retries, waits whose time is up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from circuit.definition.workflow import Workflow
from circuit.engine.queries import Queries
from circuit.engine.versions import VersionKey, VersionUnusable
from circuit.errors import InvalidRequest
from circuit.ids import CaseKey, Numbered, parse_case_id
from circuit.net.marking import Token
from circuit.storage import listing, pages
from circuit.storage.database import Database
from circuit.storage.records import CaseRow

LARGEST_PAGE = 1_000
MOST_TOKENS = 1_000
"""Tokens of one case that are looked at."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """A place in the list: behind a case that is due at an instant."""

    due_at: datetime
    case: UUID

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place that `text` spells. Raises `InvalidRequest`."""
        micros, _, case = text.partition("@")
        parsed = parse_case_id(case)
        if parsed is None or not (micros.isascii() and micros.isdecimal() and len(micros) <= 17):
            raise InvalidRequest("`after` is the `cursor` of the last entry that is known")
        return cls(_BEGINNING + timedelta(microseconds=int(micros)), parsed)

    def __str__(self) -> str:
        return f"{(self.due_at - _BEGINNING) // timedelta(microseconds=1)}@{self.case}"


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """A transition that waits for its time with a token: the next run of a place agent, or a timer. `runs` counts what
    the agent ran before in this stay."""

    transition: str
    agent_id: str | None
    place: str
    token_id: str
    due_at: datetime
    runs: int


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A case that goes on by itself at `due_at`. Where no run is due then, a retry is, or the end of a wait."""

    place: Place
    key: CaseKey
    workflow_id: str
    due_at: datetime
    runs: Sequence[ScheduledRun]


class Schedules:
    """Reads of what is due later."""

    def __init__(self, database: Database, queries: Queries, now: Callable[[], datetime]) -> None:
        self._database = database
        self._queries = queries
        self._now = now

    async def due(
        self,
        tenant: int,
        *,
        workflow_id: str | None = None,
        case: UUID | None = None,
        limit: int,
        after: Place | None = None,
    ) -> list[ScheduleView]:
        """Cases that wait for a time, the next ones first. Raises `InvalidRequest`."""
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidRequest(f"a page has 1 to {LARGEST_PAGE} entries, not {limit}")
        async with self._database.transaction(tenant) as connection:
            found = await listing.due_later(
                connection, tenant, workflow_id=workflow_id, case=case, limit=limit, after=after
            )
            laid = await pages.tokens(connection, tenant, [one.key.case for one, _ in found], 0, MOST_TOKENS)
        tokens: dict[UUID, list[Token]] = {}
        for one in laid:
            if one.holder is None:
                tokens.setdefault(one.key.case, []).append(one.token)
        views: list[ScheduleView] = []
        for (key, row), due_at in found:
            runs = await self._runs(key, row, tokens.get(key.case, []))
            views.append(ScheduleView(Place(due_at, key.case), key, row.workflow_id, due_at, runs))
        return views

    async def _runs(self, key: CaseKey, row: CaseRow, tokens: Sequence[Token]) -> list[ScheduledRun]:
        try:
            workflow = await self._queries.version(VersionKey(key.tenant, row.workflow_id, row.workflow_hash))
        except VersionUnusable:
            return []
        case = {"id": str(key.case), "workflow_id": row.workflow_id, "started_at": row.started_at.isoformat()}
        found = _scheduled(workflow, key, case, tokens, self._now())
        return sorted(found, key=lambda run: (run.due_at, run.transition, run.token_id))


def _scheduled(
    workflow: Workflow, key: CaseKey, case: Mapping[str, Any], tokens: Sequence[Token], now: datetime
) -> Iterator[ScheduledRun]:
    """Every token that a transition with a time of its own will take, or run on, by itself."""
    for transition in workflow.net.transitions.values():
        if transition.timing is None or len(transition.inputs) != 1:
            continue
        action = workflow.actions.get(transition.name)
        agent = None if action is None else action.config.get("agent_id")
        for token in tokens:
            if token.place != transition.inputs[0].place:
                continue
            due = transition.timing.due((token,), (), {**case, "fired": {}}, now)
            if due is not None and due > now:
                run = (token.runs or {}).get(transition.name)
                yield ScheduledRun(
                    transition.name,
                    agent,
                    token.place,
                    str(Numbered(key.case, token.number)),
                    due,
                    0 if run is None else run.count,
                )

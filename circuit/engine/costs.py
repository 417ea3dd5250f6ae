"""The door to costs: what answers of models came to, by day, workflow, case, agent, provider and model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from circuit.engine.views import instant
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import parse_case_id
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import costs
from circuit.storage.costs import DIMENSIONS as DIMENSIONS
from circuit.storage.costs import Chosen
from circuit.storage.costs import Cost as Cost
from circuit.storage.database import Database

LARGEST_PAGE = 1_000
DEFAULT_PERIOD = timedelta(days=30)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CostFilter:
    """Which answers count; what is None does not choose. Without `since` it is those of the last 30 days, or all of the
    case. `opened`: also of the cases that it opened, and so on."""

    since: datetime | None = None
    until: datetime | None = None
    case_id: str | None = None
    opened: bool = False
    workflow_id: str | None = None
    agent_id: str | None = None
    provider: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class CostPage:
    """What all chosen answers come to, and a page of what those do that agree. `next` is what the next page begins
    behind, where there is one."""

    since: datetime
    until: datetime
    total: Cost
    entries: Sequence[Cost]
    next: str | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "since": instant(self.since),
            "until": instant(self.until),
            "total": cost_json(self.total),
            "entries": [cost_json(entry) for entry in self.entries],
            "next": self.next,
        }


def cost_json(cost: Cost) -> dict[str, Any]:
    """A sum as every door shows it."""
    return {
        **named(cost.names),
        "calls": cost.calls,
        "cached": cost.cached,
        "input_tokens": cost.input_tokens,
        "output_tokens": cost.output_tokens,
        "usd": cost.usd,
        "unpriced": cost.unpriced,
    }


def named(names: Mapping[str, str]) -> dict[str, str | None]:
    """What answers have in common; what has no name (an answer without an agent) is None."""
    return {name: value or None for name, value in names.items()}


class Costs:
    """Adds up what the answers of a tenant cost."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def page(
        self,
        principal: Principal,
        chosen: CostFilter,
        by: Sequence[str] = ("workflow",),
        *,
        limit: int = 50,
        after: str | None = None,
    ) -> CostPage:
        """What the chosen answers cost, for each value of the dimensions `by`: the newest days first, and the dearest
        of each. Raises `InvalidRequest`, `NotFound`, `Forbidden`."""
        principal.require(Permission.READ)
        unknown = [name for name in by if name not in DIMENSIONS]
        if unknown or len(set(by)) < len(by):
            raise InvalidRequest(f"costs are told apart by {', '.join(DIMENSIONS)}, each once; not by {', '.join(by)}")
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidRequest(f"a page has 1 to {LARGEST_PAGE} entries, not {limit}")
        skip = _behind(after)
        wanted = self._chosen(chosen)
        async with self._database.transaction(principal.tenant) as connection:
            total, found = await costs.sums(connection, principal.tenant, wanted, by, skip=skip, limit=limit + 1)
        more = str(skip + limit) if len(found) > limit else None
        return CostPage(wanted.since, wanted.until, total, found[:limit], more)

    def _chosen(self, given: CostFilter) -> Chosen:
        until = given.until or self._now() + timedelta(minutes=1)
        since = given.since or until - DEFAULT_PERIOD
        if not _EARLIEST <= since < until <= _LATEST:
            raise InvalidRequest(f"costs are those from an instant on until a later one, not {since} to {until}")
        case = None if given.case_id is None else parse_case_id(given.case_id)
        if given.case_id is not None and case is None:
            raise NotFound(f"there is no case {given.case_id!r}; an id of a case is a UUID")
        if given.opened and case is None:
            raise InvalidRequest("name the case whose opened cases count too")
        named = Chosen(since, until, case, given.opened, given.workflow_id, given.agent_id, given.provider, given.model)
        # Of one case all of it counts, unless somebody wants a part.
        return replace(named, since=_EARLIEST) if case is not None and given.since is None else named


def _behind(after: str | None) -> int:
    if after is None:
        return 0
    if not (after.isascii() and after.isdecimal() and len(after) <= 9):
        raise InvalidRequest("`after` is the `next` of the page before")
    return int(after)

"""The door to feedback: what people said of executions, with what it is about, listed and exported."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from circuit.engine.provenance import FeedbackView
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import parse_case_id
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import feedback
from circuit.storage.database import Database
from circuit.storage.feedback import Opinion, Wanted

LARGEST_PAGE = 1_000
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class FeedbackFilter:
    """Which feedback; what is None does not choose. `by` is who gave it."""

    case_id: str | None = None
    workflow_id: str | None = None
    agent_id: str | None = None
    by: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class OpinionView:
    """Feedback with the execution that it is about: of which workflow, by which versions of agent, prompts, model."""

    opinion: Opinion

    @property
    def view(self) -> FeedbackView:
        return FeedbackView.of(self.opinion.row)

    @property
    def execution_id(self) -> str:
        return f"{self.opinion.key.case}.{self.opinion.row.firing}"

    def as_dict(self) -> dict[str, Any]:
        opinion = self.opinion
        return {
            **self.view.as_dict(),
            "execution_id": self.execution_id,
            "workflow": opinion.workflow_id,
            "workflow_hash": opinion.workflow_hash,
            "provenance": dict(opinion.descriptor),
        }


class FeedbackLog:
    """Lists what was said in a tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, principal: Principal, chosen: FeedbackFilter, limit: int, before: str | None = None
    ) -> list[OpinionView]:
        """Feedback, the youngest first; `before` is the id of the last one of the page before. Raises
        `InvalidRequest`, `NotFound`, `Forbidden`."""
        principal.require(Permission.READ)
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidRequest(f"a page has 1 to {LARGEST_PAGE} entries, not {limit}")
        last = None if before is None else parse_case_id(before)
        if before is not None and last is None:
            raise InvalidRequest("the page before ends with the id of a feedback, which is a UUID")
        wanted = _wanted(chosen)
        async with self._database.transaction(principal.tenant) as connection:
            found = await feedback.listed(connection, principal.tenant, wanted, limit=limit, before=last)
        return [OpinionView(one) for one in found]

    async def all(self, principal: Principal, chosen: FeedbackFilter) -> AsyncGenerator[OpinionView]:
        """All of it, the oldest first. Raises as `page` does, at the first step."""
        principal.require(Permission.READ)
        wanted, after = _wanted(chosen), _FIRST
        while True:
            async with self._database.transaction(principal.tenant) as connection:
                found = await feedback.listed(connection, principal.tenant, wanted, limit=LARGEST_PAGE, after=after)
            for one in found:
                yield OpinionView(one)
            if len(found) < LARGEST_PAGE:
                return
            after = found[-1].row.id


def _wanted(chosen: FeedbackFilter) -> Wanted:
    case = None if chosen.case_id is None else parse_case_id(chosen.case_id)
    if chosen.case_id is not None and case is None:
        raise NotFound(f"there is no case {chosen.case_id!r}; an id of a case is a UUID")
    return Wanted(case, chosen.workflow_id, chosen.agent_id, chosen.by, chosen.since, chosen.until)

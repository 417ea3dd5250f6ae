"""The cases that an operation names."""

from __future__ import annotations

from uuid import UUID

from circuit.api.graphql.context import Resolving
from circuit.engine.views import CaseView
from circuit.errors import NotFound
from circuit.ids import CaseKey, parse_case_id


def case_key(info: Resolving, case_id: str) -> CaseKey:
    """The case that somebody names. Raises `NotFound`, `Forbidden`."""
    case = parse_case_id(case_id)
    if case is None:
        raise NotFound("there is no such case; an id of a case is a UUID")
    return CaseKey(info.context.tenant, case)


async def case_seen(info: Resolving, case: UUID | None) -> CaseView | None:
    """A case as it is seen, if there is one of this id. Raises `Forbidden`."""
    key = CaseKey(info.context.tenant, case) if case is not None else None
    return None if key is None else await info.context.services.queries.case(key)

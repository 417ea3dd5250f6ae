"""What an operation names: cases, what in them has a number, and the kinds of what it wants."""

from __future__ import annotations

from collections.abc import Collection

from circuit.api.graphql.context import Resolving
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import CaseKey, parse_case_id, parse_numbered


def case_key(info: Resolving, case_id: str) -> CaseKey:
    """The case that somebody names who may see cases. Raises `NotFound` and `Forbidden`."""
    info.context.require_reading()
    return asked_case(info, case_id)


def asked_case(info: Resolving, case_id: str) -> CaseKey:
    """The case of which somebody asks something. Raises `NotFound`.

    Whether he may is for the command to say: a workflow may ask a person who may see nothing else.
    """
    case = parse_case_id(case_id)
    if case is None:
        raise NotFound("there is no such case; an id of a case is a UUID")
    return CaseKey(info.context.principal.tenant, case)


def numbered(info: Resolving, text: str, what: str) -> tuple[CaseKey, int]:
    """The case and the number of the token, the execution or the task of which somebody asks something. Raises
    `NotFound`."""
    found = parse_numbered(text)
    if found is None:
        raise NotFound(f"there is no such {what}; an id looks like CASE.NUMBER")
    return CaseKey(info.context.principal.tenant, found.case), found.number


def checked(given: Collection[str] | None, known: Collection[str], what: str) -> None:
    """Raise `InvalidRequest` where `given` has what is not known."""
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        raise InvalidRequest(f"`{what}` has {unknown[0][:100]!r}; there are {', '.join(known)}")

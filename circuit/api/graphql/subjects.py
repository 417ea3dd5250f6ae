"""Whom cases are about, and what is held of them."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import asked_case, case_key
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, page
from circuit.api.graphql.scalars import as_json
from circuit.engine import subjects
from circuit.errors import Conflict
from circuit.ids import parse_case_id


@strawberry.type(description="A case that is about somebody.")
class SubjectCase:
    case_id: str
    workflow: str | None
    status: str | None = strawberry.field(description="Null: it is not in the database; it may be archived.")
    erased_at: datetime | None

    @classmethod
    def of(cls, one: subjects.SubjectCase) -> SubjectCase:
        return cls(case_id=str(one.key.case), workflow=one.workflow_id, status=one.status, erased_at=one.erased_at)


@strawberry.type(description="What an erasure did, or would do.")
class Erasure:
    cases: int
    archived_cases: int
    rows: JSON = strawberry.field(description="In how many rows of each table: `{table: count}`.")
    cached_answers: int
    messages_deleted: int
    unreachable: list[str] = strawberry.field(
        description="Weeks of the archive that this server cannot open: what they hold of the subject is still there."
    )
    dry_run: bool

    @classmethod
    def of(cls, done: subjects.Erasure) -> Erasure:
        return cls(
            cases=done.cases,
            archived_cases=done.archived,
            rows=as_json(dict(sorted(done.rows.items()))),
            cached_answers=done.cached_answers,
            messages_deleted=done.messages,
            unreachable=list(done.unreachable),
            dry_run=done.dry_run,
        )


@strawberry.type
class SubjectQueries:
    @strawberry.field(
        description="The cases that are about a person, and those that they opened, the oldest first. It takes the "
        "permission to administer. `after` is the `caseId` of the last one that is known."
    )
    async def subject_cases(
        self, info: Resolving, subject: str, first: int = DEFAULT_PAGE, after: str | None = None
    ) -> list[SubjectCase]:
        many, known = page(first), None if after is None else case_key(info, after).case
        found = await _door(info).cases(subject, info.context.principal)
        return [SubjectCase.of(one) for one in found if known is None or one.key.case > known][:many]

    @strawberry.field(
        description="All that a case about this person holds, also where it is archived: `[{table, row}]`; null if the "
        "case is not about the person. It is written down as an export."
    )
    async def subject_data(self, info: Resolving, subject: str, case_id: str) -> JSON | None:
        door, case = _door(info), parse_case_id(case_id)
        if case is None:
            info.context.require_reading()
            return None
        found = await door.exported(subject, case_key(info, case_id), info.context.principal)
        return None if found is None else as_json([{"table": table, "row": row} for table, row in found])


@strawberry.type
class SubjectMutations:
    @strawberry.mutation(
        description="Say that a case is about these people, beside those that its workflow finds in its tokens."
    )
    async def add_subjects(self, info: Resolving, case_id: str, subjects: list[str]) -> bool:
        await _door(info).add(asked_case(info, case_id), subjects, info.context.principal)
        return True

    @strawberry.mutation(
        description="Erase what the cases about a person hold; their rows stay, each with the hash of what was there. "
        "Cases that have not ended are refused, or with `cancel` cancelled first. `dryRun` changes nothing. It takes "
        "the permission to administer."
    )
    async def erase_subject(
        self, info: Resolving, subject: str, cancel: bool = False, dry_run: bool = False
    ) -> Erasure:
        done = await _door(info).erase(subject, info.context.principal, cancel=cancel, dry_run=dry_run)
        return Erasure.of(done)


def _door(info: Resolving) -> subjects.Subjects:
    door = info.context.services.subjects
    if door is None:
        raise Conflict("this server has no door to what is personal")
    return door

"""Live cases brought to another version of their workflow."""

from __future__ import annotations

from typing import Annotated

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json, as_object
from circuit.engine.migrator import MigrationReport as Report
from circuit.engine.migrator import Wanted
from circuit.errors import InvalidRequest
from circuit.ids import parse_case_id

DEFAULT_CASES = 1_000
MOST_CASES = 10_000


@strawberry.type(
    description="A distinct marking of live cases. `completion` says whether they can always come to an end from there:"
    " `proven`, `violated` (with the `trace`), `unknown`, or `refused` where it cannot be in the new version."
)
class MigratedMarking:
    version: str
    marking: JSON
    cases: int
    completion: str
    reason: str
    trace: list[str]


@strawberry.type(description="A case that stays on its version, and why.")
class StayingCase:
    case_id: str
    reason: str


@strawberry.type(
    description="What became of a migration. `moved` counts the cases that went, or of a dry run would go; `pending`"
    " those whose owner has not answered yet; `stay` names those that are `left`, up to a thousand of them."
)
class MigrationReport:
    workflow: str
    version: str
    dry_run: bool
    cases: int
    moved: int
    left: int
    pending: int
    markings: list[MigratedMarking]
    stay: list[StayingCase]
    last: str | None = strawberry.field(description="Where there may be more cases: give it as `after` to go on.")

    @classmethod
    def of(cls, report: Report) -> MigrationReport:
        return cls(
            workflow=report.workflow_id,
            version=report.version,
            dry_run=report.dry_run,
            cases=report.cases,
            moved=report.moved,
            left=report.left,
            pending=report.pending,
            markings=[
                MigratedMarking(
                    version=one.version,
                    marking=as_json(dict(one.marking)),
                    cases=one.cases,
                    completion=one.verdict,
                    reason=one.reason,
                    trace=list(one.trace),
                )
                for one in report.markings
            ],
            stay=[StayingCase(case_id=str(key.case), reason=reason) for key, reason in report.stay.items()],
            last=None if report.last is None else str(report.last),
        )


@strawberry.type
class MigrationMutations:
    @strawberry.mutation(
        description="Bring live cases of a workflow from the version `from` (every other one, if that is left out) to"
        " the version `to` (the current one); the beginning of a hash does. `places` names those that are called"
        " otherwise there: `{old: new}`. What can go goes, the rest is listed; to ask again is safe."
    )
    async def migrate_cases(
        self,
        info: Resolving,
        workflow_id: str,
        from_: Annotated[str | None, strawberry.argument(name="from")] = None,
        to: str | None = None,
        places: JSON | None = None,
        restart_firings: bool = False,
        allow_unproven: bool = False,
        dry_run: bool = False,
        first: int = DEFAULT_CASES,
        after: str | None = None,
    ) -> MigrationReport:
        migrator = info.context.services.migrator
        if migrator is None:
            raise InvalidRequest("this server moves no cases")
        if not 1 <= first <= MOST_CASES:
            raise InvalidRequest(f"`first` is 1 to {MOST_CASES:,}, not {first}; go on with `after`")
        last = None if after is None else parse_case_id(after)
        if after is not None and last is None:
            raise InvalidRequest("`after` is not the id of a case")
        names = as_object(places, "places")
        if not all(isinstance(name, str) for name in names.values()):
            raise InvalidRequest("`places` are names by names: {old: new}")
        wanted = Wanted(workflow_id, from_, to, names, restart_firings, allow_unproven, dry_run)
        report = await migrator.migrate(wanted, principal=info.context.principal, limit=first, after=last)
        return MigrationReport.of(report)

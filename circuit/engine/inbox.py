"""What waits for people: tasks to be completed, and calls of tools to be allowed; and their answers.

Two who answer the same at once: the owner takes one answer, and refuses the other with `conflict`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from circuit.definition.compiler import compile_document
from circuit.engine.commands import CommandOutcome, Commands
from circuit.engine.suspension import APPROVAL
from circuit.engine.viewing import task_view
from circuit.engine.views import TaskView, instant
from circuit.errors import Conflict, InvalidRequest, NotFound
from circuit.ids import CaseKey, Numbered
from circuit.security.permissions import EVERY_ROLE, Permission
from circuit.security.principal import Principal
from circuit.storage import history, listing, workflows
from circuit.storage.database import Database
from circuit.storage.records import FiringRow

TASK = "human"
LARGEST_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class ApprovalView:
    """A call of a tool that an agent may make only when somebody has allowed it, with exactly these arguments. `call`
    names it: whoever decides with it decides on this call and no other."""

    id: str
    call: str
    key: CaseKey
    workflow_id: str
    transition: str
    agent: str
    tool: str
    arguments: Any
    doubt: str | None
    roles: tuple[str, ...]
    since: datetime
    due_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "execution_id": self.id,
            "call": self.call,
            "case_id": str(self.key),
            "workflow": self.workflow_id,
            "transition": self.transition,
            "agent": self.agent,
            "tool": self.tool,
            "arguments": self.arguments,
            "doubt": self.doubt,
            "roles": list(self.roles),
            "since": instant(self.since),
            "due_at": instant(self.due_at) if self.due_at else None,
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of what waits is asked for: of a workflow, of a case, or what a role may answer."""

    workflow_id: str | None = None
    case: UUID | None = None
    role: str | None = None


class Inbox:
    """The door to what waits for people. Who may see cases sees all of it; anybody sees what his roles may answer."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def tasks(
        self, principal: Principal, wanted: Wanted, limit: int, after: tuple[UUID, int] | None = None
    ) -> list[TaskView]:
        """Open tasks, those of the youngest cases first; `after` is the last one of the page before."""
        found = await self._waiting(TASK, principal, wanted, limit, after)
        return [task_view(key, row, firing) for (key, row), firing in found]

    async def approvals(
        self, principal: Principal, wanted: Wanted, limit: int, after: tuple[UUID, int] | None = None
    ) -> list[ApprovalView]:
        """Calls of tools that wait to be allowed, those of the youngest cases first."""
        found = await self._waiting(APPROVAL, principal, wanted, limit, after)
        return [_approval(listed, firing) for listed, firing in found]

    async def open_at(self, key: CaseKey, seq: int, role: str | None = None) -> set[int]:
        """The firings of a case whose tasks were open after its event `seq`; with `role`, those that it could
        complete."""
        async with self._database.transaction(key.tenant) as connection:
            found = await history.waiting(connection, key, TASK, seq)
            if role is None or not found:
                return set(found)
            case = await listing.find_case(connection, key)
            version = case and await workflows.by_hash(connection, key.tenant, case.workflow_id, case.workflow_hash)
        actions = compile_document(version.document).actions if version else {}
        asked = {name: action.config.get("roles") for name, action in actions.items()}
        return {firing for firing, transition in found.items() if role in (asked.get(transition) or (role,))}

    async def complete(
        self,
        key: CaseKey,
        firing: int,
        form: Mapping[str, Any],
        *,
        principal: Principal,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        """Complete a task with its form, filled in. Raises `NotFound`, `Conflict` where somebody was faster,
        `InvalidRequest`, `Forbidden`."""
        return await self._answer(key, firing, TASK, dict(form), principal, idempotency_key)

    async def decide(
        self,
        key: CaseKey,
        firing: int,
        approved: bool,
        reason: str = "",
        *,
        call: str | None = None,
        principal: Principal,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        """Allow the call of a tool that a firing waits to make, or refuse it: then the model is told why. With `call`
        (of its `ApprovalView`) it is this call, however long ago somebody looked at it: where the firing waits with
        another one by now, nobody has looked at that, and it is a `Conflict`."""
        said = {"approved": approved, **({"reason": reason} if reason else {})}
        return await self._answer(key, firing, APPROVAL, said, principal, idempotency_key, call)

    async def _answer(
        self,
        key: CaseKey,
        firing: int,
        kind: str,
        said: Mapping[str, Any],
        principal: Principal,
        idempotency_key: str | None,
        call: str | None = None,
    ) -> CommandOutcome:
        if key.tenant != principal.tenant:
            raise NotFound(f"there is no {_NAMES[kind]} {key}.{firing}")
        wait: str | None = None
        if idempotency_key is not None:
            # Asked again, the answer is what it was: also where nothing waits any more.
            wait = await self._answered(key, idempotency_key)
        if wait is None:
            wait = await self._wait(key, firing, kind)
            if call not in (None, wait):
                raise Conflict(f"{key}.{firing} waits with another call by now: look at it before you answer")
        return await self._commands.signal(
            key, firing, said, wait=wait, principal=principal, idempotency_key=idempotency_key
        )

    async def _wait(self, key: CaseKey, firing: int, kind: str) -> str:
        """The key of the wait that a firing is in. Raises `NotFound` and `Conflict`."""
        what = _NAMES[kind]
        async with self._database.transaction(key.tenant) as connection:
            found = await listing.firing(connection, key, firing)
        if found is None:
            raise NotFound(f"there is no {what} {key}.{firing}")
        if found.awaits is None:
            raise Conflict(f"{what} {key}.{firing} waits for nobody (any more): it is answered, or its time is up")
        if found.awaits["kind"] != kind:
            raise Conflict(f"{key}.{firing} is no {what}: it waits for {found.awaits['kind']}")
        return str(found.awaits["key"])

    async def _answered(self, key: CaseKey, idempotency_key: str) -> str | None:
        async with self._database.transaction(key.tenant) as connection:
            return await listing.signalled(connection, key, idempotency_key)

    async def _waiting(
        self, kind: str, principal: Principal, wanted: Wanted, limit: int, after: tuple[UUID, int] | None
    ) -> list[tuple[listing.Listed, FiringRow]]:
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidRequest(f"a page has 1 to {LARGEST_PAGE} entries, not {limit}")
        roles: Collection[str] | None = None if wanted.role is None else (wanted.role,)
        strictly = False
        if not principal.can(Permission.READ):
            # A person whom workflows ask, and who may see nothing else.
            if principal.execution is not None or (
                principal.scopes is not None and Permission.RUN not in principal.scopes
            ):
                principal.require(Permission.READ)
            strictly = EVERY_ROLE not in principal.roles
            roles = principal.roles if roles is None else principal.roles.intersection(roles)
        async with self._database.transaction(principal.tenant) as connection:
            return await listing.waiting(
                connection,
                principal.tenant,
                kind,
                workflow_id=wanted.workflow_id,
                case=wanted.case,
                roles=roles,
                asking=strictly,
                limit=limit,
                after=after,
            )


_NAMES = {TASK: "task", APPROVAL: "call of a tool"}


def _approval(listed: listing.Listed, firing: FiringRow) -> ApprovalView:
    task = task_view(listed.key, listed.row, firing)
    said: Mapping[str, Any] = (firing.awaits or {}).get("payload") or {}
    return ApprovalView(
        str(Numbered(listed.key.case, firing.number)),
        str((firing.awaits or {}).get("key", "")),
        task.key,
        task.workflow_id,
        task.transition,
        str(said.get("agent", "")),
        str(said.get("tool", "")),
        said.get("arguments"),
        said.get("doubt"),
        task.roles,
        task.since,
        task.due_at,
    )

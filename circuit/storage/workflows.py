"""Published workflows. A version never changes and is known by its hash; a pointer names the current one.

All of it runs in a transaction of `Database.transaction`, under the row security of the tenant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Select, Text, any_, bindparam, column, func, select, text, true, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.errors import Conflict
from circuit.storage import rows
from circuit.storage.tables import agent, agent_version, prompt_version, resource, workflow, workflow_version

_Selected = Select[Any, Any, Any, Any, Any, Any]


class PromptText(Protocol):
    """The prompts of an agent."""

    @property
    def system(self) -> str: ...
    @property
    def user_template(self) -> str: ...
    @property
    def context_instructions(self) -> str: ...
    @property
    def capabilities(self) -> Mapping[str, str]: ...
    @property
    def engine(self) -> str: ...


class AgentVersion(Protocol):
    """What is stored of an agent that a workflow uses."""

    @property
    def id(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def document(self) -> Mapping[str, Any]: ...
    @property
    def prompt_hash(self) -> str: ...
    @property
    def prompts(self) -> PromptText: ...


class Amount(Protocol):
    """How much there is of a shared place."""

    @property
    def capacity(self) -> int: ...
    @property
    def interval_seconds(self) -> float | None: ...


class CompiledWorkflow(Protocol):
    """What is stored of a compiled workflow; storage knows no more of it than this."""

    @property
    def id(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def document(self) -> Mapping[str, Any]: ...
    @property
    def requires(self) -> Mapping[str, Any]: ...
    @property
    def agents(self) -> Mapping[str, AgentVersion]: ...
    @property
    def resources(self) -> Mapping[str, Amount]: ...
    @property
    def start_message(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a workflow. `document` keeps the order of its keys. `retired_at` is known of the current one:
    since then no cases begin."""

    workflow_id: str
    hash: str
    document: Mapping[str, Any]
    requires: Mapping[str, Any]
    published_at: datetime
    published_by: str
    retired_at: datetime | None = None


async def publish(connection: AsyncConnection, tenant: int, published: CompiledWorkflow, published_by: str) -> bool:
    """Store this version and those of its agents and prompts if they are new, and make it the current one.

    Returns whether the version is new. The same version published twice at the same time is new once. Raises `Conflict`
    where another workflow begins with the same message.
    """
    if published.start_message is not None:
        other = await started_by(connection, tenant, published.start_message)
        if other not in (None, published.id):
            raise Conflict(
                f"the message {published.start_message!r} starts cases of {other} already: `circuit retire {other}`,"
                " or give the message another name"
            )
    await publish_agents(connection, tenant, published.agents.values())
    new = await store(connection, tenant, published, published_by)
    for place in sorted(published.resources):
        await _set_capacity(connection, tenant, published.id, place, published.resources[place])
    pointer = insert(workflow).values(
        tenant_id=tenant, workflow_id=published.id, hash=published.hash, starts_on=published.start_message
    )
    await connection.execute(
        pointer.on_conflict_do_update(
            index_elements=["tenant_id", "workflow_id"],
            set_={
                "hash": pointer.excluded.hash,
                "updated_at": func.now(),
                "starts_on": pointer.excluded.starts_on,
            },
            where=workflow.c.hash != pointer.excluded.hash,
        )
    )
    return new


async def publish_agents(connection: AsyncConnection, tenant: int, published: Iterable[AgentVersion]) -> None:
    """Store these versions of agents and of their prompts if they are new, and make them the current ones."""
    # In the order of ids, so that two publications at a time never wait for each other in a circle.
    agents = sorted(published, key=lambda agent: agent.id)
    if agents:
        await connection.execute(
            insert(agent_version)
            .values([{"tenant_id": tenant, "agent_id": a.id, "hash": a.hash, "document": a.document} for a in agents])
            .on_conflict_do_nothing()
        )
        await _point(connection, tenant, agents)
        # A prompt belongs to its agent and has its id.
        prompts = [
            {"tenant_id": tenant, "prompt_id": a.id, "hash": a.prompt_hash, "document": _prompt_document(a.prompts)}
            for a in agents
        ]
        await connection.execute(insert(prompt_version).values(prompts).on_conflict_do_nothing())


async def store(connection: AsyncConnection, tenant: int, published: CompiledWorkflow, published_by: str) -> bool:
    """Store this version of a workflow alone, if it is new: it becomes nobody's current one, so that no list shows it.
    Returns whether it is new."""
    new = await connection.scalar(
        insert(workflow_version)
        .values(
            tenant_id=tenant,
            workflow_id=published.id,
            hash=published.hash,
            document=published.document,
            requires=published.requires,
            published_by=published_by,
        )
        .on_conflict_do_nothing()
        .returning(workflow_version.c.hash)
    )
    return new is not None


class Pointer(NamedTuple):
    """Which version of a workflow is the current one, and since when no new cases of it begin, if they do not."""

    hash: str
    retired_at: datetime | None


async def pointers(connection: AsyncConnection, tenant: int, wanted: Sequence[str]) -> dict[str, Pointer]:
    """Which versions of these workflows are the current ones, without their documents; there are no others."""
    found = await connection.execute(
        select(workflow.c.workflow_id, workflow.c.hash, workflow.c.retired_at).where(
            workflow.c.tenant_id == tenant, workflow.c.workflow_id == any_(bindparam("wanted", wanted, ARRAY(Text)))
        )
    )
    return {workflow_id: Pointer(*row) for workflow_id, *row in found}


async def current(connection: AsyncConnection, tenant: int, workflow_id: str) -> Version | None:
    """The current version of a workflow, or None if there is no such workflow."""
    rows = await _rows(
        connection, _current().where(workflow.c.tenant_id == tenant, workflow.c.workflow_id == workflow_id)
    )
    return rows[0] if rows else None


async def started_by(connection: AsyncConnection, tenant: int, message: str) -> str | None:
    """The id of the workflow that a message of this name starts, if one does."""
    table = workflow.c
    found = select(table.workflow_id).where(
        table.tenant_id == tenant, table.starts_on == message, table.retired_at.is_(None)
    )
    return await connection.scalar(found.order_by(table.workflow_id).limit(1))


async def by_hash(
    connection: AsyncConnection,
    tenant: int,
    workflow_id: str,
    hash: str,  # noqa: A002 - the column's name
) -> Version | None:
    """One version of a workflow, or None if it was never published."""
    table = workflow_version.c
    rows = await _rows(
        connection,
        _versions().where(table.tenant_id == tenant, table.workflow_id == workflow_id, table.hash == hash),
    )
    return rows[0] if rows else None


async def hashes(connection: AsyncConnection, tenant: int, workflow_id: str) -> list[str]:
    """The versions of a workflow, the newest first."""
    table = workflow_version.c
    found = await connection.execute(
        select(table.hash)
        .where(table.tenant_id == tenant, table.workflow_id == workflow_id)
        .order_by(table.published_at.desc(), table.hash)
    )
    return [version for (version,) in found]


async def list_current(
    connection: AsyncConnection, tenant: int, *, limit: int = 1000, after: str = ""
) -> list[Version]:
    """The current version of each workflow, by id, from the first id after `after`."""
    return await _rows(
        connection,
        _current()
        .where(workflow.c.tenant_id == tenant, workflow.c.workflow_id > after)
        .order_by(workflow.c.workflow_id)
        .limit(limit),
    )


async def list_versions(
    connection: AsyncConnection, tenant: int, workflow_ids: Sequence[str], *, limit: int
) -> list[Version]:
    """Up to `limit` versions of each of these workflows, the newest first."""
    table = workflow_version
    wanted = (
        func.unnest(bindparam("workflows", list(workflow_ids), type_=ARRAY(Text)))
        .table_valued(column("name", Text))
        .render_derived("wanted")
    )
    page = (
        _versions()
        .where(table.c.tenant_id == tenant, table.c.workflow_id == wanted.c.name)
        .order_by(table.c.published_at.desc(), table.c.hash)
        .limit(limit)
        .lateral("page")
    )
    query = select(page).select_from(wanted.join(page, true()))
    return await _rows(connection, query.order_by(page.c.workflow_id, page.c.published_at.desc(), page.c.hash))


_AGENTS = """
SELECT w.workflow_id, a.key AS agent_id, a.value AS document
FROM circuit.workflow w
JOIN circuit.workflow_version v ON v.tenant_id = w.tenant_id AND v.workflow_id = w.workflow_id AND v.hash = w.hash
CROSS JOIN LATERAL json_each(v.document -> 'agents') AS a
WHERE w.tenant_id = :tenant AND (w.workflow_id, a.key) > (:after_workflow, :after)
    AND (CAST(:workflow AS text) IS NULL OR w.workflow_id = :workflow)
ORDER BY w.workflow_id, a.key
LIMIT :limit
"""

_PLACE_AGENTS = """
SELECT w.workflow_id, a.number, a.value AS document
FROM circuit.workflow w
JOIN circuit.workflow_version v ON v.tenant_id = w.tenant_id AND v.workflow_id = w.workflow_id AND v.hash = w.hash
CROSS JOIN LATERAL json_array_elements(v.document -> 'place_agents') WITH ORDINALITY AS a (value, number)
WHERE w.tenant_id = :tenant AND (w.workflow_id, a.number) > (:after_workflow, :after)
    AND (CAST(:workflow AS text) IS NULL OR w.workflow_id = :workflow)
    AND (CAST(:place AS text) IS NULL OR a.value ->> 'place_id' = :place)
ORDER BY w.workflow_id, a.number
LIMIT :limit
"""


async def list_agents(
    connection: AsyncConnection,
    tenant: int,
    *,
    workflow_id: str | None = None,
    limit: int,
    after: tuple[str, str] = ("", ""),
) -> list[tuple[str, str, Mapping[str, Any]]]:
    """The agents of the current versions of workflows, by workflow and id."""
    given = {"tenant": tenant, "workflow": workflow_id, "limit": limit, "after_workflow": after[0], "after": after[1]}
    found = await connection.execute(text(_AGENTS), given)
    return [(workflow, agent, rows.document(document)) for workflow, agent, document in found]


async def list_place_agents(
    connection: AsyncConnection,
    tenant: int,
    *,
    workflow_id: str | None = None,
    place: str | None = None,
    limit: int,
    after: tuple[str, int] = ("", 0),
) -> list[tuple[str, int, Mapping[str, Any]]]:
    """The place agents of the current versions of workflows, in the order of their files, with their numbers there."""
    given: dict[str, Any] = {"tenant": tenant, "workflow": workflow_id, "place": place, "limit": limit}
    found = await connection.execute(text(_PLACE_AGENTS), {**given, "after_workflow": after[0], "after": after[1]})
    return [(workflow, number, rows.document(document)) for workflow, number, document in found]


async def retire(connection: AsyncConnection, tenant: int, workflow_id: str, *, retired: bool) -> bool | None:
    """Let no new cases of a workflow begin, or let them begin again. Returns whether that changed anything, or None if
    there is no such workflow."""
    mine = (workflow.c.tenant_id == tenant) & (workflow.c.workflow_id == workflow_id)
    other = workflow.c.retired_at.is_(None) if retired else workflow.c.retired_at.is_not(None)
    done = await connection.execute(
        update(workflow).where(mine, other).values(retired_at=func.now() if retired else None)
    )
    if done.rowcount:
        return True
    return None if await connection.scalar(select(workflow.c.hash).where(mine)) is None else False


async def _point(connection: AsyncConnection, tenant: int, agents: Sequence[AgentVersion]) -> None:
    """Make these the current versions of their agents."""
    pointer = insert(agent).values([{"tenant_id": tenant, "agent_id": a.id, "hash": a.hash} for a in agents])
    await connection.execute(
        pointer.on_conflict_do_update(
            index_elements=["tenant_id", "agent_id"],
            set_={"hash": pointer.excluded.hash, "updated_at": func.now()},
            where=agent.c.hash != pointer.excluded.hash,
        )
    )


async def _set_capacity(connection: AsyncConnection, tenant: int, workflow_id: str, place: str, amount: Amount) -> None:
    """Publishing says how much there is of a shared place, for the cases of every version."""
    statement = insert(resource).values(
        tenant_id=tenant,
        workflow_id=workflow_id,
        place=place,
        capacity=amount.capacity,
        interval_seconds=amount.interval_seconds,
    )
    given = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "workflow_id", "place"],
            set_={
                "capacity": given.capacity,
                "interval_seconds": given.interval_seconds,
                "updated_at": func.now(),
            },
            where=(resource.c.capacity != given.capacity)
            | resource.c.interval_seconds.is_distinct_from(given.interval_seconds),
        )
    )


def _prompt_document(prompts: PromptText) -> dict[str, Any]:
    return {
        "system": prompts.system,
        "user_template": prompts.user_template,
        "context_instructions": prompts.context_instructions,
        **({"capabilities": dict(prompts.capabilities)} if prompts.capabilities else {}),
        **({"engine": prompts.engine} if prompts.engine else {}),
    }


def _versions() -> _Selected:
    table = workflow_version.c
    return select(table.workflow_id, table.hash, table.document, table.requires, table.published_at, table.published_by)


def _current() -> Any:
    pointed = workflow_version.c
    return (
        _versions()
        .add_columns(workflow.c.retired_at)
        .join(
            workflow,
            (workflow.c.tenant_id == pointed.tenant_id)
            & (workflow.c.workflow_id == pointed.workflow_id)
            & (workflow.c.hash == pointed.hash),
        )
    )


async def _rows(connection: AsyncConnection, query: Any) -> list[Version]:
    return [Version(*row) for row in await connection.execute(query)]

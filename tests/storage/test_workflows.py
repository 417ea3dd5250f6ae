"""Publishing: versions by content, one pointer, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, text

from circuit.storage import workflows
from circuit.storage.database import Database
from circuit.storage.tables import agent_version, prompt_version


@dataclass(frozen=True)
class Prompts:
    system: str = "You review."
    user_template: str = "{input_data}"
    context_instructions: str = ""
    engine: str = ""
    capabilities: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Agent:
    id: str = "reviewer"
    hash: str = "a1"
    prompt_hash: str = "p1"
    document: Mapping[str, Any] = field(default_factory=lambda: {"id": "reviewer"})
    prompts: Prompts = field(default_factory=Prompts)


@dataclass(frozen=True)
class Compiled:
    hash: str
    id: str = "review"
    document: Mapping[str, Any] = field(default_factory=lambda: {"z": 1, "a": {"nul": "\0", "big": 2**53 + 1}})
    requires: Mapping[str, Any] = field(default_factory=dict)
    agents: Mapping[str, Agent] = field(default_factory=lambda: {"reviewer": Agent()})
    resources: Mapping[str, Any] = field(default_factory=dict)
    start_message: str | None = None


async def publish(database: Database, compiled: Compiled, tenant: int = 1) -> bool:
    async with database.transaction(tenant) as connection:
        return await workflows.publish(connection, tenant, compiled, "ada")


async def test_a_version_is_new_once_and_becomes_the_current_one(database: Database) -> None:
    assert await publish(database, Compiled("h1"))
    assert not await publish(database, Compiled("h1"))
    assert await publish(database, Compiled("h2"))
    async with database.transaction(1) as connection:
        found = await workflows.current(connection, 1, "review")
        first = await workflows.by_hash(connection, 1, "review", "h1")
    assert found is not None and (found.workflow_id, found.hash, found.published_by) == ("review", "h2", "ada")
    assert first is not None and first.hash == "h1"


async def test_an_older_version_can_be_made_current_again(database: Database) -> None:
    for name in ("h1", "h2", "h1"):
        await publish(database, Compiled(name))
    async with database.transaction(1) as connection:
        found = await workflows.current(connection, 1, "review")
    assert found is not None and found.hash == "h1"


async def test_a_document_comes_back_as_it_was(database: Database) -> None:
    compiled = Compiled("h1")
    await publish(database, compiled)
    async with database.transaction(1) as connection:
        found = await workflows.by_hash(connection, 1, "review", "h1")
    assert found is not None and found.document == compiled.document
    assert list(found.document) == ["z", "a"]


async def test_what_was_never_published_is_none(database: Database) -> None:
    async with database.transaction(1) as connection:
        assert await workflows.current(connection, 1, "review") is None
        assert await workflows.by_hash(connection, 1, "review", "h1") is None
        assert await workflows.list_current(connection, 1) == []


async def test_the_list_holds_each_workflow_once_by_id(database: Database) -> None:
    for name in ("zebra", "ant", "mole"):
        await publish(database, Compiled("h1", id=name))
        await publish(database, Compiled("h2", id=name))
    async with database.transaction(1) as connection:
        everything = await workflows.list_current(connection, 1)
        rest = await workflows.list_current(connection, 1, limit=1, after="ant")
    assert [(row.workflow_id, row.hash) for row in everything] == [("ant", "h2"), ("mole", "h2"), ("zebra", "h2")]
    assert [row.workflow_id for row in rest] == ["mole"]


async def test_agents_and_prompts_are_stored_once_a_version(database: Database) -> None:
    await publish(database, Compiled("h1"))
    await publish(database, Compiled("h2", agents={"reviewer": Agent(hash="a2")}))
    async with database.transaction(1) as connection:
        agents = (await connection.execute(select(agent_version.c.hash).order_by(agent_version.c.hash))).scalars().all()
        prompts = (await connection.execute(select(prompt_version.c.document))).scalars().all()
    assert list(agents) == ["a1", "a2"]
    assert [prompt["system"] for prompt in prompts] == ["You review."]


async def test_a_workflow_without_agents(database: Database) -> None:
    assert await publish(database, Compiled("h1", agents={}))
    async with database.transaction(1) as connection:
        assert await connection.scalar(select(func.count()).select_from(agent_version)) == 0


async def test_published_at_the_same_time_it_is_new_once(database: Database) -> None:
    outcomes = await asyncio.gather(*(publish(database, Compiled("h1")) for _ in range(8)))
    assert sorted(outcomes) == [False] * 7 + [True]


async def test_each_tenant_has_its_own(database: Database) -> None:
    connection = await database.raw()
    await connection.execute("INSERT INTO circuit.tenant (tenant_id, name) VALUES (2, 'other')")
    await connection.close()
    await publish(database, Compiled("h1"), tenant=1)
    assert await publish(database, Compiled("h1"), tenant=2)
    await publish(database, Compiled("h2"), tenant=2)
    async with database.transaction(1) as transaction:
        found = await workflows.current(transaction, 1, "review")
        foreign = await workflows.current(transaction, 2, "review")
        rows = await transaction.scalar(text("SELECT count(*) FROM circuit.workflow_version"))
    assert found is not None and found.hash == "h1"
    assert foreign is None and rows == 1

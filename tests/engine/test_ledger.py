"""The audit log on the engine itself: every door leaves an entry, and nobody changes one."""

from __future__ import annotations

import asyncpg
import pytest
from postgres import execute

from circuit.app import Circuit
from circuit.engine.ledger import LedgerEntry, Sought
from circuit.errors import Conflict, Forbidden, InvalidRequest
from circuit.security.origin import coming_from
from circuit.security.principal import LOCAL, Principal

WORKFLOW = """
workflow: desk
places: {open: {initial: true}, done: {terminal: true}}
transitions:
  close: {from_places: open, to_place: done, trigger: {type: manual}}
"""


async def entries(circuit: Circuit, **sought: str) -> list[LedgerEntry]:
    return [entry async for entry in circuit.engine.ledger.all(LOCAL, Sought(**sought))]


async def test_every_door_leaves_an_entry_and_what_is_refused_none(database_url: str) -> None:
    async with Circuit.open(database_url) as circuit:
        await circuit.load(WORKFLOW)
        clerk = Principal("clerk", roles=frozenset({"operator"}))
        with coming_from("203.0.113.5 /graphql"):
            case = await circuit.commands.start_case("desk", None, principal=clerk, key="once")
            # Asked again, it is the same case: nothing was done.
            assert await circuit.commands.start_case("desk", None, principal=clerk, key="once") == case
        other = circuit.key(await circuit.start("desk"))
        await circuit.fire(str(case), "close")
        await circuit.cancel(str(other))
        with pytest.raises(Conflict):
            await circuit.cancel(str(other))
        with pytest.raises(Forbidden):
            await circuit.commands.retire("desk", clerk)
        await circuit.commands.retire("desk", LOCAL)
        await circuit.commands.retire("desk", LOCAL)
        made = await circuit.engine.keys.create("deploy", ["viewer"], LOCAL)
        await circuit.engine.keys.revoke(made.row.id, LOCAL)

        found = await entries(circuit)
        assert [(one.subject, one.action, one.target) for one in found] == [
            ("local", "workflow.publish", "desk"),
            ("clerk", "case.start", str(case)),
            ("local", "case.start", str(other)),
            ("local", "case.fire", str(case)),
            ("local", "case.cancel", str(other)),
            ("local", "workflow.retire", "desk"),
            ("local", "key.create", made.row.id),
            ("local", "key.revoke", made.row.id),
        ]
        assert [one.origin for one in found[:3]] == ["local", "203.0.113.5 /graphql", "local"]
        assert found[1].details == {"workflow": "desk"}
        assert found[3].details["transition"] == "close"
        assert made.text not in str(found)
        assert sorted(one.at for one in found) == [one.at for one in found]

        # What is sought, and in pages.
        assert [one.action for one in await entries(circuit, action="key")] == ["key.create", "key.revoke"]
        assert [one.action for one in await entries(circuit, action="key.create")] == ["key.create"]
        assert len(await entries(circuit, target=str(case))) == 2
        assert len(await entries(circuit, subject="clerk")) == 1
        page = await circuit.engine.ledger.page(LOCAL, Sought(), 3)
        more = await circuit.engine.ledger.page(LOCAL, Sought(until=page[0].at), 100, before=page[-1].number)
        assert [one.number for one in [*page, *more]] == [one.number for one in reversed(found)]
        with pytest.raises(Forbidden):
            await circuit.engine.ledger.page(clerk, Sought(), 10)
        with pytest.raises(InvalidRequest):
            await circuit.engine.ledger.page(LOCAL, Sought(), 0)
        stranger = Principal("x", 2, frozenset({"admin"}))
        assert await circuit.engine.ledger.page(stranger, Sought(), 10) == []

    # The owner of the table cannot change it either.
    for statement in (
        "UPDATE circuit.audit_log SET subject = 'nobody'",
        "DELETE FROM circuit.audit_log",
        "TRUNCATE circuit.audit_log",
    ):
        with pytest.raises(asyncpg.PostgresError, match="only added to"):
            await execute(database_url, statement)

"""Cases with large payloads, through the whole of Circuit: whoever reads them sees no references, archived cases carry
theirs along, and an audit finds what is lost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import invariants
import pytest

from circuit.app import Circuit
from circuit.engine.archive.policy import Policy
from circuit.engine.archive.round import Archive
from circuit.engine.audit.inspection import inspect_at
from circuit.engine.migrator import Wanted
from circuit.engine.token_change import TokenChange
from circuit.errors import ArtefactLost
from circuit.security.principal import LOCAL
from circuit.storage import partitions
from circuit.storage.database import Database
from circuit.storage.payloads import MARK
from tests.api.driven import driven
from tests.cli.commanding import Command
from tests.cli.conftest import bare, circuit
from tests.engine.test_archive import LONG_AGO, NOW, OldIds, age

__all__ = ["bare", "circuit"]

DOCUMENT = "All that there is to know. " * 4_000
ANSWER = "My answer, at length. " * 2_000
SENT = "What a person had to add. " * 1_000

WORKFLOW = f"""
workflow: papers
places:
  asked: {{initial: true}}
  answered: {{}}
  signed: {{terminal: true}}
agents:
  writer:
    conversation: case
    llm_provider: {{type: scripted, model: one, responses: ["{ANSWER}"]}}
transitions:
  write:
    from_places: asked
    to_place: answered
    agent_execution: {{agent_id: writer, output_mapping: {{data.text: text}}}}
  sign:
    from_places: answered
    to_place: signed
    trigger: {{type: manual, form: {{type: object, properties: {{note: {{type: string}}}}}}}}
    output_mapping: {{data.note: form.note}}
"""
CALLER = """
workflow: caller
places: {begin: {initial: true}, end: {terminal: true}}
transitions:
  call:
    from_places: begin
    to_place: end
    action: {type: subworkflow, workflow: echo, output_mapping: {data.child: tokens}}
"""
ECHO = """
workflow: echo
places: {begin: {initial: true}, end: {terminal: true}}
transitions: {go: {from_places: begin, to_place: end}}
"""


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def written(opened: Circuit) -> str:
    """A case that waits for a signature, with a large document and a large answer."""
    await opened.load(WORKFLOW)
    case = await opened.start("papers", {"document": DOCUMENT, "n": 1})
    assert (await opened.wait(case)).status == "waiting"
    return case


def contents(rows: list[Any]) -> set[str]:
    return {json.loads(row["content"]) for row in rows}


async def test_every_reader_sees_the_values(database_url: str, plain: Any) -> None:
    async with driven(database_url) as server:
        opened = server.circuit
        case = await written(opened)
        kept = await plain.fetch("SELECT content FROM circuit.artefact")
        assert contents(kept) >= {DOCUMENT, ANSWER} and all(len(row["content"]) > 8_000 for row in kept)
        for table, column in (("token", "data"), ("history", "body"), ("firing", "request"), ("message", "parts")):
            [most] = await plain.fetchrow(f"SELECT max(octet_length({column}::text)) FROM circuit.{table}")
            assert most < 8_192, table
        # Python, as the CLI shows it too.
        view = await opened.case(case)
        assert view.tokens[0].data == {"document": DOCUMENT, "n": 1, "text": ANSWER}
        assert MARK not in repr(view.as_dict())
        was = await opened.at(case, 1)
        assert [token.data for token in was.tokens] == [{"document": DOCUMENT, "n": 1}]
        # GraphQL.
        shown = await server.ok(
            "query ($id: String!) { case(id: $id) { tokens { data } history { event } executions { executionId } } }",
            id=case,
        )
        assert shown["tokens"] == [{"data": {"document": DOCUMENT, "n": 1, "text": ANSWER}}]
        assert MARK not in repr(shown)
        # A fork begins with the values, of which it keeps nothing a second time, and goes on with a copy of what was
        # said, which outlives the case.
        before = await plain.fetchval("SELECT count(*) FROM circuit.artefact")
        fork = await opened.fork(case, changes=[TokenChange("data.n", 2)])
        assert (await opened.case(fork)).tokens[0].data == {"document": DOCUMENT, "n": 2, "text": ANSWER}
        assert await plain.fetchval("SELECT count(*) FROM circuit.artefact") == before
        said = await plain.fetch(
            "SELECT conversation_id, parts::text FROM circuit.message ORDER BY conversation_id, seq"
        )
        assert any(MARK in row["parts"] for row in said)
        assert sum(ANSWER in row["parts"] for row in said) == 1, "the copy, and it alone, is whole"
        # It comes to another version, and to its end.
        await opened.load(WORKFLOW.replace("answered: {}", "answered: {capacity: 9}"))
        moved = await opened.migrator.migrate(Wanted("papers"), principal=LOCAL)
        assert moved.moved == 2, moved
        await opened.fire(case, "sign", {"note": SENT})
        ended = await opened.wait(case)
        assert ended.status == "completed"
        assert ended.tokens[0].data == {"document": DOCUMENT, "n": 1, "text": ANSWER, "note": SENT}
        # One that another one opened.
        await opened.load(ECHO)
        await opened.load(CALLER)
        parent = await opened.start("caller", {"document": DOCUMENT})
        done = await opened.wait(parent)
        assert done.status == "completed" and DOCUMENT in repr(done.tokens[0].data)
    needs = await plain.fetch('SELECT DISTINCT b.requires FROM circuit."case" JOIN circuit.bucket b USING (bucket)')
    assert all("artefacts" in json.loads(row["requires"])["features"] for row in needs)
    await invariants.check(database_url)
    report = await inspect_at(database_url)
    assert report.clean, report.as_dict()


async def test_an_archived_case_brings_its_own_and_what_nobody_uses_goes(
    database: Database, database_url: str, plain: Any, tmp_path: Path
) -> None:
    connection = await database.raw()
    await partitions.ensure(connection, NOW - timedelta(weeks=10))
    await connection.close()
    async with Circuit.open(database_url) as opened:
        await opened.load(ECHO)
        [fresh] = [await opened.start("echo", {"document": DOCUMENT})]
        opened.commands._ids = OldIds()
        old = [await opened.start("echo", {"document": DOCUMENT, "own": f"{n} {ANSWER}"}) for n in range(2)]
        for case in (fresh, *old):
            assert (await opened.wait(case)).status == "completed"
    await age(plain)
    # A shared one, and one of each old case.
    assert await plain.fetchval("SELECT count(*) FROM circuit.artefact") == 3
    assert await plain.fetchval(f"SELECT count(*) FROM circuit.artefact_use_{LONG_AGO.suffix}") == 4
    told: list[str] = []
    shelf = Archive(database, tmp_path)
    [done] = await shelf.run(Policy(timedelta(weeks=6)), NOW, told.append)
    assert done.cases == 2 and any("2 artefacts" in line for line in told)
    assert contents(await plain.fetch("SELECT content FROM circuit.artefact")) == {DOCUMENT}
    await shelf.check()
    rows = (await shelf.show(Circuit.key(old[1])))["rows"]
    assert rows["token"][0]["data"] == {"document": DOCUMENT, "own": f"1 {ANSWER}"}
    assert MARK not in repr(rows) and "artefact" not in rows
    async with Circuit.open(database_url, worker=False) as opened:
        assert (await opened.case(fresh)).tokens[0].data == {"document": DOCUMENT}
    assert (await inspect_at(database_url)).clean


async def test_an_audit_finds_what_is_lost_wrong_or_not_kept(database_url: str, plain: Any) -> None:
    async with Circuit.open(database_url) as opened:
        case = await written(opened)
        other = await opened.start("papers", {"n": 1})
        await opened.wait(other)
    assert (await inspect_at(database_url)).clean
    document = "content::text LIKE '%All that there%'"
    await plain.execute(f"UPDATE circuit.artefact SET content = to_json('x' || (content #>> '{{}}')) WHERE {document}")
    report = await inspect_at(database_url)
    assert {(fault.invariant, fault.table) for fault in report.faults} == {("I3", "artefact")}
    assert "not what its hash says" in report.faults[0].message
    await plain.execute(f"DELETE FROM circuit.artefact WHERE {document}")
    report = await inspect_at(database_url)
    assert {fault.table for fault in report.faults} == {"artefact"} and "not there" in report.faults[0].message
    assert [str(key.case) for key in report.unchecked] == [case], "it spoils no other case"
    async with Circuit.open(database_url, worker=False) as opened:
        with pytest.raises(ArtefactLost, match="restore it from a backup"):
            await opened.case(case)
        assert (await opened.case(other)).status == "waiting"
    await plain.execute("DELETE FROM circuit.artefact_use WHERE case_id = $1", Circuit.key(other).case)
    report = await inspect_at(database_url, case=Circuit.key(other).case, tenant=1)
    assert {fault.table for fault in report.faults} == {"token", "history", "message", "journal"}
    assert all("not kept for the case" in fault.message for fault in report.faults)


ACTIONS = """
from circuit.actions.functions import action

@action
def grow(size: int) -> dict[str, str]:
    return {"text": "x" * size}
"""
GROWING = """
workflow: growing
places: {begin: {initial: true}, end: {terminal: true}}
transitions:
  go:
    from_places: begin
    to_place: end
    action: {type: function, name: grow, input_mapping: {size: data.size}, output_mapping: {data.text: text}}
"""


def test_the_commands_show_values_and_a_payload_has_an_end(circuit: Command, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(ACTIONS)
    file = tmp_path / "growing.yaml"
    file.write_text(GROWING)
    run = ("run", file, "--actions", tmp_path / "own.py", "--json")
    done = circuit(*run, "--set", "data.size=1000000")
    assert done.code == 0, done.err + done.out
    assert (done.code, done.json["tokens"][0]["data"]["text"]) == (0, "x" * 1_000_000)
    shown = circuit("show", done.json["case_id"], "--json").json
    assert shown["tokens"][0]["data"]["text"] == "x" * 1_000_000 and MARK not in repr(shown)
    late = circuit(*run, "--set", "data.size=100000000")
    assert late.code == 1
    [incident] = late.json["incidents"]
    assert incident["code"] == "invalid_output" and "at most 4194304 are taken" in incident["message"]
    assert circuit("fsck").code == 0

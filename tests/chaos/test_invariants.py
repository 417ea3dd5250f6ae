"""The invariants find faults that are planted: checks that never failed would prove nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import invariants
import pytest

from circuit.app import Circuit

WORKFLOW = """
workflow: planted
places: {begin: {initial: true}, middle: {}, end: {terminal: true}, waiting: {}}
agents:
  speaker:
    name: Speaker
    description: Speaks.
    llm_provider: {type: scripted, model: any, responses: ["a few words"]}
    prompts: {user_template: "Say {token_id}"}
transitions:
  speak: {from_places: begin, to_place: middle, agent_execution: {agent_id: speaker}}
  finish: {from_places: middle, to_place: end, conditions: ["!has(data.stay)"]}
  stay: {from_places: middle, to_place: waiting, conditions: ["has(data.stay)"]}
  leave: {from_places: waiting, to_place: end, trigger: {type: manual}}
"""

LARGE = "a word or two " * 1_000


@pytest.fixture
async def plain(database_url: str, tmp_path: Path) -> AsyncIterator[Any]:
    """A connection past all triggers, to a database with one case that has ended and one that waits."""
    async with Circuit.open(database_url) as circuit:
        workflow = await circuit.load(WORKFLOW)
        ids = [await circuit.start(workflow.id, data) for data in ({}, {"stay": True, "document": LARGE})]
        views = await asyncio.gather(*(circuit.wait(case) for case in ids))
        assert [view.status for view in views] == ["completed", "waiting"]
    await invariants.check(database_url)
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET session_replication_role = replica")
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        pytest.param("DELETE FROM circuit.token WHERE place = 'end'", "I1", id="a token is gone"),
        pytest.param("UPDATE circuit.token SET version = version + 1", "I1", id="a version that nothing produced"),
        pytest.param("UPDATE circuit.token SET place = 'middle' WHERE place = 'waiting'", "I1", id="another place"),
        pytest.param(
            "UPDATE circuit.history SET body = jsonb_set(body::jsonb, '{consumed}', '[]')::json"
            " WHERE transition = 'speak' AND kind = 'transition_fired'",
            "I1",
            id="against the arcs",
        ),
        pytest.param(
            "INSERT INTO circuit.history SELECT tenant_id, case_id, seq + 100, kind, at, transition, firing, body"
            " FROM circuit.history WHERE kind = 'transition_fired' AND firing IS NOT NULL",
            "I1",
            id="consumed twice",
        ),
        pytest.param(
            "INSERT INTO circuit.history SELECT tenant_id, case_id, seq + 100, kind, at, transition, firing, body"
            " FROM circuit.history WHERE kind = 'transition_fired' AND firing IS NOT NULL",
            "I2: firing",
            id="completed twice",
        ),
        pytest.param("DELETE FROM circuit.history WHERE seq = 2", "I2: case", id="a gap in the history"),
        pytest.param("UPDATE circuit.firing SET state = 'failed'", "I2: firing", id="a firing that says otherwise"),
        pytest.param(
            "UPDATE circuit.\"case\" SET owner = (SELECT id FROM circuit.worker LIMIT 1) WHERE status = 'waiting'",
            "I2: case",
            id="owned by the dead",
        ),
        pytest.param(
            "UPDATE circuit.token SET reserved_by = 1 WHERE place = 'waiting'", "I3: token", id="held by none"
        ),
        pytest.param(
            "UPDATE circuit.firing SET state = 'running' WHERE case_id IN"
            " (SELECT case_id FROM circuit.\"case\" WHERE status = 'waiting')",
            "I3: live firing",
            id="holds nothing",
        ),
        pytest.param(
            "UPDATE circuit.\"case\" SET status = 'running' WHERE status = 'waiting'", "I3: case", id="forgotten"
        ),
        pytest.param("DELETE FROM circuit.stream_event WHERE seq = 1", "I5", id="a gap in a stream"),
        pytest.param("DELETE FROM circuit.stream_event WHERE type = 'completed'", "I5", id="no terminal frame"),
        pytest.param("UPDATE circuit.\"case\" SET status = 'completed'", "I6", id="over without an end"),
        pytest.param("UPDATE circuit.execution SET status = 'running'", "I6", id="runs after the end"),
        pytest.param(
            "INSERT INTO circuit.history SELECT tenant_id, case_id, 2000, 'firing_resumed', at, transition, firing,"
            " '{\"start\": 2}' FROM circuit.history WHERE kind = 'firing_begun';"
            "INSERT INTO circuit.stream_event SELECT tenant_id, case_id, firing, 1, seq + 100, type, at, frame"
            " FROM circuit.stream_event",
            "I2: start 1 of execution",
            id="an old start writes",
        ),
        pytest.param(
            "INSERT INTO circuit.ready (tenant_id, case_id, due_at) SELECT tenant_id, case_id, now() - interval '1 h'"
            " FROM circuit.\"case\" WHERE status = 'waiting'",
            "I4: case",
            id="due and not looked at",
        ),
        pytest.param(
            "INSERT INTO circuit.command (tenant_id, case_id, command_id, kind, payload, principal, created_at)"
            " SELECT tenant_id, case_id, gen_random_uuid(), 'retry', '{}', '{}', now() - interval '1 h'"
            " FROM circuit.\"case\" WHERE status = 'waiting'",
            "I4: the command",
            id="asked and not answered",
        ),
        pytest.param("DELETE FROM circuit.artefact", "I3: token.data", id="a large value is gone"),
        pytest.param("DELETE FROM circuit.artefact_use", "I3: history.body", id="a large value that nobody keeps"),
        pytest.param(
            "UPDATE circuit.artefact SET content = to_json(content #>> '{}' || '!')",
            "I3: the artefact",
            id="a large value that is another",
        ),
        pytest.param('UPDATE circuit."case" SET next_firing = 1', "I7: case", id="a number that would come again"),
        pytest.param("UPDATE circuit.firing SET start = 5", "I7: firing", id="starts that nobody saw"),
        pytest.param(
            'UPDATE circuit.firing SET request = \'{"consumed": [], "refreshed": [{"number": 1}], "due": "noon"}\';'
            "INSERT INTO circuit.firing SELECT (jsonb_populate_record(f, jsonb_build_object('number', 100))).*"
            " FROM circuit.firing f",
            "I8",
            id="a time with two runs",
        ),
        pytest.param(
            "INSERT INTO circuit.journal SELECT tenant_id, case_id, firing, 7, step, value, at FROM circuit.journal",
            "I9",
            id="the answer of an attempt that never was",
        ),
        pytest.param(
            "INSERT INTO circuit.worker_lease (worker_id, expires_at) SELECT id, now() FROM circuit.worker",
            "I10",
            id="a lease of the dead",
        ),
    ],
)
async def test_a_planted_fault_is_found(plant: str, found: str, plain: Any, database_url: str) -> None:
    for statement in plant.split(";"):
        assert not (await plain.execute(statement)).endswith(" 0"), "nothing was planted"
    with pytest.raises(AssertionError) as raised:
        await invariants.check(database_url)
    assert any(line.startswith(found) for line in str(raised.value).splitlines()), raised.value

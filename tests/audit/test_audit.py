"""`circuit fsck` names the rows that were tampered with, and finds nothing in a database that is at work."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from postgres import Server, execute

from circuit.app import Circuit
from circuit.cli.narration import Narrator
from circuit.engine.audit.inspection import Report, inspect_at
from circuit.errors import SchemaMismatch
from tests.cli.commanding import Command

WORKFLOW = """
workflow: planted
budget: {tokens: 1000000}
places:
  begin: {initial: true}
  middle: {}
  end: {terminal: true}
  waiting: {}
  odd: {}
agents:
  speaker:
    name: Speaker
    description: Speaks.
    llm_provider: {type: scripted, model: any, responses: ["a few words"]}
    prompts: {user_template: "Say {token_id}"}
    llm_config: {max_tokens: 100}
transitions:
  speak: {from_places: begin, to_place: middle, agent_execution: {agent_id: speaker}}
  finish: {from_places: middle, to_place: end, conditions: ["!has(data.stay) && !has(data.odd)"]}
  stay: {from_places: middle, to_place: waiting, conditions: ["has(data.stay)"]}
  clash: {from_places: middle, to_place: odd, agent_execution: {agent_id: speaker, input_mapping: {x: data.none}},
          conditions: ["has(data.odd)"]}
  leave: {from_places: waiting, to_place: end, trigger: {type: manual}}
"""
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def template(postgres_server: Server, migrated_template: str) -> Iterator[str]:
    """A database with a case that has ended, one that waits and one with an incident; nobody works on it."""
    name = "audit_template"
    url = postgres_server.url(name)

    async def prepare() -> None:
        await execute(postgres_server.url(), f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
        async with Circuit.open(url) as circuit:
            workflow = await circuit.load(WORKFLOW, allow_unsound=True)
            ids = [await circuit.start(workflow.id, data) for data in ({}, {"stay": True}, {"odd": 1})]
            views = await asyncio.gather(*(circuit.wait(case) for case in ids))
        assert [view.status for view in views] == ["completed", "waiting", "attention"]
        assert (await inspect_at(url)).as_dict() | {"events": 0} == {
            "clean": True, "cases": 3, "events": 0, "erased": 0, "found": 0, "faults": [], "unchecked": [], "notes": []
        }  # fmt: skip

    asyncio.run(prepare())
    yield name
    asyncio.run(execute(postgres_server.url(), f"DROP DATABASE {name}"))


@pytest.fixture
async def url(postgres_server: Server, template: str) -> AsyncIterator[str]:
    """A copy of the template."""
    name = f"audit_{next(_numbers)}"
    await execute(postgres_server.url(), f"CREATE DATABASE {name} STRATEGY file_copy TEMPLATE {template}")
    yield postgres_server.url(name)
    await execute(postgres_server.url(), f"DROP DATABASE {name} WITH (FORCE)")


async def plant(url: str, statement: str) -> None:
    """Change what no user may change: past all triggers."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        assert not (await connection.execute(statement)).endswith(" 0"), "nothing was planted"
    finally:
        await connection.close()


def found(report: Report) -> set[tuple[str, str]]:
    return {(fault.invariant, fault.table) for fault in report.faults}


OF_WAITING = "case_id IN (SELECT case_id FROM circuit.\"case\" WHERE status = 'waiting')"
OF_ENDED = "case_id IN (SELECT case_id FROM circuit.\"case\" WHERE status = 'completed')"
AGAIN = (
    "INSERT INTO circuit.history SELECT tenant_id, case_id, seq + 100, kind, at, transition, firing, body"
    " FROM circuit.history WHERE kind = 'transition_fired' AND firing IS NOT NULL"
)
DEAD = (
    "INSERT INTO circuit.worker (id, host, boot_id, pid, pid_started, fenced)"
    " VALUES (gen_random_uuid(), 'h', 'b', 1, 1, true)"
)

PLANTS = [
    pytest.param("DELETE FROM circuit.token WHERE place = 'end'", ("I1", "token"), id="a token is gone"),
    pytest.param("UPDATE circuit.token SET version = version + 1", ("I1", "token"), id="a version nobody produced"),
    pytest.param("UPDATE circuit.token SET place = 'middle' WHERE place = 'waiting'", ("I1", "token"), id="elsewhere"),
    pytest.param("UPDATE circuit.token SET data = '{\"a\": 1}' WHERE place = 'end'", ("I1", "token"), id="other data"),
    pytest.param("UPDATE circuit.token SET metadata = '{\"a\": 1}'", ("I1", "token"), id="other metadata"),
    pytest.param("UPDATE circuit.token SET entered_at = now()", ("I1", "token"), id="entered at another time"),
    pytest.param(
        "INSERT INTO circuit.token SELECT tenant_id, case_id, 99, 1, place, data, metadata, entered_at"
        " FROM circuit.token",
        ("I1", "token"),
        id="a token out of nowhere",
    ),
    pytest.param(
        "UPDATE circuit.history SET body = jsonb_set(body::jsonb, '{consumed}', '[]')::json"
        " WHERE transition = 'speak' AND kind = 'transition_fired'",
        ("I1", "history"),
        id="against the arcs",
    ),
    pytest.param(
        "UPDATE circuit.history SET body = jsonb_set(body::jsonb, '{produced,0,version}', '7')::json"
        " WHERE kind = 'transition_fired'",
        ("I1", "history"),
        id="a version was skipped",
    ),
    pytest.param(AGAIN, ("I1", "history"), id="consumed twice"),
    pytest.param(AGAIN, ("I2", "history"), id="completed twice"),
    pytest.param("DELETE FROM circuit.history WHERE seq = 2", ("I2", "history"), id="a gap in the history"),
    pytest.param(f"DELETE FROM circuit.history WHERE {OF_WAITING}", ("I2", "history"), id="no history"),
    pytest.param("UPDATE circuit.firing SET state = 'failed'", ("I2", "firing"), id="a firing says otherwise"),
    pytest.param("UPDATE circuit.firing SET attempt = 4", ("I2", "firing"), id="an attempt nobody made"),
    pytest.param("UPDATE circuit.firing SET start = 4", ("I2", "firing"), id="a start nobody made"),
    pytest.param("DELETE FROM circuit.firing", ("I2", "firing"), id="a firing is gone"),
    pytest.param("DELETE FROM circuit.execution", ("I2", "execution"), id="an execution is gone"),
    pytest.param(
        "UPDATE circuit.execution SET status = 'failed'", ("I2", "execution"), id="an execution says otherwise"
    ),
    pytest.param("UPDATE circuit.incident SET resolved_at = now()", ("I2", "incident"), id="resolved by nobody"),
    pytest.param("DELETE FROM circuit.incident", ("I2", "incident"), id="an incident is gone"),
    pytest.param(
        f"WITH dead AS ({DEAD} RETURNING id) UPDATE circuit.\"case\" SET owner = id FROM dead WHERE status = 'waiting'",
        ("I2", "case"),
        id="owned by a fenced worker",
    ),
    pytest.param(
        "UPDATE circuit.\"case\" SET owner = gen_random_uuid() WHERE status = 'waiting'",
        ("I3", "case"),
        id="owned by none",
    ),
    pytest.param("UPDATE circuit.token SET reserved_by = 1", ("I3", "token"), id="held by none"),
    pytest.param(
        "UPDATE circuit.\"case\" SET status = 'running' WHERE status = 'waiting'", ("I3", "case"), id="forgotten"
    ),
    pytest.param(
        f"UPDATE circuit.firing SET state = 'offered' WHERE {OF_WAITING}", ("I3", "firing"), id="nobody will start it"
    ),
    pytest.param(
        "INSERT INTO circuit.command (tenant_id, case_id, command_id, kind, payload, principal)"
        f" SELECT tenant_id, case_id, gen_random_uuid(), 'cancel', '{{}}', '{{}}' FROM circuit.\"case\""
        f" WHERE {OF_WAITING}",
        ("I3", "command"),
        id="a command nobody will apply",
    ),
    pytest.param(DEAD.replace("true", "false"), ("I3", "worker"), id="no lease"),
    pytest.param("DELETE FROM circuit.stream_event WHERE seq = 1", ("I5", "stream_event"), id="a gap in a stream"),
    pytest.param("DELETE FROM circuit.stream_event WHERE type = 'completed'", ("I5", "stream_event"), id="no end"),
    pytest.param("UPDATE circuit.stream_event SET firing = 77", ("I5", "stream_event"), id="frames of no execution"),
    pytest.param("UPDATE circuit.\"case\" SET status = 'failed'", ("I6", "case"), id="over without an end"),
    pytest.param(
        f"UPDATE circuit.execution SET status = 'running' WHERE {OF_ENDED}", ("I6", "execution"), id="outlives"
    ),
    pytest.param(f"UPDATE circuit.firing SET state = 'running' WHERE {OF_ENDED}", ("I6", "firing"), id="lives on"),
    pytest.param(
        f'UPDATE circuit."case" SET owner = gen_random_uuid() WHERE {OF_ENDED}',
        ("I6", "case"),
        id="owned after its end",
    ),
    pytest.param(
        f'UPDATE circuit."case" SET finished_at = now() WHERE {OF_ENDED}', ("I6", "case"), id="ended at another time"
    ),
    pytest.param('UPDATE circuit."case" SET next_token = 50', ("I7", "case"), id="a counter that counts nothing"),
    pytest.param('UPDATE circuit."case" SET next_firing = 50', ("I7", "case"), id="firings that never were"),
    pytest.param('UPDATE circuit."case" SET started_at = now()', ("I7", "case"), id="started at another time"),
    pytest.param(
        'UPDATE circuit."case" SET fired = \'{"finish": 9}\', fired_seq = 3', ("I7", "case"), id="fired more often"
    ),
    pytest.param(
        "INSERT INTO circuit.ready (bucket, tenant_id, case_id, due_at)"
        f' SELECT bucket + 1, tenant_id, case_id, now() FROM circuit."case" WHERE {OF_WAITING}',
        ("I4", "ready"),
        id="in another bucket",
    ),
    pytest.param("UPDATE circuit.budget SET spent_tokens = 1", ("I7", "budget"), id="spent and not counted"),
    pytest.param(
        "UPDATE circuit.budget SET spent_tokens = 2000000, updated_at = since", ("I9", "budget"), id="beyond its budget"
    ),
    pytest.param(
        "UPDATE circuit.firing SET request = request || jsonb_build_object("
        "'due', '2026-01-01T00:00:00+00:00', 'refreshed', '[{\"number\": 1, \"entered_at\": \"x\"}]'::jsonb),"
        f" number = CASE WHEN number = 1 THEN 1 ELSE number END WHERE {OF_ENDED};"
        " INSERT INTO circuit.firing SELECT tenant_id, case_id, 2, transition, state, attempt, start, crashes, request"
        f" FROM circuit.firing WHERE {OF_ENDED}",
        ("I8", "firing"),
        id="run twice when it was due once",
    ),
    pytest.param("UPDATE circuit.journal SET firing = 77", ("I9", "journal"), id="an answer for no firing"),
    pytest.param("UPDATE circuit.journal SET attempt = 77", ("I9", "journal"), id="an answer before its attempt"),
    pytest.param(f'DELETE FROM circuit."case" WHERE {OF_ENDED}', ("I10", "history"), id="rows of no case"),
    pytest.param(
        "INSERT INTO circuit.worker_lease VALUES (gen_random_uuid(), now())",
        ("I10", "worker_lease"),
        id="a stray lease",
    ),
]


@pytest.mark.parametrize(("statement", "expected"), PLANTS)
async def test_a_planted_fault_is_named(statement: str, expected: tuple[str, str], url: str) -> None:
    await plant(url, statement)
    report = await inspect_at(url)
    assert expected in found(report), [str(fault) for fault in report.faults]
    [fault, *_] = [one for one in report.faults if (one.invariant, one.table) == expected]
    assert fault.message and fault.remedy and fault.key
    json.dumps(report.as_dict())


async def test_an_enabled_transition_that_nobody_fires_is_named(url: str) -> None:
    """The marking and the history agree, and still the case should have gone on."""
    await plant(
        url,
        "UPDATE circuit.token SET place = 'middle', data = '{}' WHERE place = 'waiting'",
    )
    await plant(
        url,
        'UPDATE circuit.history SET body = replace(replace(body::text, \'"place":"waiting","data":{"stay":true}\','
        ' \'"place":"middle","data":{}\'), \'"place":"waiting"\', \'"place":"middle"\')::json'
        f" WHERE transition = 'stay' AND {OF_WAITING}",
    )
    report = await inspect_at(url)
    assert ("I4", "case") in found(report), [str(fault) for fault in report.faults]


async def test_a_case_that_cannot_be_read_is_said_and_spoils_no_other(url: str) -> None:
    await plant(url, f"UPDATE circuit.history SET kind = 'unheard_of' WHERE seq = 2 AND {OF_WAITING}")
    report = await inspect_at(url)
    [reason] = report.unchecked.values()
    assert "unheard_of" in reason and report.cases == 3 and not report.clean and not report.found
    assert "a later one wrote it" in reason


async def test_an_event_of_a_later_release_is_passed_over_by_who_shows_and_refused_by_who_replays(url: str) -> None:
    await plant(url, f"UPDATE circuit.history SET kind = 'unheard_of' WHERE seq = 2 AND {OF_WAITING}")
    async with Circuit.open(url) as circuit:
        [case] = [str(one.key) for one in await circuit.cases(status="waiting")]
        told = (await circuit.case(case)).history
        assert told[1].as_dict().keys() == {"seq", "kind", "at"} and told[1].kind == "unheard_of"
        lines = [line.text for one in told for line in Narrator().event(one.at, one.event)]
        assert [line for line in lines if "later release" in line] == [
            "unheard_of: a later release wrote this, and can say what it is"
        ]
        assert (await circuit.at(case, 1)).marking == {"begin": 1}
        for read in (circuit.at(case, 2), circuit.fork(case)):
            with pytest.raises(SchemaMismatch, match=r"event 2 of case .* 'unheard_of', which this release does not"):
                await read
        # Who works on the case asks for none of it.
        assert (await circuit.fire(case, "leave")).state == "applied"
        assert (await circuit.wait(case)).status == "completed"


async def test_a_version_that_is_not_stored(url: str) -> None:
    await plant(url, "DELETE FROM circuit.workflow_version")
    report = await inspect_at(url)
    assert len(report.unchecked) == 3 and "not stored" in next(iter(report.unchecked.values()))
    assert not report.found, "what needs no workflow is compared all the same, and is right"


async def test_one_case_one_tenant_or_a_share(url: str) -> None:
    await plant(url, "UPDATE circuit.token SET place = 'middle' WHERE place = 'waiting'")
    connection = await asyncpg.connect(url)
    cases = {
        row["status"]: row["case_id"] for row in await connection.fetch('SELECT status, case_id FROM circuit."case"')
    }
    await connection.close()
    one = await inspect_at(url, tenant=1, case=cases["completed"])
    assert (one.cases, one.found) == (1, 0)
    other = await inspect_at(url, tenant=1, case=cases["waiting"])
    assert (other.cases, {fault.key["case_id"] for fault in other.faults}) == (1, {str(cases["waiting"])})
    assert (await inspect_at(url, tenant=1)).cases == 3
    assert (await inspect_at(url, tenant=2)).cases == 0
    shares = [(await inspect_at(url, share=0.5, seed=seed)).cases for seed in range(8)]
    assert min(shares) < 3 and max(shares) > 0


async def test_a_long_history_is_read_in_pages(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from circuit.storage import audit

    monkeypatch.setattr(audit, "PAGE_EVENTS", 2)
    monkeypatch.setattr(audit, "PAGE_CASES", 2)
    report = await inspect_at(url)
    assert (report.cases, report.found, report.clean) == (3, 0, True)


async def test_a_database_at_work_is_clean_all_the_time(database_url: str) -> None:
    """Two workers, cases that come and go, and audits meanwhile: no false alarm."""
    passes: list[Report] = []
    async with Circuit.open(database_url) as first, Circuit.open(database_url) as second:
        workflow = await first.load(WORKFLOW, allow_unsound=True)
        started = asyncio.gather(
            *(
                (first, second)[number % 2].start(workflow.id, ({}, {"stay": True}, {"odd": 1})[number % 3])
                for number in range(60)
            )
        )
        while not started.done() or len(passes) < 5:
            passes.append(await inspect_at(database_url))
        ids = await started
        waiting = [case for number, case in enumerate(ids) if number % 3 == 1]
        await asyncio.gather(*(first.wait(case) for case in ids))
        leaving = asyncio.gather(*(second.fire(case, "leave") for case in waiting))
        while not leaving.done():
            passes.append(await inspect_at(database_url))
        await leaving
        passes.append(await inspect_at(database_url))
    assert [str(fault) for report in passes for fault in report.faults] == []
    assert all(report.clean for report in passes)
    assert passes[-1].cases == 60


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_found(bare: Command, url: str) -> None:
    clean = bare("fsck", CIRCUIT_DATABASE_URL=url)
    assert clean.code == 0, clean
    assert "3 cases" in clean.out and "no fault" in clean.out
    asyncio.run(plant(url, "DELETE FROM circuit.token WHERE place = 'end'"))
    broken = bare("fsck")
    assert broken.code == 1
    assert "I1: token (tenant_id=1, case_id=" in broken.out and "what to do: " in broken.out
    told = bare("fsck", "--json")
    assert told.code == 1
    assert told.json["faults"][0]["table"] == "token" and told.json["found"] == 1
    case = told.json["faults"][0]["key"]["case_id"]
    assert bare("fsck", "--case", case).code == 1
    assert bare("fsck", "--tenant", "7").code == 0
    assert bare("fsck", "--case", "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11").code == 2


def test_what_cannot_be_checked(bare: Command, empty_database_url: str, url: str) -> None:
    unreachable = bare("fsck", "--json")
    assert (unreachable.code, unreachable.json["error"]["code"]) == (3, "database_unreachable")
    empty = bare("fsck", CIRCUIT_DATABASE_URL=empty_database_url)
    assert empty.code == 3 and "no tables of Circuit" in empty.err
    asyncio.run(execute(empty_database_url, "CREATE TABLE somebody_elses (id int)"))
    assert bare("fsck").code == 3
    newer = "UPDATE circuit.alembic_version SET version_num = '9999'"
    asyncio.run(execute(url, newer, "UPDATE circuit.compatibility SET floor = '9999'"))
    newer = bare("fsck", CIRCUIT_DATABASE_URL=url)
    assert newer.code == 3 and "newer release" in newer.err

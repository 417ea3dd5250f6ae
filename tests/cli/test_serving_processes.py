"""`circuit serve --workers`: real processes that are lost, replaced, and end with the server; and logs for programs."""

from __future__ import annotations

import json
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from circuit.errors import DatabaseUnreachable
from circuit.ids import CaseKey, Numbered, uuid7
from circuit.observability.logs import AWAY_SECONDS, AboutFilter, AwayFilter, JSONFormatter, about
from tests.cli.commanding import PROCESS_SECONDS as SECONDS
from tests.cli.commanding import Command, Spawn, Spawned, scripted_workflow
from tests.eventually import eventually


def workers_of(server: Spawned) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for child in psutil.Process(server.pid).children():
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if "--supervised" in child.cmdline():
                found.append(child)
    return found


def figures_in(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    [found] = [one.value for one in samples if one.name == name and one.labels == labels]
    return found


async def test_worker_processes_work_are_replaced_and_end_with_the_server(spawned: Spawn, database_url: str) -> None:
    async def working() -> int:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval(
                "SELECT count(*) FROM circuit.worker JOIN circuit.worker_lease ON worker_id = id"
                " WHERE NOT fenced AND expires_at > now()"
            )
        finally:
            await connection.close()

    async def two() -> bool:
        return await working() == 2

    server = spawned("serve", "--port", "0", "--workers", "2", CIRCUIT_DATABASE_URL=database_url)
    ready = server.read_until(b"circuit serve is ready at")
    await eventually(two, within=SECONDS)
    lost = workers_of(server)[0]
    lost.kill()
    await eventually(
        lambda: len(workers_of(server)) == 2 and lost.pid not in {one.pid for one in workers_of(server)}, within=SECONDS
    )
    # The server itself works on nothing, and the case ends all the same.
    url = ready.split()[-1].decode()
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        asked = {"model": "scripted:x", "messages": [{"role": "user", "content": "x"}]}
        answer = await client.post(f"{url}/v1/chat/completions", json=asked)
        assert answer.json()["choices"][0]["finish_reason"] == "stop"
        # Its figures come from the process that did it; the other one tells its own as soon as it is up.
        told: list[Sample] = []

        async def both() -> bool:
            told[:] = figures_in((await client.get(f"{url}/metrics")).text)
            counted = any(one.name == "circuit_executions_ended_total" and one.value for one in told)
            return counted and {one.labels["worker"] for one in told if one.name == "circuit_held_cases"} == {"1", "2"}

        await eventually(both, within=SECONDS)
    [did] = [one.labels["worker"] for one in told if one.name == "circuit_provider_calls_total"]
    mine = [one for one in told if one.labels.get("worker") == did]
    asked = {"provider": "scripted", "model": "x", "worker": did}
    assert value(mine, "circuit_provider_calls_total", **asked, outcome="ok") == 1
    assert value(mine, "circuit_provider_seconds_count", **asked) == 1
    assert value(mine, "circuit_provider_first_seconds_bucket", **asked, le="+Inf") == 1
    assert value(mine, "circuit_tokens_total", **asked, type="output") > 0
    assert value(mine, "circuit_executions_ended_total", worker=did, outcome="completed") == 1
    assert value(mine, "circuit_firings_total", worker=did, kind="acting") == 1
    left = workers_of(server)
    server.signal(signal.SIGTERM)
    rest = server.rest()
    assert server.status == 0, rest.decode()
    assert b"Traceback" not in rest
    assert not [one for one in left if one.is_running()]

    # A worker that stands alone is asked itself.
    alone = spawned("worker", "--port", "0", CIRCUIT_DATABASE_URL=database_url)
    url = alone.read_until(b"circuit worker answers at").split()[-1].decode()
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        ready = (await client.get(f"{url}/ready")).json()
        assert ready["status"] == "ok" and ready["worker"]
        told = figures_in((await client.get(f"{url}/metrics")).text)
        assert value(told, "circuit_workers") == 1 and value(told, "circuit_held_cases") == 0
        assert (await client.post(f"{url}/graphql", json={})).status_code == 404
    alone.signal(signal.SIGTERM)
    rest = alone.rest()
    assert alone.status == 0 and b"Traceback" not in rest, rest.decode()

    # A server that is killed has no time to end anybody: its workers see for themselves that it is gone.
    server = spawned("serve", "--port", "0", "--workers", "1", CIRCUIT_DATABASE_URL=database_url)
    server.read_until(b"circuit serve is ready at")
    await eventually(lambda: workers_of(server), within=SECONDS, what="its worker")
    [left_over] = workers_of(server)
    await server.kill()
    await eventually(lambda: not left_over.is_running() or left_over.status() == psutil.STATUS_ZOMBIE, within=SECONDS)


def test_a_line_of_the_log_is_one_object_that_says_what_it_is_about() -> None:
    case = CaseKey(1, uuid7(1, 1))

    def line(message: str, *arguments: object, fault: bool = False) -> dict[str, Any]:
        try:
            raise ValueError("inside") if fault else KeyError
        except (ValueError, KeyError):
            info = sys.exc_info() if fault else None
        record = logging.LogRecord("circuit.x", logging.WARNING, "", 1, message, arguments, info)
        AboutFilter().filter(record)
        text = JSONFormatter().format(record)
        assert "\n" not in text
        return json.loads(text)

    plain = line("a %s\nb", "x\ud800")
    assert (plain["message"], plain["level"], plain["logger"]) == ("a x?\nb", "warning", "circuit.x")
    assert plain["at"].endswith("Z") and "case_id" not in plain
    assert line("case %s", case)["case_id"] == str(case)
    named = Numbered(case.case, 2)
    assert line("%s", named) | {"at": ""} == {
        "at": "",
        "level": "warning",
        "logger": "circuit.x",
        "message": str(named),
        "case_id": str(case),
        "execution_id": str(named),
    }
    with about("c", "c.1"):
        assert line("x")["execution_id"] == "c.1"
    assert "ValueError: inside" in line("x", fault=True)["error"]


def test_the_command_logs_as_the_settings_say(process: Command, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "fails.yaml"
    file.write_text(
        "workflow: fails\nplaces: {a: {initial: true}, b: {terminal: true}}\n"
        "transitions: {t: {from_places: a, to_place: b, action: broken}}\n"
    )
    (tmp_path / "shop.py").write_text(
        "import logging\nfrom circuit import action\n\n\n"
        "@action\ndef broken() -> dict:\n    logging.getLogger('circuit.shop').warning('careful')\n    return {}\n"
    )
    settings = {"CIRCUIT_LOG_FORMAT": "json", "CIRCUIT_DATABASE_URL": database_url}
    done = process("run", file, "--actions", str(tmp_path / "shop.py"), **settings)
    assert done.code == 0, done.err
    [said] = [json.loads(row) for row in done.err.splitlines() if row.startswith("{")]
    assert (said["message"], said["logger"]) == ("careful", "circuit.shop")
    assert said["execution_id"].startswith(said["case_id"])


def test_the_log_says_of_each_execution_how_it_went(process: Command, database_url: str, tmp_path: Path) -> None:
    file = scripted_workflow(tmp_path, responses='[{error: unavailable, message: "secret words"}, Well.]')
    file.write_text(file.read_text().replace("required: true", "required: true, retry_config: {max_attempts: 2}"))
    settings = {"CIRCUIT_LOG_FORMAT": "json", "CIRCUIT_LOG_LEVEL": "info", "CIRCUIT_DATABASE_URL": database_url}
    done = process("run", file, **settings)
    assert done.code == 0, done.err
    found = [json.loads(row) for row in done.err.splitlines() if row.startswith("{")]
    told = [line for line in found if line["logger"] == "circuit.engine.chronicle"]
    case = told[0]["case_id"]
    assert [(line["message"].replace(case, "CASE"), line.get("execution_id")) for line in told] == [
        ("case CASE of story begins", None),
        ("write begins as execution CASE.1", f"{case}.1"),
        ("try 1 of write failed in execution CASE.1: unavailable", f"{case}.1"),
        ("write is done: execution CASE.1", f"{case}.1"),
        ("case CASE is completed", None),
    ]
    assert "secret words" not in done.err


def test_that_the_database_is_away_is_said_once_in_a_while_by_each_part() -> None:
    only = AwayFilter()

    def said(second: float, message: str, *arguments: object, level: int = logging.WARNING) -> bool:
        record = logging.LogRecord("circuit.x", level, "", 1, message, arguments, None)
        record.created = 1_000.0 + second
        return only.filter(record)

    away = DatabaseUnreachable("refused")
    assert said(0, "%s: trying again in %g s", away, 0.1)
    assert not said(1, "%s: trying again in %g s", DatabaseUnreachable("it starts"), 0.2)
    assert said(1, "the lease could not be renewed: %s", away), "another part says it too"
    assert said(1, "%s: trying again in %g s", away, 0.1, level=logging.ERROR)
    assert said(1, "%s: trying again in %g s", ValueError("x"), 0.1) and said(2, "%s: trying again", ValueError("x"))
    assert said(AWAY_SECONDS, "%s: trying again in %g s", away, 0.1)
    assert not said(AWAY_SECONDS + 1, "%s: trying again in %g s", away, 0.1)
    assert said(-5, "%s: trying again in %g s", away, 0.1), "a clock that was set back silences nobody"

"""Jobs: commands that outlive the worker that started them, started once, ended with their whole group."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from calling import Remembering, call
from eventually import eventually

from circuit import Circuit
from circuit.actions.job import JobAction, job_key
from circuit.actions.jobs import JobSpec, JobState
from circuit.actions.processes import ProcessBackend
from circuit.engine.action import Suspended
from circuit.errors import ActionFailed, CircuitError, InvalidRequest, JobFailed, JobLost
from circuit.settings import Settings

PYTHON = sys.executable
RELEASE = "import os,time,pathlib\nwhile not pathlib.Path('{gate}').exists(): time.sleep(0.01)\n"


def backend(home: Path, **options: Any) -> ProcessBackend:
    return ProcessBackend(home, {"PATH": os.environ["PATH"], "SECRET": "worker's"}, **options)


def spec(code: str, inputs: Mapping[str, Any] | None = None, **options: Any) -> JobSpec:
    return JobSpec([PYTHON, "-c", code], inputs or {}, **options)


async def ended(jobs: ProcessBackend, key: str, handle: Mapping[str, Any]) -> JobState:
    async def look() -> JobState | None:
        status = await jobs.poll(key, handle)
        return status.state if status.state is not JobState.RUNNING else None

    found = await eventually(look, what="the end of the job")
    assert found is not None
    return found


async def test_a_job_gets_its_inputs_and_gives_its_output(tmp_path: Path) -> None:
    jobs = backend(tmp_path)
    code = (
        "import sys, json, os; given = json.load(sys.stdin); print('noted', file=sys.stderr);"
        "same = json.load(open(os.environ['CIRCUIT_INPUT'])) == given;"
        "open(os.environ['CIRCUIT_PROGRESS'], 'w').write('half\\nall of it\\n');"
        "print(json.dumps({'sum': given['a'] + given['b'], 'same': same, 'mine': os.environ.get('SECRET'),"
        " 'token': os.environ['TOKEN']}))"
    )
    handle = await jobs.submit("k", spec(code, {"a": 1, "b": 2}, environment={"TOKEN": "tok-secret"}))
    assert await ended(jobs, "k", handle) is JobState.SUCCEEDED
    result = await jobs.collect("k", handle)
    assert result.output == {"sum": 3, "same": True, "mine": None, "token": "tok-secret"} and result.log == "noted\n"
    assert (await jobs.poll("k", handle)).progress == "all of it"
    written = b"".join(file.read_bytes() for file in (tmp_path / "k").iterdir() if file.name not in ("stdout", "work"))
    assert b"tok-secret" not in written


async def test_a_key_starts_one_job_however_often_it_is_submitted(tmp_path: Path) -> None:
    gate, count = tmp_path / "gate", tmp_path / "count"
    code = f"open('{count}', 'a').write('x')\n" + RELEASE.format(gate=gate)
    one, other = backend(tmp_path / "jobs"), backend(tmp_path / "jobs")
    handles = await asyncio.gather(*(jobs.submit("k", spec(code)) for jobs in (one, other) * 5))
    assert (await other.poll("k", handles[0])).state is JobState.RUNNING
    gate.touch()
    assert await ended(other, "k", handles[0]) is JobState.SUCCEEDED
    await one.submit("k", spec(code))
    assert count.read_text() == "x"


async def test_a_job_ends_with_its_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import subprocess, sys, os, time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open('{pids}.new', 'w').write(f'{{os.getpid()}} {{child.pid}}'); os.rename('{pids}.new', '{pids}');"
        "time.sleep(600)"
    )
    jobs = backend(tmp_path / "jobs", kill_seconds=0.2)
    handle = await jobs.submit("k", spec(code))
    await eventually(pids.exists)
    await jobs.cancel("k")
    status = await eventually(lambda: _ended_status(jobs, handle))
    assert status.state is JobState.FAILED and status.detail == "the job was cancelled"
    for pid in map(int, pids.read_text().split()):
        await eventually(lambda pid=pid: not _alive(pid), what=f"the end of process {pid}")
    await jobs.cancel("k")
    await jobs.submit("k", spec("raise SystemExit(0)"))
    assert (await jobs.poll("k", handle)).state is JobState.FAILED


async def _ended_status(jobs: ProcessBackend, handle: Mapping[str, Any]) -> Any:
    status = await jobs.poll("k", handle)
    return status if status.state is not JobState.RUNNING else None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_what_is_cancelled_before_it_begins_never_does(tmp_path: Path) -> None:
    jobs = backend(tmp_path)
    await jobs.cancel("k")
    handle = await jobs.submit("k", spec("open('ran', 'w')"))
    assert (await jobs.poll("k", handle)).state is JobState.FAILED and not (tmp_path / "k" / "work" / "ran").exists()


@pytest.mark.parametrize(
    ("code", "state", "detail"),
    [
        (
            "import sys; print('no disk', file=sys.stderr); sys.exit(3)",
            JobState.FAILED,
            "the job ended with 3: no",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", JobState.FAILED, "the job ended with -9"),
        ("import os, signal; os.kill(os.getppid(), signal.SIGKILL)", JobState.LOST, "the job was killed"),
    ],
)
async def test_how_a_job_fails(tmp_path: Path, code: str, state: JobState, detail: str) -> None:
    jobs = backend(tmp_path)
    handle = await jobs.submit("k", spec(code))
    assert await ended(jobs, "k", handle) is state
    assert (await jobs.poll("k", handle)).detail.startswith(detail)


async def test_limits(tmp_path: Path) -> None:
    jobs = backend(tmp_path)
    late = await jobs.submit("late", spec("import time; time.sleep(600)", limit_seconds=0.1))
    loud = await jobs.submit("loud", spec("import sys; sys.stderr.write('x' * 3_000_000); print('y' * 9_000_000)"))
    assert await ended(jobs, "late", late) is JobState.FAILED
    assert (await jobs.poll("late", late)).detail == "the job took too long and was ended"
    assert await ended(jobs, "loud", loud) is JobState.SUCCEEDED
    assert (tmp_path / "loud" / "log").stat().st_size == 1024 * 1024
    with pytest.raises(CircuitError, match="output has more than"):
        await jobs.collect("loud", loud)


async def test_a_job_of_another_machine_is_lost_and_says_where_it_was(tmp_path: Path) -> None:
    status = await backend(tmp_path).poll("k", {"host": "elsewhere", "folder": "/jobs/k"})
    assert status.state is JobState.LOST and "was started on elsewhere in /jobs/k" in status.detail


async def test_an_action_submits_waits_and_collects(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    action = JobAction({"process": backend(tmp_path / "jobs")}, {"T": "secret"})
    config = {
        "command": [PYTHON, "-c", RELEASE.format(gate="{gate}") + "print('done')"],
        "environment": {"TOKEN": "${T}"},
    }

    class Waiting(Remembering):
        async def suspend(self, *wait: Any, **options: Any) -> Any:
            raise Suspended(*wait, **options)

    context = Waiting()
    made = call("job", config, {"gate": str(gate)})
    with pytest.raises(Suspended) as first:
        await action.perform(made, context)
    assert (first.value.kind, first.value.key, first.value.timeout_seconds) == ("job", "1:0", 0.5)
    later = call(
        "job", config, {"gate": str(gate)}, start=2, recorded={**context.journal, "$wait:1:0": {}, "$wait:1:1": {}}
    )
    with pytest.raises(Suspended) as third:
        await action.perform(later, context)
    assert (third.value.key, third.value.timeout_seconds) == ("1:2", 0.5 * 1.5**2)
    gate.touch()
    await eventually((tmp_path / "jobs" / job_key(made) / "exit").exists)
    assert (await action.perform(later, context)).outputs["output"] == "done\n"
    with pytest.raises(ActionFailed, match="not set in the environment: T"):
        await JobAction({"process": backend(tmp_path)}, {}).perform(made, Waiting())


@asynccontextmanager
async def opened(url: str, home: Path, jobs: str = "true") -> AsyncIterator[Circuit]:
    values = {"CIRCUIT_DATABASE_URL": url, "CIRCUIT_LEASE_SECONDS": "20", "CIRCUIT_HOME": str(home)}
    settings = Settings.from_environment({**values, "CIRCUIT_JOBS": jobs, "PATH": os.environ["PATH"]})
    async with Circuit.open(settings=settings, stop_seconds=0.2) as circuit:
        yield circuit


WORKFLOW = """
workflow: training
places:
  ready: {{initial: true}}
  trained: {{terminal: true}}
  failed: {{dead_letter: true}}
transitions:
  train:
    from_places: ready
    to_place: trained
    action:
      type: job
      command: [{python}, -c, {code}]
      poll_seconds: 0.1
      output_mapping: {{data.loss: loss}}
    on_failure: failed
"""


async def test_a_case_waits_for_a_job_over_workers_and_a_cancel_ends_one(database_url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = RELEASE.format(gate=gate) + "print('{\"loss\": 0.5}')"
    text = WORKFLOW.format(python=PYTHON, code=json.dumps(code))
    home = tmp_path / "home"
    async with opened(database_url, home) as circuit:
        workflow = await circuit.load(text)
        case, other = [await circuit.start(workflow.id, {}) for _ in range(2)]

        async def both_wait() -> bool:
            views = [await circuit.case(one) for one in (case, other)]
            return all(view.executions and view.executions[0].status == "suspended" for view in views)

        await eventually(both_wait)
        folders = list((home / "jobs").iterdir())
        assert len(folders) == 2
        await eventually(lambda: all((folder / "pid").exists() for folder in folders))
        await circuit.cancel(other)
    async with opened(database_url, home) as circuit:
        gone = await eventually(lambda: [one for one in folders if (one / "cancelled").exists()])
        assert len(gone) == 1
        gate.touch()
        done = await asyncio.wait_for(circuit.wait(case), 60)
    assert done.tokens[0].data == {"loss": 0.5}
    assert len(list((home / "jobs").iterdir())) == 2


async def test_jobs_are_run_where_they_are_allowed(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path, jobs="false") as circuit:
        workflow = await circuit.load(WORKFLOW.format(python=PYTHON, code=json.dumps("pass")))
        with pytest.raises(InvalidRequest, match="set CIRCUIT_JOBS=true"):
            circuit.check_actions(workflow)


def test_the_errors_of_jobs_are_known() -> None:
    assert JobLost("x").retryable and not JobFailed("x").retryable and signal.SIGKILL == 9

"""kill -9 at each named point and at random times: every case finishes once, and no recorded answer is asked again."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import invariants
import pytest
from chat_server import ChatServer
from crash_run import AFTER_TOOL, HELD, POINTS
from eventually import eventually
from processes import WORKFLOW, Program, circuit, program
from provider_shapes import stream_bytes

ASKED_AGAIN = {"before_answer", "after_answer"}
"""Where a crash loses the answer: it had not been journalled."""


@pytest.fixture
async def chat() -> AsyncIterator[ChatServer]:
    async with ChatServer([{"text": "All is well with this document.", "pieces": 4}]) as server:
        yield server


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def workflow(tmp_path: Path, chat: ChatServer) -> str:
    file = tmp_path / "two_steps.yaml"
    file.write_text(WORKFLOW.format(url=chat.url) + "budget: {calls: 1000}\n")
    return str(file)


def asked(chat: ChatServer) -> Counter[tuple[str, str]]:
    """How often each agent asked about each token."""
    found: Counter[tuple[str, str]] = Counter()
    for request in chat.requests:
        system, user = (message["content"] for message in request.body["messages"])
        found[(system.removeprefix("You are the ").rstrip("."), user.split()[-1])] += 1
    return found


async def charged(plain: Any) -> int:
    """How many calls of models the budgets of cases have paid for, or still hold."""
    return await plain.fetchval(
        "SELECT (SELECT sum(spent_calls) FROM circuit.budget) + (SELECT coalesce(sum(calls), 0) FROM circuit.charge)"
    )


async def statuses(plain: Any) -> Counter[str]:
    return Counter(row["status"] for row in await plain.fetch('SELECT status FROM circuit."case"'))


async def all_completed(plain: Any, count: int) -> bool:
    return await statuses(plain) == {"completed": count}


async def crash(url: str, workflow: str, point: str) -> str:
    """Start a case in a process that dies at `point`; the case's id."""
    async with program("--url", url, "--point", point, "start", workflow) as dying:
        # It may die before it can say which case it started: then the database knows.
        await dying.says("started")
        assert await dying.ended() == -signal.SIGKILL, f"the process never came to {point}"
        if dying.cases:
            return dying.cases[0]
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval('SELECT case_id FROM circuit."case"'))
    finally:
        await connection.close()


@pytest.mark.parametrize("point", POINTS)
async def test_after_a_crash_at_a_named_point_a_resumed_run_finishes_the_case_once(
    point: str, database_url: str, workflow: str, chat: ChatServer, plain: Any
) -> None:
    case = await crash(database_url, workflow, point)
    assert await statuses(plain) == {"running": 1}
    status, shown, told = await circuit("run", "--resume", case, "--json", url=database_url)
    assert status == 0, told
    assert shown is not None
    assert (shown["case_id"], shown["status"], shown["marking"]) == (case, "completed", {"filed": 1})
    assert shown["tokens"][0]["data"]["review"] == shown["tokens"][0]["data"]["filed"]
    fired = [event["transition"] for event in shown["history"] if event["kind"] == "transition_fired"]
    assert fired == ["review", "file"]
    token = f"{case}.1"
    assert asked(chat) == {("reviewer", token): 2 if point in ASKED_AGAIN else 1, ("clerk", token): 1}
    assert await charged(plain) == sum(asked(chat).values()), "each call is charged once, and no recorded answer again"
    await invariants.check(database_url)


TOOLS = """
workflow: with-tools
places: {{written: {{initial: true}}, filed: {{terminal: true}}}}
agents:
  clerk:
    llm_provider: {{type: custom, base_url: "{url}", model: loopback}}
    tools: [fs.edit_file, {{files: {{root: "{root}"}}}}]
    conversation: case
transitions:
  work: {{from_places: written, to_place: filed, agent_execution: clerk}}
"""


async def test_after_a_crash_behind_a_tool_nothing_is_done_asked_or_said_twice(
    database_url: str, tmp_path: Path, plain: Any
) -> None:
    (tmp_path / "root").mkdir()
    file = tmp_path / "root" / "n.txt"
    file.write_text("x")
    calls = [{"name": "fs_edit_file", "arguments": {"path": "n.txt", "old": "x", "new": "xy"}}]
    async with ChatServer([{"calls": calls}, {"text": "Done."}]) as chat:
        workflow = tmp_path / "with_tools.yaml"
        workflow.write_text(TOOLS.format(url=chat.url, root=file.parent))
        case = await crash(database_url, str(workflow), AFTER_TOOL)
        assert file.read_text() == "xy"
        status, _, told = await circuit("run", "--resume", case, "--json", url=database_url)
        assert status == 0, told
        assert (len(chat.requests), file.read_text()) == (2, "xy")
    said = await plain.fetch("SELECT seq, role FROM circuit.message ORDER BY seq")
    assert [tuple(row) for row in said] == [(1, "user"), (2, "assistant"), (3, "tool"), (4, "assistant")]
    await invariants.check(database_url)


async def stored(plain: Any, *tables: str) -> str:
    """All that these tables hold, as text."""
    rows = [row[0] for table in tables for row in await plain.fetch(f"SELECT t::text FROM circuit.{table} t")]
    return "\n".join(rows)


async def test_a_crash_while_an_answer_is_held_back_leaves_nothing_of_it(
    database_url: str, tmp_path: Path, plain: Any
) -> None:
    everywhere = ("journal", "stream_event", "history", "execution", "token", "message", "cached_answer")
    file = tmp_path / "held.yaml"
    async with ChatServer([{"text": "Ada did all of it.", "pieces": 2}]) as chat:
        file.write_text(WORKFLOW.format(url=chat.url))
        async with program("--url", database_url, "--hold", "--point", HELD, "start", str(file)) as dying:
            await dying.says("started")
            assert await dying.ended() == -signal.SIGKILL
        assert len(chat.requests) == 1 and "did" not in await stored(plain, *everywhere)
        async with program("--url", database_url, "--hold", "work"):
            await eventually(lambda: all_completed(plain, 1))
        assert len(chat.requests) == 3, "what was held back was recorded by nobody, so it is asked for again"
    told = await stored(plain, *everywhere)
    assert "*** did all of it." in told and "Ada" not in told
    await invariants.check(database_url)


async def test_a_crash_within_what_redaction_holds_back_tells_nothing_of_it(
    database_url: str, tmp_path: Path, plain: Any
) -> None:
    """The process is killed when half of an address has come: the readers have what stands before it, and no more."""
    answer = {"text": "Please write to ada.lovelace@example.com today.", "pieces": 4}
    at = stream_bytes(answer).index(b'"lace"')
    async with ChatServer([{**answer, "gate": at}]) as chat:
        file = tmp_path / "redacted.yaml"
        file.write_text(WORKFLOW.format(url=chat.url) + "redaction: [{kind: email, where: [events]}]\n")
        async with program("--url", database_url, "start", str(file)) as dying:
            await dying.says("started")
            await chat.at_gate()

            async def told() -> bool:
                return "write" in await stored(plain, "stream_event")

            await eventually(told)
            await dying.kill()
        assert "ada" not in await stored(plain, "stream_event")
        chat.release()
        async with program("--url", database_url, "work"):
            await eventually(lambda: all_completed(plain, 1))
    said = await stored(plain, "stream_event")
    assert "Please write to [email] today." in said and "ada" not in said and "lace@" not in said
    await invariants.check(database_url)


@pytest.mark.parametrize("point", ["before_answer", "after_journal"])
async def test_after_a_crash_another_worker_takes_the_case_over_at_once(
    point: str, database_url: str, workflow: str, chat: ChatServer, plain: Any
) -> None:
    """The lease is long: only that the process is gone, on the same machine, can be what frees the case."""
    async with program("--url", database_url, "--lease", "60", "--point", point, "start", workflow) as dying:
        await dying.says("started")
        assert await dying.ended() == -signal.SIGKILL
    async with program("--url", database_url, "--lease", "60", "work"):
        await eventually(lambda: all_completed(plain, 1))
    assert [row["crashes"] for row in await plain.fetch("SELECT crashes FROM circuit.firing ORDER BY number")] == [1, 0]
    assert sum(asked(chat).values()) == (3 if point in ASKED_AGAIN else 2)
    await invariants.check(database_url)


async def test_two_that_resume_one_case_ask_and_finish_once(
    database_url: str, workflow: str, chat: ChatServer, plain: Any
) -> None:
    case = await crash(database_url, workflow, "after_claim")
    ends = await asyncio.gather(*(circuit("run", "--resume", case, "--json", url=database_url) for _ in range(2)))
    assert [status for status, _, _ in ends] == [0, 0], [told for _, _, told in ends]
    assert set(asked(chat).values()) == {1} and len(asked(chat)) == 2
    await invariants.check(database_url)


async def test_a_worker_that_was_stopped_for_longer_than_its_lease_changes_nothing_when_it_goes_on(
    database_url: str, workflow: str, tmp_path: Path, plain: Any
) -> None:
    replies = [{"text": "from the sleeper", "gate": 1}, {"text": "from the other"}]
    async with ChatServer(replies) as chat:
        file = tmp_path / "gated.yaml"
        file.write_text(WORKFLOW.format(url=chat.url))
        async with program("--url", database_url, "--lease", "1", "start", str(file)) as sleeper:
            await sleeper.says("started")
            await chat.at_gate()
            sleeper.signal(signal.SIGSTOP)
            async with program("--url", database_url, "--lease", "1", "work"):
                await eventually(lambda: all_completed(plain, 1))
                # Its answer comes now, to a worker that was declared dead long ago.
                sleeper.signal(signal.SIGCONT)
                chat.release()
                before = await plain.fetchval("SELECT count(*) FROM circuit.history")

                async def anew() -> bool:
                    return await plain.fetchval("SELECT count(*) FROM circuit.worker WHERE NOT fenced") == 2

                await eventually(anew, what="a new incarnation of the sleeper")
                assert await plain.fetchval("SELECT count(*) FROM circuit.history") == before
        data = await plain.fetchval("SELECT data::text FROM circuit.token")
        assert "from the other" in data and "sleeper" not in data
    await invariants.check(database_url)


async def test_kills_at_random_times_lose_nothing_and_ask_no_recorded_answer_again(
    database_url: str, workflow: str, chat: ChatServer, plain: Any
) -> None:
    """Nine processes in a row are killed somewhere in the middle of twenty cases; the last one may finish.

    A tenth kill could hit the same firing for the tenth time, and then it fails: `crashed`.
    """
    cases, seed = 20, random.randrange(2**32)
    rng = random.Random(seed)
    print(f"seed {seed}")
    async with program("--url", database_url, "start", workflow, "--cases", str(cases)) as first:
        assert await first.says("started") is not None
        await _kill_within(first, rng.uniform(0, 0.3))
    for _ in range(8):
        async with program("--url", database_url, "work") as next_one:
            assert await next_one.says("working") is not None
            await _kill_within(next_one, rng.uniform(0, 0.3))
    async with program("--url", database_url, "work"):
        await eventually(lambda: all_completed(plain, cases), within=120, what=f"seed {seed}: the end of all cases")
    await invariants.check(database_url)
    await _no_recorded_answer_was_asked_again(plain, asked(chat))


async def _kill_within(running: Program, seconds: float) -> None:
    """Kill it when so many seconds are over, or let it be if it ends before."""
    if await running.ended(seconds) is None:
        await running.kill()


async def _no_recorded_answer_was_asked_again(plain: Any, requests: Counter[tuple[str, str]]) -> None:
    """Each start of an execution asks at most once, and one that begins after the answer was journalled never."""
    rows = await plain.fetch(
        """
        SELECT f.case_id::text AS "case", f.transition, f.number,
            count(h.seq) FILTER (WHERE h.at <= j.at) AS starts
        FROM circuit.firing f
        JOIN circuit.journal j ON j.tenant_id = f.tenant_id AND j.case_id = f.case_id AND j.firing = f.number
        JOIN circuit.history h ON h.tenant_id = f.tenant_id AND h.case_id = f.case_id AND h.firing = f.number
            AND h.kind IN ('firing_begun', 'firing_resumed')
        GROUP BY f.tenant_id, f.case_id, f.transition, f.number
        """
    )
    agents = {"review": "reviewer", "file": "clerk"}
    assert len(rows) == len({(row["case"], row["transition"]) for row in rows})
    for row in rows:
        times = requests[(agents[row["transition"]], f"{row['case']}.1")]
        assert 1 <= times <= row["starts"], f"{dict(row)}: asked {times} times"

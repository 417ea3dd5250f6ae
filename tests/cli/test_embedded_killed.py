"""The embedded Postgres is killed under commands that use it, and does not start for a while."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from circuit.app.home import database_url
from circuit.app.warden import Warden
from circuit.engine.service import Backoff
from circuit.errors import DatabaseNotStarted, DatabaseUnreachable
from circuit.settings import Settings
from tests.cli.commanding import PROCESS_SECONDS, Chat, Command, Spawn
from tests.eventually import eventually

READY = "circuit serve is ready at"
AGAIN = b"runs again"


@pytest.fixture
def chat() -> Iterator[Chat]:
    """A model whose first answer waits; who asks again is answered."""
    found = Chat({"text": "one two three", "gate": 60}, {"text": "one two three"})
    yield found
    found.end()


def kill_postgres(home: Path) -> None:
    os.kill(int((home / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


def test_a_server_whose_postgres_is_killed_starts_it_again_and_its_cases_go_on(
    spawned: Spawn, process: Command, chat: Chat, home: Path, tmp_path: Path
) -> None:
    variables = {"CIRCUIT_HOME": str(home)}
    server = spawned("serve", "--port", "0", **variables)
    url = server.read_until(READY.encode()).split()[-1].decode()

    assert process("load", chat.workflow(tmp_path), **variables).code == 0
    query = 'mutation { startCase(workflowId: "story") { caseId } }'
    answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=PROCESS_SECONDS).json()
    case = answer["data"]["startCase"]["caseId"]
    chat.at_gate()

    told: list[str] = []
    begun = threading.Event()

    def listen() -> None:
        where, headers = f"{url}/agent-stream/{case}.1", {"accept": "text/event-stream"}
        with httpx.stream("GET", where, headers=headers, timeout=PROCESS_SECONDS) as answer:
            for line in answer.iter_lines():
                told.append(line)
                begun.set()

    listening = threading.Thread(target=listen)
    listening.start()
    assert begun.wait(PROCESS_SECONDS)
    kill_postgres(home)
    server.read_until(AGAIN)
    chat.release()
    listening.join(PROCESS_SECONDS)
    assert any('"eventType":"completed"' in line for line in told), told
    followed = process("run", "--resume", case, "--json", **variables)
    assert followed.code == 0, followed.err
    kinds = [event["kind"] for event in followed.json["history"]]
    assert (kinds.count("transition_fired"), kinds.count("case_ended")) == (1, 1)

    # While it cannot start the server says why, and goes on where it can again.
    control = home / "postgres" / "global" / "pg_control"
    control.rename(home / "pg_control")
    kill_postgres(home)
    said = server.read_until(b"Its log is").decode()
    assert f"The embedded Postgres in {home} does not start: its data in {home}/postgres is damaged" in said
    assert f"Its log is {home}/postgres/server.log" in said
    assert httpx.get(f"{url}/ready", timeout=PROCESS_SECONDS).status_code == 503
    (home / "pg_control").rename(control)
    server.read_until(AGAIN)
    assert httpx.get(f"{url}/ready", timeout=PROCESS_SECONDS).status_code == 200
    server.signal(signal.SIGTERM)
    rest = server.rest()
    assert server.status == 0 and b"Traceback" not in rest, rest.decode()
    assert not (home / "postgres" / "postmaster.pid").exists(), "the last to leave stops it"


async def test_what_fails_while_the_postgres_does_not_start_fails_with_the_reason(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DatabaseNotStarted, match=r"is damaged\..* Its log is .*server\.log"):
        async with database_url(Settings(home=home, database_url=None, environment={})):
            (home / "postgres" / "global" / "pg_control").unlink()
            kill_postgres(home)
            await eventually(lambda: "does not start" in caplog.text, within=PROCESS_SECONDS)
            raise DatabaseUnreachable("The database did not answer.")


class Short:
    """A server of a process that is short of files when it looks for it, and of which it is gone afterwards."""

    home = Path("/nowhere")

    def __init__(self) -> None:
        self.looks = iter((OSError(errno.EMFILE, "Too many open files"), False))
        self.revived = threading.Event()

    def alive(self) -> bool:
        found = next(self.looks, True)
        if isinstance(found, OSError):
            raise found
        return found

    def revive(self) -> bool:
        self.revived.set()
        return True


async def test_a_look_that_fails_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    server: Any = Short()
    warden = Warden(server, look_seconds=0.0, backoff=Backoff(0.0, 0.0))
    warden.start()
    assert await asyncio.to_thread(server.revived.wait, PROCESS_SECONDS)
    await warden.stop()
    assert "runs is not known" in caplog.text and "Too many open files" in caplog.text

"""How the command is run in tests, and what it is run on: what the fixtures and the tests share."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.chat_server import ChatServer
from tests.forked import Forked, command

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
PROCESS_SECONDS = 120

ASKING = """\
workflow: {workflow}
places:
  submitted: {{initial: true}}
  done: {{terminal: true}}
agents:
  writer: {{llm_provider: {{type: custom, base_url: "{url}", model: loopback}}}}
transitions:
  write:
    from_places: [submitted]
    to_place: done
    agent_execution: {{agent_id: writer, output_mapping: {{data.text: text}}, required: true}}
"""

SCRIPTED = """\
workflow: {workflow}
places:
  submitted: {{initial: true}}
  done: {{terminal: true}}
agents:
  writer:
    llm_provider: {{type: scripted, model: script, responses: {responses}, delay_seconds: {delay}, chunk_size: 4}}
transitions:
  write:
    from_places: [submitted]
    to_place: done
    agent_execution: {{agent_id: writer, output_mapping: {{data.text: text}}, required: true}}
"""


def scripted_workflow(
    folder: Path, *, responses: str = "[Once upon a time]", delay: float = 0.0, name: str = "story"
) -> Path:
    """A workflow of one scripted agent, in a file of its own."""
    file = folder / f"{name}.yaml"
    file.write_text(SCRIPTED.format(workflow=name, responses=responses, delay=delay))
    return file


class Chat:
    """A server of models beside a test that awaits nothing: it lives in a thread. An answer with a `gate` waits there
    until `release`; `replies` are those of `ChatServer`."""

    def __init__(self, *replies: dict[str, Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = ChatServer(replies)
        self._do(self.server.__aenter__())

    def workflow(self, folder: Path, name: str = "story") -> Path:
        """A workflow of one agent that asks this server, in a file of its own."""
        file = folder / f"{name}.yaml"
        file.write_text(ASKING.format(workflow=name, url=self.server.url))
        return file

    def at_gate(self) -> None:
        """Return when an answer waits."""
        self._do(self.server.at_gate())

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self.server.release)

    def end(self) -> None:
        self._do(self.server.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(PROCESS_SECONDS)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process without any setting of Circuit or key of a provider, and `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CIRCUIT_", "OPENAI_")) and name not in ("MAX_CONCURRENT_EXECUTIONS", "NO_COLOR")
    }
    return {**kept, **extra}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value."""
        return orjson.loads(self.out)


Command = Callable[..., Outcome]


class Spawned(Forked):
    """A command that goes on while the test does. What it prints and what it complains of come together, unless
    what it prints goes to the file `out`."""

    def __init__(self, *arguments: str, environment: Mapping[str, str], out: Path | None = None) -> None:
        self._read, write = os.pipe()
        with Path(os.devnull).open("rb") as nothing, (out or Path(os.devnull)).open("wb") as file:
            standard = (nothing.fileno(), write if out is None else file.fileno(), write)
            super().__init__(command, *arguments, standard=standard, environment=environment)
        os.close(write)
        self._unread = b""

    def read_until(self, wanted: bytes) -> bytes:
        """What it prints up to the first line that holds `wanted`."""
        read, deadline = b"", time.monotonic() + PROCESS_SECONDS
        while line := self._line(deadline):
            read += line
            if wanted in line:
                return read
        raise AssertionError(f"{wanted!r} was never printed:\n{read.decode()}")

    def rest(self) -> bytes:
        """What else it prints before its end, which is waited for."""
        read, deadline = b"", time.monotonic() + PROCESS_SECONDS
        while line := self._line(deadline):
            read += line
        assert self.wait(PROCESS_SECONDS) is not None, f"it has closed its output and goes on:\n{read.decode()}"
        return read

    def cut(self) -> None:
        """Kill it, and see that it is gone."""
        self.signal(signal.SIGKILL)
        assert self.wait(PROCESS_SECONDS) is not None

    def end(self) -> None:
        """Nothing is left of it."""
        self.cut()
        os.close(self._read)

    def _line(self, deadline: float) -> bytes:
        """The next line, as far as there is one."""
        while b"\n" not in self._unread:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"nothing more was printed in time, and it has not ended:\n{self._unread.decode()}")
            piece = os.read(self._read, 65_536)
            self._unread += piece
            if not piece:
                break
        line, end, self._unread = self._unread.partition(b"\n")
        return line + end


Spawn = Callable[..., Spawned]


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Ends what runs in this thread after so many seconds: a command that waits for ever fails its test."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"the command did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

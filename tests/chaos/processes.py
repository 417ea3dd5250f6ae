"""Processes of Circuit as the crash tests drive them: started, listened to, killed, stopped and continued."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DEADLINE_SECONDS = 40.0

WORKFLOW = """
workflow: two-steps
places:
  written: {{initial: true}}
  reviewed: {{}}
  filed: {{terminal: true}}
agents:
  reviewer:
    name: Reviewer
    description: Reviews.
    llm_provider: {{type: custom, base_url: "{url}", model: loopback}}
    prompts: {{system: You are the reviewer., user_template: "Review {{token_id}}"}}
  clerk:
    name: Clerk
    description: Files.
    llm_provider: {{type: custom, base_url: "{url}", model: loopback}}
    prompts: {{system: You are the clerk., user_template: "File {{token_id}}"}}
transitions:
  review:
    from_places: written
    to_place: reviewed
    agent_execution: {{agent_id: reviewer, output_mapping: {{data.review: text}}}}
  file:
    from_places: reviewed
    to_place: filed
    agent_execution: {{agent_id: clerk, output_mapping: {{data.filed: text}}}}
"""
"""Two agents, one after the other, both asking the server at `url`."""


class Program:
    """One running process, whose standard output is JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.cases: list[str] = []

    @property
    def pid(self) -> int:
        return self.process.pid

    async def says(self, what: str) -> dict[str, Any] | None:
        """The next line that has the key `what`; None if the process ended before it said it."""
        assert self.process.stdout is not None
        while line := await asyncio.wait_for(self.process.stdout.readline(), DEADLINE_SECONDS):
            said = json.loads(line)
            if "case" in said:
                self.cases.append(said["case"])
            if what in said:
                return said
        return None

    async def ended(self) -> int:
        """Its exit status; minus the signal that ended it."""
        return await asyncio.wait_for(self.process.wait(), DEADLINE_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            os.kill(self.process.pid, number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Program]:
    """`crash_run.py` with these arguments; terminated in the end, and killed if that does not help."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "crash_run.py"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=_environment(),
    )
    running = Program(process)
    try:
        yield running
    finally:
        running.signal(signal.SIGCONT)
        running.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), DEADLINE_SECONDS)
        except TimeoutError:
            await running.kill()
            raise


async def circuit(*arguments: str, url: str) -> tuple[int, dict[str, Any] | None, str]:
    """The command line `circuit ...` to its end: exit status, the JSON that it printed, and its other output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "circuit",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**_environment(), "CIRCUIT_DATABASE_URL": url, "CIRCUIT_LEASE_SECONDS": "1"},
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode is not None
    return process.returncode, json.loads(out) if out.strip() else None, err.decode()


def _environment() -> dict[str, str]:
    """Ours, with this checkout's package in front of an installed one."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}

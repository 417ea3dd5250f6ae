"""Processes of Circuit as the crash tests drive them: started, listened to, killed, stopped and continued."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.chaos import crash_run
from tests.chaos.crash_run import LEASE_SECONDS
from tests.forked import SECONDS, Talking, command, finished

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


class Program(Talking):
    """One running process, whose lines are JSON. To be opened with `program`."""

    def __init__(self, *arguments: str) -> None:
        super().__init__(crash_run.run, *arguments)
        self.cases: list[str] = []

    async def says(self, what: str) -> dict[str, Any] | None:
        """The next line that has the key `what`; None if the process ended before it said it."""
        while line := await self.line():
            said = json.loads(line)
            if "case" in said:
                self.cases.append(said["case"])
            if what in said:
                return said
        return None


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Program]:
    """`crash_run.py` with these arguments; terminated in the end, and killed if that does not help."""
    running = Program(*arguments)
    await running.open()
    try:
        yield running
    finally:
        running.signal(signal.SIGCONT)
        running.signal(signal.SIGTERM)
        status = await running.ended()
        await running.close()
        assert status is not None, f"it did not end within {SECONDS} s of being told to: {arguments}"


def settings(url: str) -> dict[str, str]:
    """The environment of a command of Circuit on the database at `url`."""
    return {**os.environ, "CIRCUIT_DATABASE_URL": url, "CIRCUIT_LEASE_SECONDS": f"{LEASE_SECONDS:g}"}


async def circuit(*arguments: str, url: str) -> tuple[int, dict[str, Any] | None, str]:
    """The command line `circuit ...` to its end: exit status, the JSON that it printed, and its other output."""
    status, out, err = await asyncio.to_thread(finished, command, *arguments, environment=settings(url))
    return status, json.loads(out) if out.strip() else None, err

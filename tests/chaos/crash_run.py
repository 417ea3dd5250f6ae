"""A process that dies where it is told: for the tests of crashes, which start it with `tests.chaos.processes.program`.

    --url URL [--lease SECONDS] [--point NAME] start WORKFLOW_FILE [--cases N]
    --url URL [--lease SECONDS] [--point NAME] work

`start` publishes the workflow, starts cases and works on all that is there; `work` only works. Each line of standard
output is one JSON object: `{"case": ID}` for each case that was started, then `{"working": true}`. With `--point` the
process kills itself with SIGKILL the first time that it comes to that point; else it works until it is terminated.
With `--hold` it has an interceptor that holds answers back, and leaves a name out of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from circuit.agents.answer import Answer
from circuit.agents.interceptor import with_text
from circuit.app import Circuit
from circuit.providers.provider import ModelRequest
from circuit.settings import Settings

POINTS = ("after_claim", "before_answer", "after_answer", "after_journal", "before_commit", "after_commit")
LEASE_SECONDS = 5.0
"""Who is dead is found by his process: a lease is not what is waited for, and must last where the machine is busy."""
AFTER_TOOL = "after_tool"
HELD = "held"
"""An answer is whole, and nobody but the interceptor has seen it."""


def dying_at(point: str | None) -> Callable[[str], None]:
    """The hook that ends the process at `point`, as a crash would: nothing is closed and nothing is flushed."""

    def fault(here: str) -> None:
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return fault


@dataclass(frozen=True, slots=True)
class Guard:
    """Holds answers back, and leaves a name out."""

    fault: Callable[[str], None]
    holds: bool = True

    async def before(self, request: ModelRequest) -> ModelRequest:
        return request

    async def after(self, request: ModelRequest, answer: Answer) -> Answer:
        self.fault(HELD)
        return with_text(answer, answer.text.replace("Ada", "***"))


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def main(arguments: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    settings = replace(Settings.from_environment(), lease_seconds=arguments.lease)
    fault = dying_at(arguments.point)
    guards = [Guard(fault)] if arguments.hold else []
    async with Circuit.open(
        arguments.url, settings=settings, fault=fault, interceptors=guards, stop_seconds=1.0
    ) as circuit:
        say(working=True)
        if arguments.command == "start":
            workflow = await circuit.load(arguments.workflow)
            for number in range(arguments.cases):
                say(case=await circuit.start(workflow.id, {"text": f"document {number}"}))
            say(started=True)
        await stopped.wait()


def run(*arguments: str) -> None:
    """The whole life of a process with these arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--lease", type=float, default=LEASE_SECONDS)
    parser.add_argument("--point", choices=(*POINTS, AFTER_TOOL, HELD))
    parser.add_argument("--hold", action="store_true")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start")
    start.add_argument("workflow", type=Path)
    start.add_argument("--cases", type=int, default=1)
    commands.add_parser("work")
    asyncio.run(main(parser.parse_args(arguments)))

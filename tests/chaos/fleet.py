"""Processes of Circuit, forked from one that has imported it already: a real process each, and there in no time."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.chaos.member import Orders, run

ENDING_SECONDS = 30.0
MOST_LOGS = 8

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["circuit.app", "circuit.api.application", "circuit.api.server", "uvicorn"])


class Member:
    """One process. After it has ended, `status` is its exit status, minus the signal that ended it."""

    def __init__(self, orders: Orders, name: str) -> None:
        self.orders = orders
        self.process: BaseProcess = _CONTEXT.Process(target=run, args=(orders,), name=name)
        self.stopped = False

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def status(self) -> int | None:
        return self.process.exitcode

    def signal(self, number: signal.Signals) -> None:
        if self.alive and self.process.pid is not None:
            os.kill(self.process.pid, number)
            self.stopped = number is signal.SIGSTOP or (self.stopped and number is not signal.SIGCONT)

    async def ended(self, within: float = ENDING_SECONDS) -> int | None:
        """Wait for its end; its exit status, or None if it did not end in time."""
        await asyncio.to_thread(self.process.join, within)
        return self.status

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()


class Fleet:
    """The processes of one run. Their output goes to files in `folder`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.members: list[Member] = []
        self._numbers = itertools.count(1)

    async def add(self, *, url: str | None = None, **orders: object) -> Member:
        """Start one more."""
        name = f"member-{next(self._numbers)}"
        member = Member(replace(Orders(url or self.url, self.folder / f"{name}.log"), **orders), name)  # type: ignore[arg-type]
        # The first one waits for the server that forks them all to import Circuit.
        await asyncio.to_thread(member.process.start)
        self.members.append(member)
        return member

    @property
    def living(self) -> list[Member]:
        return [member for member in self.members if member.alive]

    def forget(self) -> None:
        """Those that have ended are not of the fleet any more."""
        self.members = self.living

    async def end(self) -> None:
        """End all of them: in good order, or by force where that does not help."""
        for member in self.members:
            member.signal(signal.SIGCONT)
            member.signal(signal.SIGTERM)
        await asyncio.gather(*(member.ended() for member in self.members))
        for member in self.living:
            await member.kill()

    def told(self, count: int = 40) -> str:
        """The last lines that each has said, for the message of a failure."""
        parts: list[str] = []
        for log in sorted(self.folder.glob("*.log"), key=lambda log: log.stat().st_mtime)[-MOST_LOGS:]:
            lines = log.read_text(errors="replace").splitlines()[-count:]
            if lines:
                parts += [f"--- {log.name}", *lines]
        return "\n".join(parts)

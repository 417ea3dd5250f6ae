"""The workers and servers of one run: processes that are started, stopped, killed and ended together."""

from __future__ import annotations

import asyncio
import itertools
import signal
from dataclasses import replace
from pathlib import Path

from tests.chaos.member import Orders, run
from tests.forked import Forked

ENDING_SECONDS = 60.0
MOST_LOGS = 8


class Member(Forked):
    """One process, and what it is to be."""

    def __init__(self, orders: Orders, name: str) -> None:
        super().__init__(run, orders, name=name)
        self.orders = orders


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
        await asyncio.to_thread(member.start)
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
        await asyncio.gather(*(member.ended(ENDING_SECONDS) for member in self.members))
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

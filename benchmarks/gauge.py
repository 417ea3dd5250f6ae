"""What Postgres spends: CPU of the server and of all its processes, and the bytes of its write-ahead log."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil


class Gauge:
    """Looks at one server, by its superuser's URL. Made by `open`."""

    def __init__(self, url: str, connection: Any, server: psutil.Process) -> None:
        self.url = url
        self._connection = connection
        self._server = server

    @classmethod
    async def open(cls, url: str) -> Gauge:
        connection = await asyncpg.connect(url)
        directory = Path(await connection.fetchval("SHOW data_directory"))
        pid = int((directory / "postmaster.pid").read_text().splitlines()[0])
        return cls(url, connection, psutil.Process(pid))

    async def close(self) -> None:
        await self._connection.close()

    async def settings(self) -> dict[str, str]:
        """What the figures depend on."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
        return {name: await self._connection.fetchval(f"SHOW {name}") for name in names}

    async def fresh(self, name: str) -> str:
        """The URL of a database of this name that is empty. Everything that is dirty is on disk when it is there."""
        await self.drop(name)
        await self._connection.execute(f'CREATE DATABASE "{name}"')
        await self._connection.execute("CHECKPOINT")
        parts = urlsplit(self.url)
        return parts._replace(path=f"/{name}").geturl() if parse_qs(parts.query) else f"{self.url}/{name}"

    async def drop(self, name: str) -> None:
        await self._connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def cpu(self) -> float:
        """Seconds of CPU of the server so far, its ended processes included."""
        seconds = 0.0
        for process in (self._server, *self._server.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            seconds += times.user + times.system
            if process == self._server:
                seconds += times.children_user + times.children_system
        return seconds

    async def wal(self) -> int:
        """Bytes of log so far."""
        return int(await self._connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))

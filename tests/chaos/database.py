"""A Postgres that can be frozen, filled, made read-only, given another clock, and set back to an earlier state."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil

from tests.postgres import Server

DISK_BYTES = 256 * 1024 * 1024
NO_SPACE_LEFT = 0
SETTINGS = {
    # The client's commits must survive a server that is stopped at once, as the writer's do.
    "synchronous_commit": "on",
    "max_wal_size": "96MB",
    "shared_buffers": "32MB",
    "max_connections": "150",
}
CLOCK = """
CREATE SCHEMA IF NOT EXISTS jumping;
CREATE TABLE IF NOT EXISTS jumping.ahead (by interval NOT NULL);
GRANT USAGE ON SCHEMA jumping TO PUBLIC;
GRANT SELECT ON jumping.ahead TO PUBLIC;
CREATE OR REPLACE FUNCTION jumping.now() RETURNS timestamptz STABLE LANGUAGE sql
    AS 'SELECT pg_catalog.now() + coalesce((SELECT max(by) FROM jumping.ahead), interval ''0'')';
CREATE OR REPLACE FUNCTION jumping.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql
    AS 'SELECT pg_catalog.clock_timestamp() + coalesce((SELECT max(by) FROM jumping.ahead), interval ''0'')';
"""
"""Functions that hide Postgres' own wherever `jumping` stands first in the search path."""


async def set_clock_ahead(url: str, seconds: float) -> None:
    """The clock of a database is so many seconds ahead of the system's (or behind it), for all who connect anew and,
    once it was set for the first time, for everybody at once."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(CLOCK)
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{name}" SET search_path = jumping, pg_catalog')
        async with connection.transaction():
            await connection.execute("DELETE FROM jumping.ahead")
            await connection.execute(f"INSERT INTO jumping.ahead VALUES (make_interval(secs => {seconds}))")
    finally:
        await connection.close()


class FaultyServer(Server):
    """A server on a small disk of its own, where the system lets us mount one."""

    def __init__(self) -> None:
        super().__init__(settings=SETTINGS)
        self.mounted = False

    @property
    def log(self) -> Path:
        """Not on the small disk: what is said of a disk that is full must find room."""
        return self.folder / "server.log"

    def refusals(self) -> int:
        """How often the server has said that it could not write a file."""
        text = self.log.read_text(errors="replace")
        return sum(text.count(reason) for reason in ("No space left on device", "File too large"))

    def make_place(self) -> None:
        super().make_place()
        self.log.touch()
        if self.run_as:
            shutil.chown(self.log, self.run_as)
        user = self.run_as or str(os.getuid())
        options = f"size={DISK_BYTES},mode=0700,uid={user}"
        mount = shutil.which("mount")
        if os.geteuid() == 0 and mount is not None:
            done = subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", str(self.data)], capture_output=True)
            self.mounted = done.returncode == 0

    def processes(self) -> list[psutil.Process]:
        """The server and what it has forked; none if it does not run."""
        try:
            server = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            return [server, *server.children(recursive=True)]
        except (OSError, ValueError, IndexError, psutil.Error):
            return []

    @property
    def runs(self) -> bool:
        return any(process.status() != psutil.STATUS_ZOMBIE for process in self.processes()[:1])

    def come_back(self) -> None:
        """Start it unless it runs."""
        if not self.runs:
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """None of its processes gets to run; whoever asks gets no answer, and is not told."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in reversed(processes):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGCONT)

    @contextmanager
    def full(self) -> Iterator[None]:
        """No file can grow any more: the disk is full; without a disk of its own, no file may become larger."""
        if self.mounted:
            with self._ballast():
                yield
        else:
            with self._no_larger_files():
                yield

    @contextmanager
    def _ballast(self) -> Iterator[None]:
        ballast = self.data / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 65_536)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def _no_larger_files(self) -> Iterator[None]:
        before: tuple[int, int] = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._limit((NO_SPACE_LEFT, before[1]))
        try:
            yield
        finally:
            self._limit(before)

    def _limit(self, limits: tuple[int, int]) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.rlimit(psutil.RLIMIT_FSIZE, limits)

    async def read_only(self, on: bool) -> None:
        """Every transaction is read-only, as on a standby; also for those who are connected."""
        await self._as_superuser(
            f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}", "SELECT pg_reload_conf()"
        )

    def back_up(self) -> None:
        """Remember everything as it is now. The server is stopped for a moment."""
        self.stop()
        backup = self.folder / "backup"
        shutil.rmtree(backup, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.data), str(backup)], check=True)
        self.start()

    def set_back(self) -> None:
        """Everything is as it was when it was backed up; who is connected loses his connection."""
        self.stop("immediate")
        for old in self.data.iterdir():
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        subprocess.run(["cp", "-a", f"{self.folder / 'backup'}/.", str(self.data)], check=True)
        self.start()

    async def _as_superuser(self, *statements: str) -> None:
        settings = {"default_transaction_read_only": "off"}
        connection = await asyncpg.connect(self.url(), server_settings=settings)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

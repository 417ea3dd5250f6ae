"""Jobs as processes of this machine. Each has a folder; what is true of it stands there, so any worker of the machine
finds it, whichever started it and however that one ended.

    spec.json, input.json   what is run, and what it gets (on standard input, and named by CIRCUIT_INPUT)
    lock                    held by the job's keeper for as long as it lives
    pid                     the keeper's, which is the number of its process group: the job has begun
    stdout, log, progress   what it says; result: what it wrote to the file that CIRCUIT_RESULT names
    exit, cancelled         how it ended
    work                    where it runs, if nothing else was said
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import orjson

from circuit.actions import keeper
from circuit.actions.jobs import JobResult, JobSpec, JobState, JobStatus
from circuit.actions.result import as_json
from circuit.engine.payload import PAYLOAD_LIMIT
from circuit.errors import ActionFailed, InvalidOutput

LOG_BYTES = 1024 * 1024
TAIL_BYTES = 4 * 1024
LOCK_SECONDS = 5.0
KEPT_SECONDS = 7 * 86_400.0
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "TZ")
"""What a command gets of the worker's own environment, which holds secrets that are none of its business."""


class ProcessBackend:
    """Runs commands as processes, in folders below `home`. `kill_seconds` is what a job gets to end when it is told."""

    def __init__(self, home: Path, environment: Mapping[str, str], *, kill_seconds: float = 10.0) -> None:
        self._home = home
        self._environment = {name: environment[name] for name in INHERITED if name in environment}
        self._kill_seconds = kill_seconds
        self._pruned_at: float | None = None
        self._keepers: list[subprocess.Popen[bytes]] = []

    async def submit(self, key: str, spec: JobSpec) -> Mapping[str, Any]:
        """Start the keeper of the job, unless it has one, had one, or was cancelled before."""
        await asyncio.to_thread(self._submit, key, spec)
        return {"host": socket.gethostname(), "folder": str(self._home / key)}

    async def poll(self, key: str, handle: Mapping[str, Any]) -> JobStatus:
        return await asyncio.to_thread(self._poll, self._home / key, handle)

    async def cancel(self, key: str) -> None:
        """Tell the whole process group to end, and end it if it does not."""
        folder = self._home / key
        if await asyncio.to_thread(self._mark_cancelled, folder):
            return
        deadline = asyncio.get_running_loop().time() + self._kill_seconds
        await asyncio.to_thread(_signal, folder, signal.SIGTERM)
        while await asyncio.to_thread(_running, folder):
            if asyncio.get_running_loop().time() > deadline:
                await asyncio.to_thread(_signal, folder, signal.SIGKILL)
                return
            await asyncio.sleep(0.05)

    async def collect(self, key: str, handle: Mapping[str, Any]) -> JobResult:
        return await asyncio.to_thread(self._collect, self._home / key)

    # -- what blocks, each in a thread ------------------------------------------------------------------------------

    def _submit(self, key: str, spec: JobSpec) -> None:
        folder = self._home / key
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._prune()
            with _lock(folder) as lock:
                if lock is None or any((folder / name).exists() for name in ("pid", "exit", "cancelled")):
                    return
                self._start(folder, spec, lock)
        except OSError as error:
            raise ActionFailed(f"the job cannot be started in {folder}: {error}") from error

    def _start(self, folder: Path, spec: JobSpec, lock: int) -> None:
        told = {
            "command": list(spec.command),
            "working_directory": spec.working_directory or str(folder / "work"),
            "limit_seconds": spec.limit_seconds,
            "stdout_bytes": PAYLOAD_LIMIT + 1,
            "log_bytes": LOG_BYTES,
        }
        (folder / "work").mkdir(exist_ok=True)
        (folder / "spec.json").write_bytes(orjson.dumps(told))
        (folder / "input.json").write_bytes(orjson.dumps(dict(spec.inputs)))
        environment = {
            **self._environment,
            **spec.environment,
            "CIRCUIT_INPUT": str(folder / "input.json"),
            "CIRCUIT_RESULT": str(folder / "result"),
            "CIRCUIT_PROGRESS": str(folder / "progress"),
        }
        # Those that have ended are asked how, or they would stay as zombies.
        self._keepers = [one for one in self._keepers if one.poll() is None]
        started = subprocess.Popen(
            [sys.executable, "-I", keeper.__file__, str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock],
            start_new_session=True,
        )
        self._keepers.append(started)
        _wait_until(lambda: (folder / "pid").exists() or started.poll() is not None)

    def _poll(self, folder: Path, handle: Mapping[str, Any]) -> JobStatus:
        if not folder.exists():
            return JobStatus(
                JobState.LOST,
                detail=f"the job was started on {handle.get('host')} in {handle.get('folder')}, which is not there on"
                f" {socket.gethostname()}",
            )
        progress = _last_line(folder / "progress")
        # In this order: what ends between the two looks has written how before it lets go of the lock.
        alive = _running(folder)
        code = _text(folder / "exit")
        if (folder / "cancelled").exists() and not alive:
            return JobStatus(JobState.FAILED, progress, "the job was cancelled")
        if code == "0":
            return JobStatus(JobState.SUCCEEDED, progress)
        if code == "limit":
            return JobStatus(JobState.FAILED, progress, f"the job took too long and was ended{_told(folder)}")
        if code:
            return JobStatus(JobState.FAILED, progress, f"the job ended with {code}{_told(folder)}")
        if alive:
            return JobStatus(JobState.RUNNING, progress)
        return JobStatus(JobState.LOST, progress, f"the job was killed, or its machine was restarted{_told(folder)}")

    def _mark_cancelled(self, folder: Path) -> bool:
        """Write down that the job is not wanted. Returns whether it has ended, or never began."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (folder / "exit").exists():
            return True
        (folder / "cancelled").touch()
        # Who is about to start it holds the lock, and has seen the mark or has a process to end.
        return not _running(folder)

    def _collect(self, folder: Path) -> JobResult:
        result = folder / "result"
        source = result if result.exists() else folder / "stdout"
        if source.stat().st_size > PAYLOAD_LIMIT:
            raise InvalidOutput(f"the job's output has more than {PAYLOAD_LIMIT} bytes; write where it lies instead")
        content = source.read_bytes()
        try:
            output = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            if source is result:
                raise InvalidOutput(f"the job's result is no JSON: {error}") from None
            output = content.decode("utf-8", "replace")
        return JobResult(as_json("the job", output), _tail(folder / "log"))

    def _prune(self) -> None:
        """Once an hour, forget jobs that ended long ago."""
        now = time.time()
        if self._pruned_at is not None and now - self._pruned_at < 3600:
            return
        self._pruned_at = now
        for folder in self._home.iterdir():
            ended = folder / "exit"
            with contextlib.suppress(OSError):
                if ended.exists() and now - ended.stat().st_mtime > KEPT_SECONDS:
                    shutil.rmtree(folder)


@contextlib.contextmanager
def _lock(folder: Path) -> Generator[int | None]:
    """The lock of a job, or None where its keeper holds it. Others hold it for moments only."""
    number = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        taken = _wait_until(lambda: _try_lock(number) or (folder / "pid").exists()) and _try_lock(number)
        yield number if taken else None
    finally:
        # The keeper has inherited the lock; to close our number of it does not give it back.
        os.close(number)


def _try_lock(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running(folder: Path) -> bool:
    """Whether somebody holds the lock of the job. Looked at twice: another who only looks holds it for a moment."""
    for _ in range(2):
        number = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.002)
        else:
            return False
        finally:
            os.close(number)
    return True


def _wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LOCK_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _signal(folder: Path, number: signal.Signals) -> None:
    if _wait_until(lambda: (folder / "pid").exists() or not _running(folder)) and _running(folder):
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            os.killpg(int(_text(folder / "pid")), number)


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - TAIL_BYTES))
            return opened.read().decode("utf-8", "replace").replace("\0", "")
    except FileNotFoundError:
        return ""


def _last_line(file: Path) -> str:
    lines = _tail(file).strip().splitlines()
    return lines[-1][:500] if lines else ""


def _told(folder: Path) -> str:
    last = _last_line(folder / "log")
    return f": {last}" if last else ""

"""Which process this is, so that another one on the same machine can tell whether it still lives.

A pid alone is not enough: pids are used again, and a pid of another boot or of another pid namespace (a container)
is another process. So the host, the boot with its namespace, and the start of the pid belong to it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")
_SAME_START_SECONDS = 2.0
_PROC = Path("/proc")
_STATE, _STARTED = 0, 19
"""Where the state and the start stand in `/proc/PID/stat` behind the name (fields 3 and 22 of proc(5))."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one boot of one host. `pid_started` tells it from others that had its pid on the same boot.

    On Linux that is the clock ticks from the boot to its start: seconds since the epoch, which are reckoned from
    them, move with every correction of the machine's clock. Elsewhere it is those seconds.
    """

    host: str
    boot_id: str
    pid: int
    pid_started: float


def this_process() -> Process:
    """The process that asks."""
    return process_of(os.getpid())


def process_of(pid: int) -> Process:
    """The living process of this machine with that pid. Raises `psutil.NoSuchProcess`."""
    stat = _stat(pid)
    started = float(stat[_STARTED]) if stat is not None else psutil.Process(pid).create_time()
    return Process(socket.gethostname(), _boot_id(), pid, started)


def alive(pid: int, pid_started: float) -> bool:
    """Whether the process of this boot that had `pid`, and began then, still runs. A zombie does not."""
    if _stat(os.getpid()) is not None:
        stat = _stat(pid)
        if stat is None:
            # The kernel may hide the processes of others; one that may live is left to its lease.
            return psutil.pid_exists(pid) and _stat(1) is None
        return stat[_STATE] not in ("Z", "X") and float(stat[_STARTED]) == pid_started
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - pid_started) < _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _stat(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the third on, or None where there is no such file to be read."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name of the program stands in brackets and may hold anything, brackets too.
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > _STARTED else None


def _boot_id() -> str:
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # Not a Linux: the second in which the machine was booted names the boot.
        boot = str(round(psutil.boot_time()))
    try:
        return f"{boot}/{_PID_NAMESPACE.readlink()}"
    except OSError:
        return boot

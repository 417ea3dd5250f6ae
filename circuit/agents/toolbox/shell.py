"""A shell for agents, under bubblewrap: it sees the agent's files and the system's programs, and nothing else.

No network, no other process, no variable of this process, no right beyond its own; bounded in time, memory, processes
and output. Where there is no bubblewrap there is no shell: nothing runs without the sandbox.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from circuit.agents.function import function_tool
from circuit.agents.tools import Tool
from circuit.errors import ToolFailed, ToolsMisconfigured, ToolTimeout
from circuit.value import dataclass

NAME = "shell.run"
MEGABYTE = 1024 * 1024
MOST_PROCESSES = 256
WATCH_SECONDS = 0.05
_LIMITED = f'ulimit -p {MOST_PROCESSES} 2>/dev/null || ulimit -u {MOST_PROCESSES} 2>/dev/null; exec /bin/sh -c "$1"'
"""Counts the processes of the sandbox alone, since it is said inside of it."""
_READ_ONLY = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a command may take: seconds, bytes of memory and of files, bytes of output that are kept."""

    seconds: float = 60.0
    memory: int = 512 * MEGABYTE
    output: int = 64 * 1024
    files: int = 100 * MEGABYTE


def isolator() -> str:
    """The program that isolates. Raises `ToolsMisconfigured` where there is none that works."""
    found = shutil.which("bwrap")
    if found is None:
        raise ToolsMisconfigured(
            "shell.run needs bubblewrap, and there is no `bwrap` here: install it (apt-get install bubblewrap)."
            " Nothing runs without a sandbox."
        )
    return found


def shell_tool(root: Path, bounds: Bounds, find: Callable[[], str] = isolator) -> Tool:
    """A tool that runs commands in `root`. Raises `ToolsMisconfigured` where they could not be isolated."""
    program = find()

    async def run(command: Annotated[str, Field(min_length=1, max_length=20_000)]) -> dict[str, Any]:
        """Run a command with /bin/sh in a sandbox. The working directory /work holds the agent's files; there is no
        network. Gives back the exit code and what was written to standard output and standard error."""
        return await run_isolated(program, root, command, bounds)

    return function_tool(NAME, run, seconds=bounds.seconds + 10)


async def run_isolated(program: str, root: Path, command: str, bounds: Bounds) -> dict[str, Any]:
    """How `command` ended. Raises `ToolTimeout` where it took too long, `ToolFailed` where it had too many processes,
    `ToolsMisconfigured` where it could not be isolated."""
    told, telling = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--info-fd", str(telling), *sandbox(root, bounds, sized=_takes_sizes(program))),
            *("/bin/sh", "-c", _LIMITED, "sh", command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/work", "LANG": "C.UTF-8"},
            start_new_session=True,
            pass_fds=(telling,),
            preexec_fn=lambda: _bound(bounds),
        )
    except BaseException:
        os.close(told)
        raise
    finally:
        os.close(telling)
    assert process.stdout is not None and process.stderr is not None
    heard = asyncio.gather(_read(process.stdout, bounds.output), _read(process.stderr, bounds.output))
    inside, watching = _Inside(None), None
    try:
        async with asyncio.timeout(bounds.seconds):
            inside = _Inside(await asyncio.to_thread(_read_told, told))
            watching = asyncio.create_task(inside.watch())
            out, err = await asyncio.shield(heard)
            code = await process.wait()
    except TimeoutError:
        raise ToolTimeout(f"the command did not end within {bounds.seconds:g} s and was ended") from None
    finally:
        if watching is not None:
            watching.cancel()
        if process.returncode is None and not inside.end():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        inside.close()
        # Its pipes are read to their end: what nobody reads keeps them, and the process, from ending here.
        await asyncio.gather(heard, return_exceptions=True)
        await process.wait()
    if inside.crowded:
        raise ToolFailed(f"the command had more than {MOST_PROCESSES} processes and was ended")
    if code != 0 and err[0].startswith("bwrap: "):
        raise ToolsMisconfigured(f"the sandbox could not be made: {err[0][:300]}")
    ended = {"exit_code": code, "stdout": out[0], "stderr": err[0]}
    return ended | ({"truncated": True} if out[1] or err[1] else {})


def sandbox(root: Path, bounds: Bounds, *, sized: bool = True) -> list[str]:
    """The arguments that make the sandbox around a command. Where the program takes sizes, what lies in memory there is
    bounded, too."""
    made = ["--die-with-parent", "--unshare-all", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    for name, value in (("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/work"), ("LANG", "C.UTF-8")):
        made += ["--setenv", name, value]
    for path in _READ_ONLY:
        here = Path(path)
        if here.is_symlink():
            made += ["--symlink", str(here.readlink()), path]
        elif here.exists():
            made += ["--ro-bind", path, path]
    made += ["--proc", "/proc", "--dev", "/dev"]
    for path in ("/tmp", "/dev/shm"):
        made += [*(("--size", str(bounds.memory)) if sized else ()), "--tmpfs", path]
    made += ["--bind", str(root), "/work", "--chdir", "/work"]
    # Root may write to much of /proc without any right: what it sets there holds for the whole machine.
    for path in ("/proc", "/dev", "/"):
        made += ["--remount-ro", path]
    return made


class _Inside:
    """The first process in a sandbox: with it end all others there."""

    def __init__(self, pid: int | None) -> None:
        self.crowded = False
        self._pid = pid
        self._handle: int | None = None
        if pid is not None:
            # A number may mean another process when this one has ended.
            with suppress(OSError):
                self._handle = os.pidfd_open(pid)

    async def watch(self) -> None:
        """End it where there are too many others: no limit of the system holds for root."""
        while not self.crowded:
            await asyncio.sleep(WATCH_SECONDS)
            self.crowded = self._others() > MOST_PROCESSES
        self.end()

    def end(self) -> bool:
        """Whether it could be told to end."""
        if self._handle is None:
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        return True

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _others(self) -> int:
        if self._handle is None:
            return 0
        with suppress(OSError):
            return sum(path.name.isdecimal() for path in Path(f"/proc/{self._pid}/root/proc").iterdir())
        return 0


def _read_told(descriptor: int) -> int | None:
    """The number of the first process in the sandbox, as bubblewrap tells it; None where it made none."""
    with os.fdopen(descriptor, "rb") as told:
        said = told.read()
    with suppress(ValueError, KeyError, TypeError):
        return int(json.loads(said)["child-pid"])
    return None


@cache
def _takes_sizes(program: str) -> bool:
    with suppress(OSError, subprocess.SubprocessError):
        return b"--size" in subprocess.run([program, "--help"], capture_output=True, timeout=10, check=False).stdout
    return False


def _bound(bounds: Bounds) -> None:
    """Runs in the child before the program: what is set here holds for all that it starts."""
    for kind, most in (
        (resource.RLIMIT_AS, bounds.memory),
        (resource.RLIMIT_CPU, int(bounds.seconds) + 1),
        (resource.RLIMIT_FSIZE, bounds.files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        resource.setrlimit(kind, (most, most))


async def _read(stream: asyncio.StreamReader, limit: int) -> tuple[str, bool]:
    """What a stream says, at most `limit` bytes of it, and whether there was more; the rest is read and dropped, so
    that the command does not wait for somebody to read it."""
    kept = bytearray()
    more = False
    while piece := await stream.read(65_536):
        room = limit - len(kept)
        kept += piece[:room]
        more = more or len(piece) > room
    return kept.decode("utf-8", "replace").replace("\0", "\ufffd"), more

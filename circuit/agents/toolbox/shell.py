"""A shell for agents, under bubblewrap: it sees the agent's files and the system's programs, and nothing else.

No network, no other process, no variable of this process, no right beyond its own; bounded in time, memory, processes
and output. Where there is no bubblewrap there is no shell: nothing runs without the sandbox.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from circuit.agents.function import function_tool
from circuit.agents.tools import Tool
from circuit.errors import ToolsMisconfigured, ToolTimeout
from circuit.value import dataclass

NAME = "shell.run"
MEGABYTE = 1024 * 1024
MOST_PROCESSES = 256
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
    """How `command` ended. Raises `ToolTimeout` where it took too long, `ToolsMisconfigured` where it could not be
    isolated."""
    process = await asyncio.create_subprocess_exec(
        program,
        *sandbox(root),
        "/bin/sh",
        "-c",
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/work", "LANG": "C.UTF-8"},
        start_new_session=True,
        preexec_fn=lambda: _bound(bounds),
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(bounds.seconds):
            out, err = await asyncio.gather(_read(process.stdout, bounds.output), _read(process.stderr, bounds.output))
            code = await process.wait()
    except TimeoutError:
        raise ToolTimeout(f"the command did not end within {bounds.seconds:g} s and was ended") from None
    finally:
        if process.returncode is None:
            # The sandbox dies with its parent, and with it every process in it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code != 0 and err[0].startswith("bwrap: "):
        raise ToolsMisconfigured(f"the sandbox could not be made: {err[0][:300]}")
    ended = {"exit_code": code, "stdout": out[0], "stderr": err[0]}
    return ended | ({"truncated": True} if out[1] or err[1] else {})


def sandbox(root: Path) -> list[str]:
    """The arguments that make the sandbox around a command."""
    made = ["--die-with-parent", "--unshare-all", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    for name, value in (("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/work"), ("LANG", "C.UTF-8")):
        made += ["--setenv", name, value]
    for path in _READ_ONLY:
        here = Path(path)
        if here.is_symlink():
            made += ["--symlink", str(here.readlink()), path]
        elif here.exists():
            made += ["--ro-bind", path, path]
    made += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind", str(root), "/work", "--chdir", "/work"]
    return made


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

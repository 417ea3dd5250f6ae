"""Keeps one job: runs its command, keeps what it says within bounds, and writes down how it ended.

A script of its own, for it must outlive the worker that started it: `python keeper.py FOLDER`. It holds the lock that
it inherits for as long as it lives, which is how others know that the job runs. It imports nothing of Circuit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

PIECE = 64 * 1024
GRACE_SECONDS = 5.0


def main(folder: Path) -> None:
    """Run the command of `folder` to its end."""
    # A signal to the group is meant for the command. (A handler, unlike being ignored, is not inherited by it.)
    signal.signal(signal.SIGTERM, lambda *_: None)
    told: dict[str, Any] = json.loads((folder / "spec.json").read_text())
    put(folder / "pid", str(os.getpid()))
    try:
        with (folder / "input.json").open("rb") as given:
            command = subprocess.Popen(
                told["command"],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=told["working_directory"],
            )
    except OSError as error:
        (folder / "log").write_text(f"the command cannot be started: {error}\n")
        put(folder / "exit", "127")
        return
    assert command.stdout is not None and command.stderr is not None
    pumps = [
        threading.Thread(target=pump, args=(command.stdout, folder / "stdout", told["stdout_bytes"]), daemon=True),
        threading.Thread(target=pump, args=(command.stderr, folder / "log", told["log_bytes"]), daemon=True),
    ]
    for one in pumps:
        one.start()
    code = waited(command, told["limit_seconds"])
    # What the command left running in the background may hold its output open for ever.
    for one in pumps:
        one.join(GRACE_SECONDS)
    put(folder / "exit", code)


def waited(command: subprocess.Popen[bytes], limit: float | None) -> str:
    """How the command ended; after its time it is ended."""
    try:
        return str(command.wait(limit))
    except subprocess.TimeoutExpired:
        command.terminate()
        try:
            command.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
        return "limit"


def pump(source: IO[bytes], target: Path, limit: int) -> None:
    """Write what comes from `source`, up to `limit` bytes; the rest is read and dropped, so that nobody waits."""
    left = limit
    with target.open("wb") as file:
        while piece := os.read(source.fileno(), PIECE):
            file.write(piece[:left])
            file.flush()
            left = max(0, left - len(piece))


def put(file: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    draft = file.with_name(f"{file.name}.new")
    draft.write_text(text)
    draft.replace(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

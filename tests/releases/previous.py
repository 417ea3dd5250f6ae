"""The newest release that `RELEASES` names, laid out from the history of the repository, and its programs."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120.0


def newest() -> tuple[str, str]:
    """The tag and the commit of the newest release."""
    lines = [line.split() for line in (ROOT / "RELEASES").read_text().splitlines() if line and line[0] != "#"]
    tag, commit = lines[0]
    return tag, commit


def in_history(commit: str) -> bool:
    """Whether this checkout holds the commit (an archive of the sources, or a shallow clone, does not)."""
    asked = ["git", "-C", str(ROOT), "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def lay_out(commit: str, folder: Path) -> Path:
    """The tree of `commit` in `folder`."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tree:
        tree.extractall(folder, filter="data")
    return folder


class Release:
    """A release that is laid out in `tree`; its programs run with its own package in front of the installed one."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    async def circuit(self, *arguments: str, url: str) -> tuple[int, str]:
        """The command `circuit` of this release: its exit code and what it printed."""
        process = await self._spawn("-m", "circuit", *arguments, CIRCUIT_DATABASE_URL=url)
        out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        assert process.returncode is not None
        return process.returncode, out.decode()

    @asynccontextmanager
    async def worker(self, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker of this release, while the block runs; it can claim when the block begins."""
        process = await self._spawn(str(self.tree / "tests" / "chaos" / "crash_run.py"), "--url", url, "work")
        assert process.stdout is not None
        try:
            said: Any = None
            while said != {"working": True}:
                line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
                assert line, "the worker of the previous release ended at once"
                said = json.loads(line) if line.startswith(b"{") else line
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), DEADLINE_SECONDS)

    async def _spawn(self, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.tree,
            env={**os.environ, "PYTHONPATH": str(self.tree), "CIRCUIT_LEASE_SECONDS": "1", **variables},
        )

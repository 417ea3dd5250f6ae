"""The environments of the contestants, each with its own packages, made once and kept in `.bench/`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.contestants import Contestant

CACHE = Path(__file__).resolve().parent.parent / ".bench"


class NotInstallable(Exception):
    """A contestant's packages cannot be had here."""


def python_of(contestant: Contestant) -> Path:
    """The Python that runs `contestant`, after its packages are installed. Raises `NotInstallable`."""
    if not contestant.packages:
        return Path(sys.executable)
    home = _home(contestant)
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        shutil.rmtree(home, ignore_errors=True)
        _run(contestant, [sys.executable, "-m", "venv", str(home)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run(contestant, [*pip, *contestant.packages])
        if contestant.node:
            npm = shutil.which("npm")
            if npm is None:
                raise NotInstallable(f"{contestant.name} needs npm, which is not there")
            _run(
                contestant, [npm, "install", "--silent", "--no-audit", "--prefix", str(home / "node"), *contestant.node]
            )
        (home / "installed").touch()
    return python


def _home(contestant: Contestant) -> Path:
    wanted = " ".join([sys.version, *contestant.packages, *contestant.node])
    return CACHE / f"{contestant.name.replace(' ', '-')}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"


def _run(contestant: Contestant, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason was given"]
        raise NotInstallable(f"{contestant.name} cannot be installed: {last[0]}")

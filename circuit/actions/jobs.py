"""The interface to whatever runs jobs: processes of this machine now, clusters and trainers later.

A backend knows no case and no database. It is asked in short calls, none of which waits for the job: between two of
them nobody holds anything, so a job may take days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class JobState(StrEnum):
    """`LOST`: it is neither running nor has it said how it ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What is to be run. `environment` holds secrets: it is handed on, and never written down."""

    command: Sequence[str]
    inputs: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    working_directory: str | None = None
    limit_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How a job stands. `progress` is the last that it said of itself, `detail` why it is not well."""

    state: JobState
    progress: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job that succeeded gave: its output (JSON, or text that is none) and the end of its log."""

    output: Any
    log: str = ""


class JobBackend(Protocol):
    """Runs jobs. A job is known by the key that it was submitted under."""

    async def submit(self, key: str, spec: JobSpec) -> Mapping[str, Any]:
        """Start the job, once: with a key that was used before, nothing is started. Returns how to find it again
        (JSON), also from another process. Raises one of Circuit's errors where it cannot be started."""
        ...

    async def poll(self, key: str, handle: Mapping[str, Any]) -> JobStatus:
        """How the job stands."""
        ...

    async def cancel(self, key: str) -> None:
        """End the job, and let none be started under this key any more. A job that has ended stays as it is."""
        ...

    async def collect(self, key: str, handle: Mapping[str, Any]) -> JobResult:
        """The result of a job that has succeeded. Raises `InvalidOutput`. May be asked for again."""
        ...

"""A real server on a loopback port, over real streams; commands and queries are small and in memory."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "streams")]

from served import Served, Serving, served  # noqa: E402
from stage import Stage  # noqa: E402

from circuit.api.graphql import agents, incidents  # noqa: E402
from circuit.app import figures  # noqa: E402
from circuit.engine import reach  # noqa: E402


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine what is slow is not taken for what is away: the database, or the answer of a case."""
    monkeypatch.setattr(figures, "DATABASE_SECONDS", 60.0)
    monkeypatch.setattr(reach, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(incidents, "WAIT_SECONDS", 60.0)
    monkeypatch.setattr(agents, "BEGIN_SECONDS", 60.0)


@pytest.fixture
async def writing(database_url: str) -> AsyncIterator[Stage]:
    """The process that runs executions."""
    async with Stage(database_url) as stage:
        yield stage


@pytest.fixture
async def reading(database_url: str) -> AsyncIterator[Stage]:
    """The process that serves, with a ring that is too small for most streams."""
    async with Stage(database_url, ring=5) as stage:
        yield stage


@pytest.fixture
def serving() -> Serving:
    return served


@pytest.fixture
async def server(reading: Stage) -> AsyncIterator[Served]:
    """A server in another process than the one that writes."""
    async with served(reading) as running:
        yield running

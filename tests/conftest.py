"""What tests of several parts use: a Postgres server for the session, and a fresh migrated database for each test."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from postgres import Server, execute, make_folder

from circuit.providers.vllm.spec import installed

# How long a case takes says more of the machine, and of what else runs there, than of what is tested.
hypothesis.settings.register_profile("circuit", deadline=None)
hypothesis.settings.load_profile("circuit")

TEMPLATE = "migrated"
_numbers = itertools.count(1)


collect_ignore = [] if installed() else ["vllm"]
"""The tests of vLLM's own engine need an environment of their own."""

LONGEST = (
    "chaos/test_faults_of_processes.py",
    "chaos/test_faults_of_the_database.py",
    "engine/test_simulation.py",
    "chaos/test_crashes.py",
    "api/test_api_hardness.py",
    "chaos/test_controls.py",
    "test_package.py",
    "net/test_net_analysis_truth.py",
)
"""Files that take longest begin first, so that what is left at the end is small, and no process has it alone."""


def pytest_configure(config: pytest.Config) -> None:
    # Files are handed out in the order that `pytest_collection_modifyitems` gives them.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).resolve().parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if collect_ignore:
        terminalreporter.write_line("tests/vllm was left out: vLLM is not installed. `make test-vllm` installs it.")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A Postgres server over TCP, for the whole session (each process of pytest-xdist has its own)."""
    server = Server()
    server.create()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A Postgres server of the test's own, for it to stop and start."""
    server = Server()
    server.create()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def migrated_template(postgres_server: Server) -> str:
    """The name of a migrated database that nobody connects to: fresh ones are copies of it."""
    from circuit.storage import schema

    async def prepare() -> None:
        await execute(postgres_server.url(), f"CREATE DATABASE {TEMPLATE}")
        await schema.upgrade(postgres_server.url(TEMPLATE))

    asyncio.run(prepare())
    return TEMPLATE


@pytest.fixture
async def database_url(postgres_server: Server, migrated_template: str) -> AsyncIterator[str]:
    """The URL of a fresh database at the newest revision."""
    async for url in _fresh(postgres_server, f"TEMPLATE {migrated_template}"):
        yield url


@pytest.fixture
async def empty_database_url(postgres_server: Server) -> AsyncIterator[str]:
    """The URL of a fresh database without any table."""
    async for url in _fresh(postgres_server, ""):
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[object]:
    """An opened `Database` on a fresh database at the newest revision."""
    from circuit.storage.database import Database

    opened = await Database.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """A fresh directory for an embedded database."""
    folder = make_folder("circuit-home-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def _fresh(server: Server, options: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await execute(server.url(), f"CREATE DATABASE {name} STRATEGY {'file_copy' if options else 'wal_log'} {options}")
    yield server.url(name)
    await execute(server.url(), f"DROP DATABASE {name} WITH (FORCE)")

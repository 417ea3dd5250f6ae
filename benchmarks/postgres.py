"""The Postgres that is measured: on a disk, with nothing in it, and gone when the measurement is over."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from circuit.storage import embedded


@contextmanager
def postgres() -> Generator[tuple[str, Path]]:
    """The URL of a server of its own, and a folder beside its directory `home`, for what else there is to be kept."""
    with tempfile.TemporaryDirectory(prefix="circuit-bench-", dir="/tmp") as directory:
        folder = Path(directory)
        # As root, the server runs as somebody else.
        folder.chmod(0o755)
        server = embedded.start(folder / "home")
        try:
            yield server.url, folder
        finally:
            server.stop()

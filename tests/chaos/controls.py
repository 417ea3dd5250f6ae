"""Builds that are broken on purpose: each takes one of the lessons away that Circuit is built on. The checks of this
suite must find each of them out (`tests/chaos/test_controls.py`); a suite that never caught anything proves nothing.

A control changes the code of the process that it is called in, before that opens Circuit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any


def no_fence() -> None:
    """Nobody asks whether a worker is fenced or owns what it writes to, and a worker does not hear that it is dead."""
    from circuit.engine.lease import Lease
    from circuit.storage import statements, workers

    statements.FENCE = "SELECT 1 WHERE $1::uuid IS NOT NULL"
    for name in ("cases", "logs"):
        section = statements.BY_NAME[name]
        statements.BY_NAME[name] = replace(section, sql=section.sql.replace("t.owner IS NOT DISTINCT FROM $1", "true"))
    statements.compose.cache_clear()
    Lease._lose = _nothing  # type: ignore[method-assign]
    workers.retire = _nobody_ends  # type: ignore[assignment]


def notify_carries() -> None:
    """A notification is what brings work, and not only a hint: nobody looks of his own accord."""
    from circuit.engine import claims
    from circuit.engine.engine import Engine
    from circuit.engine.worker import Worker

    async def rest(self: claims.Claims) -> None:
        await self._woken.wait()

    async def find_nothing(self: claims.Claims, connection: object) -> None:
        return

    heard = Engine._heard

    def hears_names_only(self: Engine, names: Any) -> None:
        if names:
            heard(self, names)

    def tells_nobody(self: Worker, of: claims.Claims) -> Callable[[], None]:
        return lambda: None

    Worker._granted = tells_nobody  # type: ignore[method-assign]
    claims.Claims._rest = rest  # type: ignore[method-assign]
    claims.Claims._find_forgotten = find_nothing  # type: ignore[method-assign]
    Engine._heard = hears_names_only  # type: ignore[method-assign]


def unordered_locks() -> None:
    """Whoever makes cases ready takes their locks in whatever order they come."""
    from circuit.storage import statements

    section = statements.BY_NAME["ready"]
    disordered = section.sql.replace("ORDER BY tenant_id, case_id", "ORDER BY tenant_id DESC, case_id DESC")
    assert disordered != section.sql
    statements.BY_NAME["ready"] = replace(section, sql=disordered)
    statements.compose.cache_clear()


def stream_renews_the_lease() -> None:
    """The lease is renewed by what the model says, as if that were a sign of life of the worker."""
    from circuit.engine.lease import Lease
    from circuit.streams.publisher import Outlet

    said = [True]
    send, renewed = Outlet._send, Lease._renewed

    def sends(self: Outlet, delta: Any) -> None:
        said[0] = True
        send(self, delta)

    async def renews(self: Lease, connection: Any) -> Any:
        if said[0]:
            said[0] = False
            return await renewed(self, connection)
        assert self._renewal is not None
        return await connection.fetchval("SELECT now()")

    Outlet._send = sends  # type: ignore[method-assign]
    Lease._renewed = renews  # type: ignore[method-assign]


CONTROLS: dict[str, Callable[[], None]] = {
    "no fence": no_fence,
    "NOTIFY as the carrier": notify_carries,
    "unordered locks": unordered_locks,
    "a lease renewed by the stream": stream_renews_the_lease,
}


def _nothing(self: object, loss: object) -> None:
    return


async def _nobody_ends(connection: object, worker: object) -> int:
    return 0

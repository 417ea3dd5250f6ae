"""Who follows a case slowly hears all that its executions said, and a database that is away is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

import pytest
from pretended import NAME, frame
from virtual_time import EPOCH, run

from circuit.engine.views import CaseStanding
from circuit.errors import DatabaseUnreachable
from circuit.events import CaseEnded, CaseEvent, FiringBegun, Frame, StreamType, TransitionFired
from circuit.happenings import AWAY_SECONDS, CaseUpdate, Happening, happenings
from circuit.ids import CaseKey, Numbered, parse_numbered
from circuit.storage.records import CaseStatus

SAID = 1_500
FOUND = parse_numbered(NAME)
assert FOUND is not None
KEY = CaseKey(1, FOUND.case)


class Source:
    """A case whose one execution says much and ends."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent

    async def follow(self, key: CaseKey, after: int = 0) -> AsyncGenerator[tuple[int, datetime, CaseEvent], None]:
        yield 1, EPOCH, FiringBegun("ask", 1, NAME, ())
        yield 2, EPOCH, TransitionFired("ask", (), (), firing=1, execution_id=NAME)
        yield 3, EPOCH, CaseEnded("completed")

    async def subscribe(self, name: Numbered, tenant: int, **_: Any) -> AsyncGenerator[Frame, None]:
        for number in range(1, SAID):
            yield frame(1, number)
        if self._silent:
            await asyncio.Event().wait()
        yield frame(1, SAID, StreamType.COMPLETED)


async def followed(source: Source, seconds: float) -> list[Happening]:
    """All that happens, to somebody who takes so long for each."""

    async def never() -> Any:
        raise AssertionError("a case that ends is not asked whether it rests")

    seen: list[Happening] = []
    found: Any = happenings(source, KEY, never, lambda _: False, frozenset(), never, print)  # type: ignore[arg-type]
    async for one in found:
        seen.append(one)
        await asyncio.sleep(seconds)
    return seen


def test_no_frame_is_lost_to_who_takes_long_and_the_event_of_the_end_comes_after_the_last() -> None:
    seen = run(followed(Source(), 0.05))
    assert [one.seq for one in seen if isinstance(one, CaseUpdate)] == [1, 2, 3]
    assert len(seen) == SAID + 3
    assert [isinstance(one, CaseUpdate) for one in seen[-3:]] == [False, True, True]


def test_a_stream_that_never_ends_keeps_nobody_from_the_end() -> None:
    assert len(run(followed(Source(silent=True), 0.05))) == SAID - 1 + 3


@pytest.mark.parametrize(("away", "ends"), [(AWAY_SECONDS - 5, True), (AWAY_SECONDS + 5, False)])
def test_a_database_that_is_away_is_waited_for_but_not_for_ever(away: float, ends: bool) -> None:
    async def look() -> CaseStanding:
        if asyncio.get_running_loop().time() - begun < away:
            raise DatabaseUnreachable("The database did not answer.")
        return CaseStanding(CaseStatus.WAITING, 0, owned=False)

    class Nothing(Source):
        async def follow(self, key: CaseKey, after: int = 0) -> AsyncGenerator[tuple[int, datetime, CaseEvent], None]:
            await asyncio.Event().wait()
            yield 1, EPOCH, CaseEnded("completed")

    begun = 0.0

    async def follow() -> None:
        nonlocal begun
        begun = asyncio.get_running_loop().time()
        found: Any = happenings(Nothing(), KEY, look, lambda _: True, frozenset(), look, print)  # type: ignore[arg-type]
        async for _ in found:
            raise AssertionError("nothing happens in this case")

    if ends:
        run(follow())
    else:
        with pytest.raises(DatabaseUnreachable):
            run(follow())

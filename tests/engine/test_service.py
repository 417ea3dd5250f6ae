"""Services: started once, stopped as often as one likes, and outliving their faults."""

from __future__ import annotations

import asyncio
import random

import pytest
from eventually import eventually

from circuit.engine.service import Backoff, Service
from circuit.errors import DatabaseUnreachable


class Loop(Service):
    """Fails as often as it is told, then works until it is stopped."""

    def __init__(self, failures: list[BaseException]) -> None:
        super().__init__("test")
        self._backoff = Backoff(first=0.001, longest=0.002)
        self.failures = failures
        self.runs = 0
        self.ended = False

    async def _run(self) -> None:
        self.runs += 1
        if self.failures:
            raise self.failures.pop(0)
        self._working()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def test_it_starts_works_and_stops() -> None:
    service = Loop([])
    await service.start()
    await service.started.wait()
    await service.stop()
    assert service.ended
    await service.stop()


async def test_stopping_before_the_start_does_nothing() -> None:
    await Loop([]).stop()


async def test_starting_twice_is_an_error() -> None:
    service = Loop([])
    await service.start()
    with pytest.raises(RuntimeError, match="test"):
        await service.start()
    await service.stop()


async def test_it_goes_on_after_errors_of_every_kind() -> None:
    service = Loop([DatabaseUnreachable("gone"), ValueError("a fault of ours"), DatabaseUnreachable("gone")])
    await service.start()
    await asyncio.wait_for(service.started.wait(), 60)
    assert service.runs == 4
    await service.stop()


async def test_a_stray_cancellation_does_not_end_it() -> None:
    service = Loop([asyncio.CancelledError(), BaseExceptionGroup("several", [asyncio.CancelledError()])])
    await service.start()
    await asyncio.wait_for(service.started.wait(), 60)
    assert service.runs == 3
    await service.stop()
    assert service.ended


async def test_whoever_cancels_its_task_ends_it() -> None:
    service = Loop([])
    await service.start()
    await service.started.wait()
    assert service._task is not None
    service._task.cancel()
    await asyncio.wait_for(asyncio.gather(service._task, return_exceptions=True), 60)
    assert service.ended and service.runs == 1


async def test_a_stop_does_not_wait_for_the_backoff() -> None:
    service = Loop([ValueError("fails")])
    service._backoff = Backoff(first=1000, longest=1000, rng=random.Random(1))
    await service.start()
    await eventually(lambda: service.runs == 1)
    await asyncio.wait_for(service.stop(), 60)
    assert service.runs == 1


def test_waits_grow_to_a_limit_with_full_jitter() -> None:
    backoff = Backoff(first=1, longest=8, rng=random.Random(7))
    waits = [backoff.next() for _ in range(400)]
    for number, ceiling in enumerate((1, 2, 4)):
        assert 0 <= waits[number] <= ceiling
    assert max(waits) <= 8
    assert max(waits) > 7 and min(waits[10:]) < 1, "each wait is drawn from zero up"
    backoff.reset()
    assert backoff.next() <= 1


async def test_ready_raises_what_keeps_it_from_working_and_waits_out_what_passes() -> None:
    passing = Loop([DatabaseUnreachable("gone"), DatabaseUnreachable("gone")])
    await passing.start()
    await asyncio.wait_for(passing.ready(), 60)
    await passing.stop()
    refused = Loop([ValueError("never")] * 50)
    await refused.start()
    with pytest.raises(ValueError, match="never"):
        await asyncio.wait_for(refused.ready(), 60)
    await refused.stop()

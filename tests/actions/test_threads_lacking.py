"""A system that gives no more threads."""

from __future__ import annotations

import threading

import pytest

from circuit.threads import Threads


async def test_a_thread_that_cannot_be_had_takes_nobody_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(1)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            await threads.run("work", lambda: 1)
    assert await threads.run("work", lambda: 2) == 2

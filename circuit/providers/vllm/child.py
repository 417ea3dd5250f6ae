"""What runs in the process of a model: it hears orders on its socket and answers what its engine says.

Orders are objects: first what to load, then `{ask: KIND, id, ...}`, `{abort: id}` and `{end: true}`. What goes back are
lists of messages `[KIND, id, CONTENT]`, as many as have come up since the last one was sent: `ready` or `refused` once,
then for each id pieces (`text`, `delta`) and at last one `end` or `fault`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, NoReturn

from circuit import collector
from circuit.providers.vllm.frame import frame, receive
from circuit.providers.vllm.port import PIECES, Engine, EngineDead, EngineFault, Message, joined

PAUSE_SECONDS = 0.03
PIECES_A_SECOND = 2_000
DEAD = 70
"""The exit code of a process whose engine is dead (EX_SOFTWARE)."""

OpenEngine = Callable[[Mapping[str, Any]], Awaitable[Engine]]


class Sender:
    """Sends what has come up. The first piece of an answer and its end go at once; what comes between goes with what
    others say, at most every `PAUSE_SECONDS`, and the more rarely the more are answered at once: never more than about
    `PIECES_A_SECOND` in all, for what is done for a piece on the other side costs more than its tokens."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, list[Message]] = {}
        # Who has said something and has not come to his end, and who does not wait.
        self._speaking: set[int] = set()
        self._urgent: dict[int, None] = {}
        self._sent_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()

    def send(self, kind: str, number: int, content: Any) -> None:
        waiting = self._pending.setdefault(number, [])
        longer = joined(waiting[-1], (kind, content)) if waiting else None
        if longer is not None:
            waiting[-1] = longer
        else:
            waiting.append((kind, content))
        if kind not in PIECES:
            self._speaking.discard(number)
        elif number in self._speaking:
            if self._timer is None:
                pause = max(PAUSE_SECONDS, len(self._speaking) / PIECES_A_SECOND)
                self._timer = self._loop.call_at(self._sent_at + pause, self._hurry)
            return
        else:
            self._speaking.add(number)
        self._urgent[number] = None
        self._wake.set()

    def over(self, number: int) -> None:
        """Nobody speaks under `number` any more, also where it came to no end."""
        self._speaking.discard(number)

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            urgent, self._urgent = self._urgent, {}
            await self._send([(number, self._pending.pop(number)) for number in urgent if number in self._pending])

    async def flush(self) -> None:
        """Send all that is there."""
        pending, self._pending = self._pending, {}
        await self._send(list(pending.items()))

    def _hurry(self) -> None:
        """Nothing waits any longer."""
        self._timer = None
        self._sent_at = self._loop.time()
        self._urgent = dict.fromkeys(self._pending)
        self._wake.set()

    async def _send(self, batch: list[tuple[int, list[Message]]]) -> None:
        if batch:
            self._writer.write(frame([(kind, number, content) for number, said in batch for kind, content in said]))
        # A reader that is slow makes the pieces larger and not the queue of them longer.
        await self._writer.drain()


async def serve(number: int, open_engine: OpenEngine) -> None:
    """Load what the first order says and answer until the other side ends it, or closes the socket `number`."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=number))
    sender = Sender(writer)
    try:
        engine = await open_engine(await _heard(reader))
    except EngineFault as fault:
        sender.send("refused", 0, fault.as_dict())
        await sender.flush()
        return
    collector.keep()
    collector.relax()
    sender.send("ready", 0, dict(engine.about()))
    sending = asyncio.create_task(sender.run())
    tasks: dict[int, asyncio.Task[None]] = {}
    try:
        while "end" not in (order := await _heard(reader)):
            if "abort" in order:
                if (task := tasks.get(order["abort"])) is not None:
                    task.cancel()
                continue
            asked: int = order["id"]
            task = tasks[asked] = asyncio.create_task(answer(engine, sender, asked, order))
            task.add_done_callback(lambda _, asked=asked: tasks.pop(asked, None))
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        sending.cancel()
        await engine.close()


async def _heard(reader: asyncio.StreamReader) -> Mapping[str, Any]:
    """The next order. Where the other side has closed, nothing of this process goes on."""
    order = await receive(reader)
    if order is None:
        _end_group()
    return order


async def answer(engine: Engine, sender: Sender, number: int, order: Mapping[str, Any]) -> None:
    """Send what the engine says to one order, to its end or until it is given up."""
    try:
        async with aclosing(engine.answer(order["ask"], str(number), order)) as pieces:
            async for kind, content in pieces:
                sender.send(kind, number, content)
    except EngineFault as fault:
        sender.send("fault", number, fault.as_dict())
    except EngineDead:
        # The one that started this process sees it end, and starts another.
        with contextlib.suppress(Exception):
            await sender.flush()
        os._exit(DEAD)
    except Exception as error:
        sender.send("fault", number, {"code": 500, "message": f"{type(error).__name__}: {error}"})
    finally:
        sender.over(number)


def watch(number: int) -> None:
    """End the whole process group as soon as the other side of the socket `number` is closed: the engine's processes
    go with this one, however Circuit ended."""

    def wait() -> None:
        poll = select.poll()
        # To hear of the end only: what can be read is none of this thread's business.
        poll.register(number, select.POLLHUP)
        poll.poll()
        _end_group()

    threading.Thread(target=wait, name="circuit-watch", daemon=True).start()


def _end_group() -> NoReturn:
    os.killpg(os.getpgrp(), signal.SIGKILL)
    raise SystemExit(DEAD)


def run(
    open_engine: OpenEngine,
    arguments: list[str],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Be the process of a model: `arguments` are the number of its socket."""
    # A group, so that it is ended with all that it starts; and not a session: among those Linux shares processors out
    # before it asks who yields to whom.
    os.setpgid(0, 0)
    number = int(arguments[0])
    watch(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(number, open_engine))
    return 0

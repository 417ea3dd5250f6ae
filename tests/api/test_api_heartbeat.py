"""The heartbeat of server-sent events, in virtual time and without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

from pretended import NAME, Process, Store, frame
from virtual_time import pass_time, run

from circuit.api.authentication import PRINCIPAL
from circuit.api.problems import Problems
from circuit.api.readers import Readers
from circuit.api.sse import HEARTBEAT_SECONDS, EventEndpoint
from circuit.app import SystemClock
from circuit.events import StreamType
from circuit.ids import Numbered
from circuit.security.principal import LOCAL
from circuit.streams.cursor import BEGINNING, Cursor
from circuit.streams.reader import Reader


class PretendedStreams:
    """Opens readers over a log without a database."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def open(self, execution: Numbered, tenant: int, after: Cursor | None = None) -> Reader:
        assert (str(execution), tenant) == (NAME, 1)
        return await self.process.open(after or BEGINNING)


class Connection:
    """What an ASGI server hands to an application, with the time at which each part was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, dict[str, Any]]] = []
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append((asyncio.get_running_loop().time(), dict(message)))

    def parts(self) -> list[tuple[float, bytes]]:
        return [(at, message["body"]) for at, message in self.sent if message["type"] == "http.response.body"]


async def begin(process: Process, connection: Connection) -> tuple[asyncio.Task[None], Readers]:
    readers = Readers(PretendedStreams(process))  # type: ignore[arg-type]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "path_params": {"execution_id": NAME},
        PRINCIPAL: LOCAL,
    }
    endpoint = EventEndpoint(readers, Problems(SystemClock()))
    task = asyncio.create_task(endpoint(scope, connection.receive, connection.send))
    await pass_time(0)
    return task, readers


def test_a_silent_stream_says_every_quarter_of_a_minute_that_it_lives() -> None:
    async def main() -> None:
        store, connection = Store(), Connection()
        process = Process(store)
        task, readers = await begin(process, connection)
        await pass_time(3 * HEARTBEAT_SECONDS + 1)
        store.add(frame(1, 1))
        process.relay.hear(NAME)
        await pass_time(HEARTBEAT_SECONDS + 2)
        store.add(frame(1, 2, StreamType.COMPLETED), ended=True)
        process.relay.hear(NAME)
        await asyncio.wait_for(task, 60)
        first, *parts, last = connection.parts()
        assert first[1] == b"retry: 2000\n\n"
        beats = [at for at, part in parts if part.startswith(b":")]
        assert [round(at / HEARTBEAT_SECONDS, 2) for at in beats[:3]] == [1.0, 2.0, 3.0]
        events = [part for _, part in parts if not part.startswith(b":")]
        assert [part.splitlines()[0] for part in events] == [b"id: 1-1", b"id: 1-2"]
        assert last[1] == b""
        assert len(readers) == 0

    run(main())


def test_a_client_that_goes_while_nothing_is_said_is_noticed_at_once() -> None:
    async def main() -> None:
        connection = Connection()
        process = Process(Store())
        task, readers = await begin(process, connection)
        await pass_time(1.0)
        begun = asyncio.get_running_loop().time()
        connection.gone.set()
        await task
        assert asyncio.get_running_loop().time() == begun
        assert (len(readers), len(process.broker)) == (0, 0)

    run(main())

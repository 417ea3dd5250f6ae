"""`/stream`: many subscriptions over one WebSocket, and what becomes of what is no message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from served import Served, Serving
from stage import Stage, collect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from whole import whole

from circuit.api.multiplex.message import LONGEST_MESSAGE
from circuit.api.multiplex.socket import MOST_SUBSCRIPTIONS
from circuit.events import FiringResumed

SECONDS = 120.0


class Client:
    """One WebSocket of `/stream`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: dict[str, list[str]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.marks: list[str] = []
        self.kept: list[dict[str, Any]] = []

    async def say(self, message: Any) -> None:
        await self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def subscribe(self, name: str, **wanted: Any) -> None:
        await self.say({"type": "subscribe", "id": name, **wanted})

    async def until(self, kind: str, name: str | None = None) -> dict[str, Any]:
        """The next message of this kind; what comes before is kept."""

        def meant(message: dict[str, Any]) -> bool:
            return message["type"] == kind and name in (None, message.get("id"))

        for message in self.kept:
            if meant(message):
                self.kept.remove(message)
                return message
        async with asyncio.timeout(SECONDS):
            while True:
                text = str(await self.socket.recv())
                message = json.loads(text)
                if message["type"] == "next" and "frame" in message:
                    # The very bytes that a reader of the single stream gets.
                    bytes_ = text[text.index('"frame":') + len('"frame":') : -1]
                    self.frames.setdefault(message["id"], []).append(bytes_)
                elif message["type"] == "next":
                    self.events.setdefault(message["id"], []).append(message["event"])
                    self.marks += [message["mark"]] if "mark" in message else []
                if meant(message):
                    return message
                if message["type"] != "next":
                    self.kept.append(message)


@asynccontextmanager
async def client(server: Served | str, **options: Any) -> AsyncIterator[Client]:
    url = server if isinstance(server, str) else server.websocket_url
    async with connect(f"{url}/stream", **options) as socket:
        yield Client(socket)


async def test_many_streams_come_over_one_socket(server: Served, writing: Stage, reading: Stage) -> None:
    one, two = await writing.execution(), await writing.execution()
    outlets = [told.open() for told in (one, two)]
    async with client(server) as first:
        await first.subscribe("one", execution=str(one.name))
        await first.subscribe("case", case=str(one.key.case), after=1)
        await first.subscribe("flow", workflow="flow")
        for name in ("one", "case", "flow"):
            await first.until("subscribed", name)
        await first.subscribe("two", execution=str(two.name))
        await one.say(outlets[0], [f"{number}" for number in range(40)])  # more than the ring of the server holds
        await two.say(outlets[1], ["x"])
        await one.complete(await outlets[0].close())
        await first.until("complete", "one")
        await first.until("complete", "case")
        assert first.frames["one"] == [frame.body.decode() for frame in await collect(reading.streams, one.name)]
        assert [event["kind"] for event in first.events["case"]] == ["firing_begun", "case_ended"]
        # What came shortly before it began may come, too.
        while not (ended := [event for event in first.events.get("flow", ()) if event["kind"] == "case_ended"]):
            await first.until("next", "flow")
        assert [(event["case_id"], event["seq"]) for event in ended] == [(str(one.key.case), 3)]
        mark = first.marks[-1]

        # Unsubscribed is silent; the id can be used again, and goes on behind a cursor.
        while "two" not in first.frames:
            await first.until("next", "two")
        await first.say({"type": "unsubscribe", "id": "two"})
        await first.until("complete", "two")
        await two.say(outlets[1], ["y", "z"])
        heard = json.loads(first.frames["two"][-1])["cursor"]
        await first.subscribe("two", execution=str(two.name), after=heard)
        await two.complete(await outlets[1].close())
        await first.until("complete", "two")
        assert first.frames["two"] == [frame.body.decode() for frame in await collect(reading.streams, two.name)]
        await first.say({"type": "ping"})
        await first.until("pong")
    async with client(server) as later:
        await later.subscribe("flow", workflow="flow", since=mark)
        over: list[str] = []
        while len(over) < 2:
            await later.until("next", "flow")
            over = [event["case_id"] for event in later.events["flow"] if event["kind"] == "case_ended"]
        assert set(over) == {str(one.key.case), str(two.key.case)}


async def test_what_is_no_message_is_answered_with_a_code(server: Served, writing: Stage) -> None:
    told = await writing.execution()
    name, case = str(told.name), str(told.key.case)
    wrong: list[tuple[Any, str, str | None]] = [
        ("{", "invalid_request", None),
        ("[]", "invalid_request", None),
        ("null", "invalid_request", None),
        (b"\x00\xff", "invalid_request", None),
        ({"type": "dance"}, "invalid_request", None),
        ({"type": "subscribe", "execution": name}, "invalid_request", None),
        ({"type": "subscribe", "id": "", "execution": name}, "invalid_request", ""),
        ({"type": "subscribe", "id": 1, "execution": name}, "invalid_request", None),
        ({"type": "subscribe", "id": "a", "execution": name, "more": 1}, "invalid_request", "a"),
        ({"type": "subscribe", "id": "a"}, "invalid_request", "a"),
        ({"type": "subscribe", "id": "a", "execution": name, "case": case}, "invalid_request", "a"),
        ({"type": "subscribe", "id": "a", "execution": "'; DROP TABLE case"}, "not_found", "a"),
        ({"type": "subscribe", "id": "a", "execution": f"{case}.99"}, "not_found", "a"),
        ({"type": "subscribe", "id": "a", "execution": name, "after": "x"}, "invalid_cursor", "a"),
        ({"type": "subscribe", "id": "a", "execution": name, "after": 1}, "invalid_cursor", "a"),
        ({"type": "subscribe", "id": "a", "case": "x"}, "not_found", "a"),
        ({"type": "subscribe", "id": "a", "case": case.replace("0", "f")}, "not_found", "a"),
        ({"type": "subscribe", "id": "a", "case": case, "after": "1-1"}, "invalid_cursor", "a"),
        ({"type": "subscribe", "id": "a", "case": case, "after": -1}, "invalid_cursor", "a"),
        ({"type": "subscribe", "id": "a", "workflow": "nothing"}, "not_found", "a"),
        ({"type": "subscribe", "id": "a", "workflow": "flow", "after": "m1x"}, "invalid_cursor", "a"),
        ({"type": "unsubscribe", "id": "never"}, "not_found", "never"),
        ({"type": "init", "authorization": "Bearer x"}, "conflict", None),
    ]
    async with client(server) as one:
        for message, code, named in wrong:
            await one.say(message)
            answer = await one.until("error")
            assert (answer["error"]["code"], answer.get("id")) == (code, named), message
            assert "dictionary" not in answer["error"]["message"], "no word of what reads it"
        # The connection lives on, and a doubled id harms nobody.
        await one.subscribe("a", execution=name)
        await one.until("subscribed", "a")
        await one.subscribe("a", case=case)
        assert (await one.until("error"))["error"]["code"] == "conflict"
        await told.complete(await told.open().close())
        await one.until("complete", "a")
        assert len(one.frames["a"]) == 1
        await one.say(json.dumps({"type": "ping", "x": "y" * LONGEST_MESSAGE}))
        assert (await one.until("error"))["error"]["code"] == "payload_too_large"
        with pytest.raises(ConnectionClosed) as closed:
            await one.until("pong")
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1009, "payload_too_large")


async def test_a_client_that_does_not_read_keeps_nobody_waiting_and_loses_nothing(
    server: Served, writing: Stage, reading: Stage
) -> None:
    told = await writing.execution()
    outlet = told.open()
    async with client(server, max_queue=1) as slow, client(server) as quick:
        for one in (slow, quick):
            await one.subscribe("a", execution=str(told.name))
            await one.until("subscribed", "a")
        for _ in range(40):
            await told.say(outlet, ["x" * 10_000] * 10)  # far more than sockets hold
        await told.complete(await outlet.close())
        await quick.until("complete", "a")
        for number in range(MOST_SUBSCRIPTIONS):
            await quick.subscribe(f"s{number}", workflow="flow")
        await quick.subscribe("more", workflow="flow")
        assert (await quick.until("error", "more"))["error"]["code"] == "too_many_requests"
        await slow.until("complete", "a")
        assert slow.frames["a"] == quick.frames["a"]
        assert len(slow.frames["a"]) == 401


async def test_a_server_that_stops_tells_clients_to_come_back(reading: Stage, serving: Serving, writing: Stage) -> None:
    told = await writing.execution()
    async with serving(reading) as server, client(server) as one:
        await one.subscribe("a", execution=str(told.name))
        await one.until("subscribed", "a")
        await told.step(FiringResumed("ask", 1, "x", 2, "tests"))
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(ConnectionClosed) as closed:
            await one.until("complete")
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
        await stopping


async def test_who_asks_is_said_in_the_first_message(database_url: str) -> None:
    async with whole(database_url, AGENT_ACCESS_TOKEN="a-long-enough-token") as (circuit, url):
        await circuit.load("workflow: flow\nplaces: [a]\ntransitions: {}\n", allow_unsound=True)
        address = "ws" + url.removeprefix("http")
        async with client(address) as one:
            await one.say({"type": "init", "authorization": "Bearer a-long-enough-token"})
            await one.until("ready")
            await one.subscribe("a", workflow="flow")
            await one.until("subscribed", "a")
            case = await circuit.start("flow")
            await one.until("next", "a")
            assert one.events["a"][0]["case_id"] == case
        for first in ({"type": "init", "authorization": "Bearer wrong"}, {"type": "ping"}, "{"):
            async with client(address) as one:
                await one.say(first)
                assert (await one.until("error"))["error"]["code"] == "unauthenticated"
                with pytest.raises(ConnectionClosed) as closed:
                    await one.until("ready")
                assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401

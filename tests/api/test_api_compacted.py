"""Compacted streams through every door: from any cursor the same bytes, and the same text as before, also for readers
that come and go while a stream is said, ends and is compacted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import groupby
from random import Random
from typing import Any

import httpx
import orjson
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport
from served import Served
from stage import Stage, Told, collect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from circuit.engine.archive.compaction import Compaction
from circuit.events import Frame, StreamDelta, StreamType, encode_frame
from circuit.storage.records import LogWrite, StreamRow

SECONDS = 120.0
ALL = 10_000
FIELDS = "executionId eventType content status toolName attempt sequence timestamp cursor"

Said = dict[str, Any]
Door = Callable[[Served, str, str | None, int], Awaitable[list[str]]]
"""Reads an execution behind a cursor: some frames at most, or to the end."""


# The client does not hear the answer to its close while a queue of its own is full: so they have no end here.
async def by_websocket(server: Served, name: str, after: str | None, most: int) -> list[str]:
    query = f"?after={after}" if after else ""
    frames: list[str] = []
    async with connect(f"{server.websocket_url}/agent-stream/{name}{query}", max_queue=None) as client:
        try:
            while len(frames) < most:
                frames.append(str(await client.recv()))
        except ConnectionClosed:
            pass
    return frames


async def by_sse(server: Served, name: str, after: str | None, most: int) -> list[str]:
    headers = {"last-event-id": after} if after else {}
    frames: list[str] = []
    async with (
        httpx.AsyncClient(timeout=SECONDS) as client,
        client.stream("GET", f"{server.url}/agent-stream/{name}", headers=headers) as response,
    ):
        assert response.status_code in (200, 204)
        async with aclosing(response.aiter_lines()) as lines:
            async for line in lines:
                if line.startswith("data: "):
                    frames.append(line.removeprefix("data: "))
                    if len(frames) == most:
                        break
    return frames


async def by_multiplex(server: Served, name: str, after: str | None, most: int) -> list[str]:
    wanted: Said = {"type": "subscribe", "id": "a", "execution": name}
    frames: list[str] = []
    async with connect(f"{server.websocket_url}/stream", max_queue=None) as client:
        await client.send(json.dumps(wanted | ({"after": after} if after else {})))
        while len(frames) < most:
            text = str(await client.recv())
            if json.loads(text)["type"] == "complete":
                break
            if json.loads(text)["type"] == "next":
                frames.append(text[text.index('"frame":') + len('"frame":') : -1])
    return frames


def by_graphql(*, plain: bool) -> Door:
    """Without `types` it is the short way, with them the executor's."""
    types = "" if plain else f", types: {json.dumps([kind.value for kind in StreamType])}"

    async def read(server: Served, name: str, after: str | None, most: int) -> list[str]:
        request = gql(
            "subscription ($id: String!, $after: String)"
            f" {{ agentExecutionStream(executionId: $id, after: $after{types}) {{ {FIELDS} }} }}"
        )
        request.variable_values = {"id": name, "after": after}
        frames: list[str] = []
        async with (
            Client(transport=WebsocketsTransport(f"{server.websocket_url}/graphql")) as session,
            aclosing(session.subscribe(request)) as results,
        ):
            async for result in results:
                frames.append(json.dumps(result["agentExecutionStream"]))
                if len(frames) == most:
                    break
        return frames

    return read


RAW: list[Door] = [by_websocket, by_sse, by_multiplex]
DOORS: list[Door] = [*RAW, by_graphql(plain=True), by_graphql(plain=False)]


def told(frames: Sequence[Said]) -> list[Any]:
    """What a reader has understood: texts, however they were cut, and which other events there were."""

    def kind(said: Said) -> Any:
        if said["eventType"] in ("content_chunk", "thinking") and said.get("content"):
            return said["attempt"], said["eventType"], said.get("status"), None
        return said["attempt"], said["eventType"], said.get("toolName"), said["sequence"]

    return [(key, "".join(one.get("content") or "" for one in some)) for key, some in groupby(frames, kind)]


def said(frames: Sequence[Frame]) -> list[Said]:
    return [orjson.loads(frame.body) for frame in frames]


DELTAS = [
    *(StreamDelta.thinking("weighs", f"hm {number} ") for number in range(4)),
    *(StreamDelta.content(f"é{number}𝄞\n") for number in range(6)),
    StreamDelta(StreamType.TOOL_CALL, {"toolName": "t", "arguments": {}, "callId": "1"}),
    *(StreamDelta.content(f"\0{number} ") for number in range(3)),
]


async def store(one: Told, start: int, deltas: Sequence[StreamDelta]) -> list[Frame]:
    """What a start says, each piece a frame of its own in the log."""
    begin = [StreamDelta.restarted("again")] if start > 1 else []
    one.start = start
    now = one.stage.clock.now()
    frames = [encode_frame(str(one.name), start, n, delta, now) for n, delta in enumerate([*begin, *deltas], 1)]
    await one.stage.writer.write(LogWrite(one.key, frames=[StreamRow(1, frame) for frame in frames]))
    return frames


async def compact(stage: Stage) -> int:
    [week] = await Compaction(stage.database).run(timedelta(0), datetime.now(UTC) + timedelta(minutes=1))
    return week.gone


async def test_every_door_goes_on_from_every_cursor_of_before(server: Served, writing: Stage) -> None:
    one = await writing.execution()
    frames = [*await store(one, 1, DELTAS[:3]), *await store(one, 2, DELTAS)]
    frames.append(await one.complete(frames[-1].sequence))
    assert await compact(writing) == 2 + 3 + 5 + 2
    name = str(one.name)

    async def check(after: str | None, expected: list[Said]) -> None:
        raw = [await door(server, name, after, ALL) for door in RAW]
        assert raw[0] == raw[1] == raw[2]
        seen = [json.loads(frame) for frame in raw[0]]
        assert told(seen) == told(expected)
        for door in DOORS[len(RAW) :]:
            values = [json.loads(frame) for frame in await door(server, name, after, ALL)]
            assert values == [{field: frame.get(field) for field in FIELDS.split()} for frame in seen]

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as checks:
        checks.create_task(check(None, said(frames)))
        for index, frame in enumerate(frames):
            checks.create_task(check(f"{frame.start}-{frame.sequence}", said(frames[index + 1 :])))
        # One that was never given: beyond what an old start said.
        checks.create_task(check("1-900", said(frames[3:])))
    async with httpx.AsyncClient() as client:
        url = f"{server.url}/agent-stream/{name}"
        end = f"{frames[-1].start}-{frames[-1].sequence}"
        assert (await client.get(url, headers={"last-event-id": end})).status_code == 204
        assert (await client.get(url, params={"after": "1-0"})).status_code == 400
    assert len(server.readers) == 0


async def test_readers_that_come_and_go_while_a_stream_grows_and_is_compacted(
    server: Served, writing: Stage, reading: Stage
) -> None:
    one = await writing.execution()
    random = Random(7)
    ended, compacted = asyncio.Event(), asyncio.Event()

    async def read(source: Random, halts: tuple[asyncio.Event, ...]) -> list[Said]:
        """Read to the end, each time through another door; before each of the halts, what was said by then may be read
        only in part."""
        seen: list[Said] = []
        stops = list(halts)
        while not seen or seen[-1]["eventType"] != "completed":
            after = seen[-1]["cursor"] if seen else None
            part = await source.choice(DOORS)(server, str(one.name), after, source.randint(1, 6))
            seen += [json.loads(frame) for frame in part]
            if stops and source.random() < 0.5:
                await stops.pop(0).wait()
        return seen

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as readers:
        tasks = [readers.create_task(read(Random(seed), (ended, compacted)[seed % 3 :])) for seed in range(12)]
        outlet = one.open()
        for delta in DELTAS * 2:
            await outlet.emit(delta)
            await asyncio.sleep(random.choice((0, 0.005, 0.04)))
        await outlet.close()
        outlet = await one.open_again("again")
        for delta in DELTAS:
            await outlet.emit(delta)
            await asyncio.sleep(random.choice((0, 0.005, 0.04)))
        await one.complete(await outlet.close())
        frames = await collect(writing.streams, one.name)
        ended.set()
        assert await compact(reading) > 0
        compacted.set()
    for task in tasks:
        assert told(task.result()) == told(said(frames))

"""How a server is reached: as a process over its standard streams, or over HTTP, with no message over `FRAME_LIMIT`.

The process is started as the SDK's own transport does it, but for two things: a line that is longer than the limit ends
the connection instead of filling memory, and the process gets no variable but those that it was given and what a
program needs to start. Over HTTP the SDK bounds events, and `BoundedTransport` the answers that are one JSON value.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

FRAME_LIMIT = 8 * 1024 * 1024
GRACE_SECONDS = 2.0


@asynccontextmanager
async def process_streams(
    command: Sequence[str],
    environment: Mapping[str, str],
    limit: int = FRAME_LIMIT,
    oversize: Callable[[], None] = lambda: None,
    overheard: Callable[[bytes], None] = lambda _: None,
) -> AsyncGenerator[tuple[Any, Any]]:
    """The two streams of a session with the server that `command` starts. It is ended with the block, and all that it
    started with it. `oversize` hears of a line over `limit`, `overheard` what it writes to standard error. Raises
    `OSError` where it cannot be started."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=get_default_environment() | dict(environment),
        limit=limit,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    aside = asyncio.create_task(_overhear(process.stderr, overheard))
    read_in, read_out = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_in, write_out = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_hear, process.stdout, read_in, oversize)
            group.start_soon(_say, process.stdin, write_out, read_in)
            try:
                yield read_out, write_in
            finally:
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
            await asyncio.wait([aside], timeout=GRACE_SECONDS)
            aside.cancel()
        for stream in (read_in, read_out, write_in, write_out):
            stream.close()


async def _hear(stdout: asyncio.StreamReader, sink: Any, oversize: Callable[[], None]) -> None:
    async with sink:
        while True:
            try:
                line = await stdout.readline()
            except ValueError:
                # A line longer than the limit: what follows cannot be told from its rest.
                oversize()
                return
            if not line:
                return
            try:
                message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError as error:
                await sink.send(error)
                continue
            await sink.send(SessionMessage(message))


async def _overhear(stderr: asyncio.StreamReader, overheard: Callable[[bytes], None]) -> None:
    """Read to its end: a program that nobody reads stops at some line of its log."""
    while piece := await stderr.read(65_536):
        overheard(piece)


async def _say(stdin: asyncio.StreamWriter, source: Any, sink: Any) -> None:
    async with source:
        async for sent in source:
            text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                stdin.write(text.encode() + b"\n")
                await stdin.drain()
            except (ConnectionError, OSError):
                # The session learns that nobody hears it.
                sink.close()
                return


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE_SECONDS)
    # Its children, too, also where it has ended itself.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


class AnswerOversize(httpx2.StreamError):
    """An answer of more bytes than a message may have."""


def _unsaid(record: logging.LogRecord) -> bool:
    """The SDK logs with a traceback what the call itself says."""
    return record.exc_info is None or not isinstance(record.exc_info[1], AnswerOversize)


logging.getLogger("mcp.client.streamable_http").addFilter(_unsaid)


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Reads no answer of more than `limit` bytes, but for streams of events, whose events are bounded one by one."""

    def __init__(self, limit: int = FRAME_LIMIT, oversize: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._limit = limit
        self._oversize = oversize

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            response.stream = _Bounded(response.stream, self._limit, self._oversize)
        return response


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, limit: int, oversize: Callable[[], None]) -> None:
        self._stream = stream
        self._limit = limit
        self._oversize = oversize

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > self._limit:
                self._oversize()
                raise AnswerOversize(f"an answer of more than {self._limit} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()

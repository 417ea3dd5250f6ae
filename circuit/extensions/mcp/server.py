"""The tools of one server: a session that is opened when it is first needed, and again after it broke.

Each server has its own credentials, resolved when the session is opened. A tool whose schema is pinned in the workflow
and was changed asks for a person's approval; so does one that came to be after the pins were written.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Generator, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST, REQUEST_TIMEOUT

from circuit.agents.policy import matches
from circuit.agents.tools import Tool, ToolContext, validator_of
from circuit.errors import (
    ToolError,
    ToolFailed,
    ToolOutputInvalid,
    ToolOutputTooLarge,
    ToolSchemaBroken,
    ToolSchemaInvalid,
    ToolServerLost,
    ToolsMisconfigured,
    ToolsUnreachable,
    ToolTimeout,
)
from circuit.extensions.mcp.transport import FRAME_LIMIT, BoundedTransport, process_streams
from circuit.providers.provider import ToolSpec
from circuit.security.redaction import excerpt, redact
from circuit.security.secrets import UnresolvedReference, references, resolve
from circuit.tracing import TRACEPARENT, current

DEFAULT_SECONDS = 60.0
OPEN_SECONDS = 30.0
MOST_TOOLS = 500
LAST_WORDS = 4_096
_FAULTS = (MCPError, TimeoutError, RuntimeError, ValueError, OSError, httpx2.HTTPError, httpx2.InvalidURL)
"""What keeps a session from opening, or breaks it."""


class McpToolset:
    """The tools of the server that `settings` name. Used on one event loop, closed by `aclose`."""

    def __init__(self, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.name = str(settings["name"])
        self._settings = settings
        self._environment = environment
        self._seconds = float(settings.get("seconds", DEFAULT_SECONDS))
        self._client: Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._opening = asyncio.Lock()
        self._overheard = b""
        self._flooded = False
        """Whether the session that is open, or was last, ended at a message that was too large."""
        self._status = 0
        """With which status the server answered last over HTTP, where that is an error."""
        if bool(settings.get("command")) == bool(settings.get("url")):
            raise ToolsMisconfigured(f"the MCP server {self.name} needs a command or a url, and not both")

    async def tools(self) -> list[Tool]:
        """The tools as the server describes them now, their names with its own before them.

        Raises `ToolsMisconfigured` where it cannot be started or describes nothing that can be called, and
        `ToolsUnreachable` where it may yet be reached.
        """
        old = self._open
        try:
            found = await self._listed()
        except _FAULTS as error:
            await self._drop()
            if not old:
                raise self._unnamed(error) from None
            # The server may only have been started anew.
            try:
                found = await self._listed()
            except _FAULTS as again:
                await self._drop()
                raise self._unnamed(again) from None
        wanted = self._settings.get("tools")
        chosen = [tool for tool in found[:MOST_TOOLS] if not wanted or matches(wanted, tool.name)]
        return [self._tool(tool) for tool in chosen]

    async def _listed(self) -> list[Any]:
        found: list[Any] = []
        cursor: str | None = None
        client = await self._session()
        while True:
            with self._heard():
                async with asyncio.timeout(OPEN_SECONDS):
                    page = await client.list_tools(cursor=cursor, cache_mode="bypass")
            found += page.tools
            cursor = page.next_cursor
            if not cursor or len(found) > MOST_TOOLS:
                return found

    def _unnamed(self, error: BaseException) -> ToolsMisconfigured | ToolsUnreachable:
        message = f"the MCP server {self.name} does not name its tools: {_told(error)}{self._last_words}"
        passing = isinstance(error, httpx2.TransportError) or self._status in (408, 429) or self._status >= 500
        return ToolsUnreachable(message) if passing else ToolsMisconfigured(message)

    async def aclose(self) -> None:
        """End the session, and the server if it was started. Twice is fine."""
        await self._drop()

    def _tool(self, tool: Any) -> Tool:
        schema = dict(tool.input_schema)
        try:
            validator_of(schema)
        except ValueError as error:
            raise ToolSchemaInvalid(
                f"the MCP server {self.name} describes its tool {tool.name} by what is no JSON Schema: {error}."
                " Leave it out with `tools`"
            ) from None
        plain = str(tool.name)
        pin = fingerprint(plain, str(tool.description or ""), schema)

        async def call(arguments: Mapping[str, Any], around: ToolContext) -> Any:
            return await self._call(plain, dict(arguments))

        return Tool(
            ToolSpec(f"{self.name}.{plain}", str(tool.description or ""), schema),
            call,
            self._seconds + OPEN_SECONDS,
            self._secrets(),
            self._changed(plain, pin),
            pin=pin,
        )

    def _changed(self, name: str, now: str) -> str:
        """Why a person must look at this tool before it is used; empty where nobody must."""
        pinned: Mapping[str, str] | None = self._settings.get("pinned")
        if pinned is None or pinned.get(name) == now:
            return ""
        if name not in pinned:
            return f"the MCP server {self.name} has a new tool {name}, whose schema ({now}) is not pinned"
        return f"the MCP server {self.name} changed its tool {name}: its schema is {now} and was {pinned[name]}"

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        """What the tool gives. A session that broke before the call was sent, or that its server does not know any
        more, is opened again, once."""
        old = self._open
        try:
            client = await self._session()
        except _FAULTS as error:
            await self._drop()
            raise ToolServerLost(
                f"the MCP server {self.name} cannot be reached: {_told(error)}{self._last_words}"
            ) from None
        span = current()
        if span is not None:
            span.set({"mcp.method.name": "tools/call", "network.transport": "tcp" if self._place else "pipe"})
        try:
            with self._heard():
                async with asyncio.timeout(self._seconds):
                    result = await client.call_tool(name, arguments, read_timeout_seconds=self._seconds)
        except TimeoutError:
            raise ToolTimeout(f"the MCP server {self.name} did not answer within {self._seconds:g} s") from None
        except _FAULTS as error:
            fault = self._fault(name, error)
            unknown = isinstance(error, MCPError) and error.code == INVALID_REQUEST
        else:
            return _result(self.name, name, result)
        if unknown or isinstance(fault, ToolServerLost | ToolOutputTooLarge):
            # Whether it was done is not known, so it is not tried again; the next call opens a new session. What was
            # merely refused costs those nothing who share this one.
            await self._drop()
        if unknown and old:
            return await self._call(name, arguments)  # it was not even looked at
        raise fault

    def _fault(self, name: str, error: Exception) -> ToolError:
        """What it means that a call was not answered."""
        if self._flooded or "event exceeded" in str(error).lower():
            most = FRAME_LIMIT // (1024 * 1024)
            return ToolOutputTooLarge(f"the MCP server {self.name} answered {name} with more than {most} MiB")
        if isinstance(error, RuntimeError):
            return ToolSchemaBroken(
                f"the MCP server {self.name} does not keep to the schema that it gave for what {name} gives back:"
                f" {_told(error)}"
            )
        if isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT:
            return ToolTimeout(f"the MCP server {self.name} did not answer {name} within {self._seconds:g} s")
        if isinstance(error, MCPError) and error.code != CONNECTION_CLOSED:
            return ToolFailed(f"the MCP server {self.name} refused to call {name}: {_told(error)}{self._last_words}")
        return ToolServerLost(f"the MCP server {self.name} did not answer {name}: {_told(error)}{self._last_words}")

    @property
    def _last_words(self) -> str:
        """What may say why: the last line that the program wrote to standard error, or the status over HTTP."""
        if self._status:
            return f" (HTTP {self._status})"
        lines = self._overheard.decode("utf-8", "replace").split("\n")
        if len(self._overheard) == LAST_WORDS:
            # The first is cut, and what is left of a secret in it is nothing that anybody knows.
            del lines[0]
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f" (it wrote: {excerpt(redact(last, self._secrets()), 200)})" if last else ""

    def _overhear(self, piece: bytes) -> None:
        self._overheard = (self._overheard + piece)[-LAST_WORDS:]

    @property
    def _open(self) -> bool:
        return self._client is not None and self._keeper is not None and not self._keeper.done()

    async def _session(self) -> Client:
        async with self._opening:
            if self._open and self._client is not None:
                return self._client
            await self._drop()
            opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._stop = asyncio.Event()
            self._flooded, self._overheard, self._status = False, b"", 0
            with self._heard():
                self._keeper = asyncio.create_task(self._keep(opened, self._stop))
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    client = await asyncio.shield(opened)
            except TimeoutError:
                await self._drop()
                raise
            self._client = client
            return client

    async def _keep(self, opened: asyncio.Future[Client], stop: asyncio.Event) -> None:
        """Holds the session open: what opens it must also close it, in the same task."""
        try:
            async with AsyncExitStack() as stack:
                transport = await self._transport(stack)
                client = await stack.enter_async_context(Client(transport, read_timeout_seconds=self._seconds))
                opened.set_result(client)
                await stop.wait()
        except BaseException as error:
            if not opened.done():
                inner: BaseException = error
                while isinstance(inner, BaseExceptionGroup):
                    inner = inner.exceptions[0]
                opened.set_exception(inner if isinstance(inner, Exception) else RuntimeError("it was ended"))
            elif not isinstance(error, Exception):
                raise

    async def _transport(self, stack: AsyncExitStack) -> Any:
        if self._settings.get("command"):
            command, environment = self._settings["command"], self._resolved("env")
            return process_streams(command, environment, oversize=self._flood, overheard=self._overhear)
        client = httpx2.AsyncClient(
            headers=self._resolved("headers"),
            timeout=httpx2.Timeout(self._seconds, connect=OPEN_SECONDS),
            event_hooks={"request": [_carry], "response": [self._answered]},
            transport=BoundedTransport(oversize=self._flood),
        )
        await stack.enter_async_context(client)
        url = resolve(str(self._settings["url"]), self._environment)
        return streamable_http_client(url, http_client=client, max_sse_event_size=FRAME_LIMIT)

    async def _answered(self, response: httpx2.Response) -> None:
        # That a server lets nobody listen (GET) or end a session (DELETE) says nothing of its tools.
        if response.request.method == "POST":
            self._status = response.status_code if response.is_error else 0

    def _flood(self) -> None:
        self._flooded = True

    async def _drop(self) -> None:
        keeper, self._keeper, self._client = self._keeper, None, None
        self._stop.set()
        if keeper is not None and not keeper.done():
            _, late = await asyncio.wait([keeper], timeout=OPEN_SECONDS)
            for task in late:
                task.cancel()

    def _resolved(self, what: str) -> dict[str, str]:
        try:
            given: Mapping[str, str] = self._settings.get(what) or {}
            return {name: resolve(text, self._environment) for name, text in given.items()}
        except UnresolvedReference as missing:
            names = ", ".join(missing.names)
        raise ToolsMisconfigured(f"{what} of the MCP server {self.name} refers to {names}, which is not set: set it")

    @property
    def _place(self) -> tuple[str, int] | None:
        """Host and port of a server that is reached over HTTP; None where it is a process of this machine, or nobody
        knows where it is."""
        if not self._settings.get("url"):
            return None
        with contextlib.suppress(UnresolvedReference, ValueError):
            parts = urlsplit(resolve(str(self._settings["url"]), self._environment))
            return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        return None

    @contextlib.contextmanager
    def _heard(self) -> Generator[None]:
        """The SDK hands the trace on to the server, in `_meta`: one of another machine hears of it where it may."""
        span, place = current(), self._place
        apart = span is not None and place is not None and not span.told(*place)
        with span.apart() if apart and span is not None else contextlib.nullcontext():
            yield

    def _secrets(self) -> tuple[str, ...]:
        given = [*(self._settings.get("env") or {}).values(), *(self._settings.get("headers") or {}).values()]
        names = [name for text in (*given, str(self._settings.get("url") or "")) for name in references(text)]
        return tuple(self._environment[name] for name in names if self._environment.get(name))


async def _carry(request: httpx2.Request) -> None:
    """Say in the header of a request, too, in which trace it is: what stands between here and the server reads that."""
    with contextlib.suppress(ValueError, TypeError, KeyError, httpx2.RequestNotRead):
        told = orjson.loads(request.content)["params"]["_meta"][TRACEPARENT]
        if TRACEPARENT not in request.headers:
            request.headers[TRACEPARENT] = str(told)


def fingerprint(name: str, description: str, schema: Mapping[str, Any]) -> str:
    """What a tool's description is pinned by: whatever a model reads of it."""
    written = orjson.dumps([name, description, schema], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(written).hexdigest()[:16]


def _result(server: str, name: str, result: Any) -> Any:
    texts: list[str] = []
    for block in result.content:
        text = getattr(block, "text", None)
        if isinstance(text, str):
            texts.append(text)
        elif not result.structured_content:
            kind = str(getattr(block, "type", "something"))
            raise ToolOutputInvalid(f"{name} of {server} gave back {kind}, which this agent cannot read")
    said = "\n".join(texts)
    if result.is_error:
        raise ToolFailed(said or f"{name} of {server} failed and does not say why")
    return said if result.structured_content is None else result.structured_content


def _told(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__

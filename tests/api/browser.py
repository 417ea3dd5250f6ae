"""A real browser without a window, driven over its own protocol: Chromium, where the machine has it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120.0


def found() -> str | None:
    """The browser's program."""
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


class Page:
    """One page. `requests` has the address of all that it asked for, `complaints` what its console said of faults."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def hear(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
                continue
            told = message.get("params", {})
            match message["method"]:
                case "Network.requestWillBeSent":
                    self.requests.append(told["request"]["url"])
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Network.webSocketCreated":
                    self.requests.append(told["url"])
                case "Log.entryAdded" if told["entry"]["level"] == "error":
                    self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
                case "Runtime.exceptionThrown":
                    self.complaints.append(json.dumps(told["exceptionDetails"])[:500])

    async def ask(self, method: str, **given: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        session = {} if self._session is None else {"sessionId": self._session}
        await self._socket.send(json.dumps({"id": number, "method": method, "params": given, **session}))
        said = await answer
        assert "error" not in said, said
        return said["result"]

    async def open(self) -> None:
        target = await self.ask("Target.createTarget", url="about:blank")
        attached = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            await self.ask(f"{domain}.enable")

    async def go(self, url: str) -> None:
        """Return when the page at `url` is there."""
        self._loaded.clear()
        await self.ask("Page.navigate", url=url)
        await self._loaded.wait()

    async def run(self, script: str) -> Any:
        """The value of an expression, waited for."""
        said = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, condition: str) -> None:
        """Return when an expression holds; it is looked at whenever the page has changed."""
        await self.run(
            f"new Promise((done) => {{ const look = () => ({condition}) && done(true);"
            " new MutationObserver(look).observe(document, {subtree: true, childList: true, characterData: true,"
            " attributes: true}); look(); })"
        )

    async def picture(self) -> bytes:
        """How it looks, as a PNG."""
        return base64.b64decode((await self.ask("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def browsing(program: str) -> AsyncIterator[Page]:
    """A page of a fresh browser that can reach nothing but this machine."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = await asyncio.create_subprocess_exec(
            program, "--headless=new", "--window-size=1280,800", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--remote-debugging-port=0", f"--user-data-dir={home}", "about:blank",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        rest: asyncio.Task[bytes] | None = None
        try:
            async with asyncio.timeout(SECONDS):
                address = None
                while address is None:
                    line = await process.stderr.readline()
                    assert line, "the browser ended"
                    address = re.search(r"ws://\S+", line.decode("utf-8", "replace"))
                # What it says further on is read, so that it never waits for a reader.
                rest = asyncio.create_task(process.stderr.read())
                async with connect(address[0], max_size=None) as socket:
                    page = Page(socket)
                    hearing = asyncio.create_task(page.hear())
                    try:
                        await page.open()
                        yield page
                    finally:
                        hearing.cancel()
                        await asyncio.wait([hearing])
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            if rest is not None:
                await rest

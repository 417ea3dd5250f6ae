"""The loopback server as a process of its own, as the tests that kill workers use it."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from contextlib import aclosing
from pathlib import Path
from typing import Any

from replay import text_of

from circuit.providers.messages import Message, Role
from circuit.providers.provider import ModelRequest
from circuit.providers.registry import ProviderRegistry

SERVER = Path(__file__).resolve().parents[1] / "chat_server.py"


def call(url: str, method: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20) as answer:
        return json.load(answer)


async def test_it_runs_as_a_process(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"text": "Hello from afar.", "gate": 500}]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), "--port", "0", "--script", str(script), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        assert url.startswith("http://127.0.0.1:")
        registry = ProviderRegistry({"OPENAI_BASE_URL": url})
        request = ModelRequest(model="m", messages=(Message.text(Role.USER, "?"),))
        async with aclosing(registry.provider({"type": "openai"}).stream(request)) as chunks:
            first = await anext(chunks)
            assert await asyncio.to_thread(call, f"{url}/release", "POST") == {}
            rest = [chunk async for chunk in chunks]
        await registry.aclose()
        assert text_of([first, *rest]) == "Hello from afar."
        (received,) = await asyncio.to_thread(call, f"{url}/requests", "GET")
        assert received["body"]["model"] == "m"
        assert received["answered"] is True
    finally:
        process.kill()
        await process.wait()

"""A whole Circuit that serves on a port of its own, and is driven over GraphQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
from websockets.asyncio.client import connect

from circuit.app import Circuit
from circuit.settings import Settings

SECONDS = 120.0


class Server:
    """A whole Circuit that serves on a port of its own."""

    def __init__(self, url: str, circuit: Circuit) -> None:
        self.url = url
        self.circuit = circuit
        self.client = httpx.AsyncClient(timeout=SECONDS)

    def authorized(self, key: str) -> Server:
        """The same server, asked with a credential. Close its client in the end."""
        other = Server(self.url, self.circuit)
        other.client.headers["authorization"] = f"Bearer {key}"
        return other

    async def post(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = await self.client.post(f"{self.url}/graphql", json={"query": query, "variables": variables})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ok(self, query: str, **variables: Any) -> Any:
        answer = await self.post(query, **variables)
        assert "errors" not in answer, answer
        [value] = answer["data"].values()
        return value

    async def code(self, query: str, **variables: Any) -> str:
        [error] = (await self.post(query, **variables))["errors"]
        return error["extensions"]["code"]

    async def events(self, case_id: str, **arguments: Any) -> list[dict[str, Any]]:
        query = """subscription ($id: String!, $after: Int!, $kinds: [String!]) {
          caseEvents(caseId: $id, after: $after, kinds: $kinds) { seq kind transition executionId } }"""
        found: list[dict[str, Any]] = []
        address = "ws" + self.url.removeprefix("http")
        async with (
            asyncio.timeout(SECONDS),
            connect(f"{address}/graphql", subprotocols=["graphql-transport-ws"]) as client,  # type: ignore[list-item]
        ):
            await client.send('{"type": "connection_init"}')
            await client.recv()
            variables = {"id": case_id, "after": 0, **arguments}
            await client.send(
                json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}})
            )
            while (message := json.loads(await client.recv()))["type"] == "next":
                found.append(message["payload"]["data"]["caseEvents"])
        return found

    @asynccontextmanager
    async def subscribed(self, query: str, **variables: Any) -> AsyncIterator[AsyncGenerator[dict[str, Any]]]:
        """What a subscription gives, one value after the other; the errors of one that is refused come as values."""
        headers = (
            {"authorization": self.client.headers["authorization"]} if "authorization" in self.client.headers else {}
        )
        address = "ws" + self.url.removeprefix("http")
        async with (
            asyncio.timeout(SECONDS),
            connect(f"{address}/graphql", subprotocols=["graphql-transport-ws"], additional_headers=headers) as client,  # type: ignore[list-item]
        ):
            await client.send('{"type": "connection_init"}')
            await client.recv()
            payload = {"query": query, "variables": variables}
            await client.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))

            async def values() -> AsyncGenerator[dict[str, Any]]:
                while (message := json.loads(await client.recv()))["type"] != "complete":
                    if message["type"] == "error":
                        yield {"errors": message["payload"]}
                        return
                    if message["type"] == "next":
                        yield message["payload"] if "errors" in message["payload"] else message["payload"]["data"]

            yield values()


@asynccontextmanager
async def driven(url: str, *, token: str | None = None, **options: Any) -> AsyncGenerator[Server]:
    """A server on the database at `url`. With `token` that is the service's, and a credential is needed."""
    environment = {"CIRCUIT_DATABASE_URL": url, **({"AGENT_ACCESS_TOKEN": token} if token else {})}
    settings = options.pop("settings", None) or Settings.from_environment(environment)
    async with Circuit.open(settings=settings, **options) as circuit:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(circuit.serve("127.0.0.1", 0, ready=ready.set_result))
        running = Server(await ready, circuit)
        try:
            yield running
        finally:
            await running.client.aclose()
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

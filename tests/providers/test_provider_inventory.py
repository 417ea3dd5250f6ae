"""Which models servers say they serve: asked in each protocol, for a while, with errors that give nothing away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from chat_server import ChatServer

from circuit.http import Http
from circuit.providers import inventory
from circuit.providers.accounts import ACCOUNTS
from circuit.providers.catalogue import ModelCatalogue
from circuit.providers.endpoint import Endpoint, endpoints
from circuit.providers.inventory import FAULT_SECONDS, KEPT_SECONDS, Inventory, Served
from circuit.providers.registry import ProviderRegistry

KEY = "sk-very-secret-key-0123456789"


def reached(kind: str, server: ChatServer, **options: Any) -> tuple[str, Endpoint]:
    environment = {"KEY": KEY}
    given = {"base_url": server.url if kind in ("openai", "custom") else server.root, "api_key": "${KEY}", **options}
    [one] = endpoints(ACCOUNTS[kind], "", given, environment)
    return kind, one


def ok(*bodies: Any) -> list[dict[str, Any]]:
    return [{"status": 200, "body": body} for body in bodies]


async def asked(kind: str, replies: Sequence[dict[str, Any]]) -> tuple[Served, ChatServer]:
    http = Http()
    async with ChatServer(replies) as server:
        asking = Inventory(lambda: http)
        [served] = await asking.served([reached(kind, server)])
        await asking.aclose()
        await http.aclose()
    return served, server


@pytest.mark.parametrize(
    ("kind", "bodies", "paths", "models"),
    [
        ("openai", [{"data": [{"id": "b", "max_model_len": 4096}, {"id": "a"}, {"id": 7}, "odd", {"id": "a"}]}],
         ["/v1/models"], [("a", None, None), ("b", 4096, None)]),
        ("custom", [[{"id": "x", "context_length": 10, "max_completion_tokens": True}]],
         ["/v1/models"], [("x", 10, None)]),
        ("anthropic",
         [{"data": [{"id": "claude-1"}], "has_more": True, "last_id": "claude-1"},
          {"data": [{"id": "claude-2", "max_input_tokens": 9, "max_tokens": 5}], "has_more": False}],
         ["/v1/models?limit=1000", "/v1/models?limit=1000&after_id=claude-1"],
         [("claude-1", None, None), ("claude-2", 9, 5)]),
        ("google",
         [{"models": [{"name": "models/gemini", "inputTokenLimit": 100, "outputTokenLimit": 10,
                       "supportedGenerationMethods": ["generateContent"]},
                      {"name": "models/vectors", "supportedGenerationMethods": ["embedContent"]}],
           "nextPageToken": "a/b"},
          {"models": []}],
         ["/v1beta/models?pageSize=1000", "/v1beta/models?pageSize=1000&pageToken=a%2Fb"],
         [("gemini", 100, 10)]),
        ("ollama", [{"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}, {"name": "old"}]}],
         ["/api/tags"], [("old", None, None), ("qwen3:8b", None, None)]),
    ],
)  # fmt: skip
async def test_each_protocol_lists_its_models(kind: str, bodies: Any, paths: Any, models: Any) -> None:
    served, server = await asked(kind, ok(*bodies))
    assert served.error is None
    assert [(one.name, one.context_tokens, one.max_output_tokens) for one in served.models] == models
    assert [one.path for one in server.requests] == paths
    assert {one.method for one in server.requests} == {"GET"}
    assert all(KEY in str(one.headers) for one in server.requests)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ({"status": 401, "body": {"error": f"key {KEY} is wrong"}}, "authentication"),
        ({"status": 403, "body": f"{KEY} may not"}, "authentication"),
        ({"status": 404, "body": ""}, "bad_response"),
        ({"status": 500, "body": {"error": {"message": f"broken for {KEY}"}}}, "unavailable"),
        ({"status": 429, "body": f"slow down, {KEY}"}, "rate_limit"),
        ({"status": 200, "body": "<html>"}, "bad_response"),
        ({"status": 200, "body": "7"}, "bad_response"),
        ({"garbage": "no http at all\r\n\r\n"}, "bad_response"),
        ({"status": 200, "body": "[" + "1," * (inventory.ANSWER_LIMIT // 2) + "1]"}, "bad_response"),
        ({"hang": "first_byte"}, "timeout"),
    ],
)
async def test_a_server_that_cannot_be_asked_has_an_error_without_secrets(
    reply: dict[str, Any], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "hang" in reply:
        monkeypatch.setattr(inventory, "ASK_SECONDS", 0.05)
    served, server = await asked("openai", [reply])
    assert served.models == ()
    assert served.error is not None
    assert served.error.code == code, served.error
    assert KEY not in served.error.message
    assert server.root in served.error.message


async def test_what_was_said_is_kept_for_a_while_and_asked_once_by_many() -> None:
    now = 0.0
    http = Http()
    async with ChatServer(
        [{"status": 500, "body": ""}, *ok({"data": [{"id": "a"}]}, {"data": [{"id": "b"}]})]
    ) as server:
        asking = Inventory(lambda: http, lambda: now)

        async def names() -> list[str]:
            [served] = await asking.served([reached("openai", server), reached("openai", server)])
            return [one.name for one in served.models]

        assert await asyncio.gather(*(names() for _ in range(5))) == [[]] * 5
        now += FAULT_SECONDS - 1
        assert (await names(), len(server.requests)) == ([], 1)
        now += 1
        assert (await names(), len(server.requests)) == (["a"], 2)
        now += KEPT_SECONDS - 1
        assert (await names(), len(server.requests)) == (["a"], 2)
        now += 1
        # Who leaves takes the answer from nobody else.
        leaving, staying = asyncio.ensure_future(names()), asyncio.ensure_future(names())
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying, len(server.requests)) == (["b"], 3)
        await asking.aclose()
    await http.aclose()


async def test_an_offer_joins_what_agents_name_and_what_servers_serve() -> None:
    async with ChatServer(ok({"data": [{"id": "gpt-4.1"}, {"id": "tiny", "max_model_len": 512}]})) as server:
        environment = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
        registry = ProviderRegistry(environment)
        catalogue = ModelCatalogue(registry, {})
        agents = [
            {"type": "openai", "model": "gpt-4.1", "options": {}},
            {"type": "openai", "model": "mine", "options": {"base_url": "${NOT_SET}"}},
            {"type": "openai", "model": "azure", "options": {"base_url": f"{server.url}/d", "api_version": "2024"}},
            {"type": "scripted", "model": "script", "options": {}},
        ]
        try:
            offer = await catalogue.offer("openai", agents)
            shared = await catalogue.offer("openai", ())
            scripted = await catalogue.offer("scripted", agents)
        finally:
            await registry.aclose()
        place = (server.root,)
        assert [(one.id, one.named, one.servers) for one in offer.models] == [
            ("openai:azure", True, ()),
            ("openai:gpt-4.1", True, place),
            ("openai:mine", True, ()),
            ("openai:tiny", False, place),
        ]
        assert [one.context_tokens for one in offer.models] == [None, 1_047_576, None, 512]
        assert [one.id for one in shared.models] == ["openai:gpt-4.1", "openai:tiny"]
        assert [one.id for one in scripted.models] == ["scripted:script"]
        assert [one.path for one in server.requests] == ["/v1/models"]

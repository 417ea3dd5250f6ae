"""Where requests go and with which key: Azure's form, several keys and addresses, and which of them rest."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import httpx
import openai
import pytest
from chat_server import ChatServer
from replay import ASKED, text_of

from circuit.errors import (
    AuthenticationRefused,
    ModelRequestRefused,
    ProviderError,
    ProviderMisconfigured,
    ProviderUnavailable,
    RateLimited,
    StreamCut,
)
from circuit.providers.accounts import ACCOUNTS, wire_of
from circuit.providers.balance import BalancedProvider, Health, Member
from circuit.providers.endpoint import endpoints
from circuit.providers.messages import Message, Role
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, TextChunk
from circuit.providers.registry import ProviderRegistry


def urls(kind: str, environment: dict[str, str], path: str = "/chat/completions", **options: Any) -> list[str]:
    return [endpoint.url(path) for endpoint in endpoints(ACCOUNTS[kind], "gpt-4o", options, environment)]


@pytest.mark.parametrize(
    ("base", "version", "url"),
    [
        ("https://me.openai.azure.com", "2024", "/openai/deployments/gpt-4o/chat/completions?api-version=2024"),
        ("https://me.openai.azure.com/", None, "/openai/v1/chat/completions"),
        ("https://me.openai.azure.com/openai/v1", "preview", "/openai/v1/chat/completions"),
        ("https://me.openai.azure.com/openai/deployments/d?api-version=1", None,
         "/openai/deployments/d/chat/completions?api-version=1"),
    ],
)  # fmt: skip
def test_azure_has_a_form_of_its_own(base: str, version: str | None, url: str) -> None:
    environment = {"OPENAI_BASE_URL": base, "OPENAI_API_KEY": "k"}
    options = {"api_version": version} if version else {}
    (made,) = endpoints(ACCOUNTS["openai"], "gpt-4o", options, environment)
    assert made.url("/chat/completions") == f"https://me.openai.azure.com{url}"
    assert made.headers["api-key"] == "k"
    assert "Authorization" not in made.headers


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_azure_is_asked_where_its_own_sdk_asks(api: str) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(500)

    http = httpx.Client(transport=httpx.MockTransport(answer))
    resource = "https://me.openai.azure.com"
    with (
        openai.AzureOpenAI(
            azure_endpoint=resource, api_key="k", api_version="2025-04-01-preview", http_client=http, max_retries=0
        ) as sdk,
        pytest.raises(openai.InternalServerError),
    ):
        if api == "chat":
            sdk.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
        else:
            sdk.responses.create(model="gpt-4o", input="x")
    options = {"api": api, "api_version": "2025-04-01-preview", "base_url": resource, "api_key": "${KEY}"}
    (made,) = endpoints(ACCOUNTS["openai"], "gpt-4o", options, {"KEY": "k"})
    request = ModelRequest("gpt-4o", (Message.text(Role.USER, "x"),))
    assert made.url(wire_of("openai", options).path(request)) == str(asked[0].url)
    assert made.headers["api-key"] == asked[0].headers["api-key"] == "k"


def test_the_key_of_a_custom_server_is_optional_and_goes_to_its_own_address_only() -> None:
    home = {"CUSTOM_BASE_URL": "http://here/v1"}
    for options in ({}, {"base_url": "${CUSTOM_BASE_URL}"}):
        (bare,) = endpoints(ACCOUNTS["custom"], "m", options, home)
        (keyed,) = endpoints(ACCOUNTS["custom"], "m", options, {**home, "CUSTOM_API_KEY": "k"})
        assert (bare.base, "Authorization" in bare.headers) == ("http://here/v1", False)
        assert keyed.headers["Authorization"] == "Bearer k"
    (other,) = endpoints(ACCOUNTS["custom"], "m", {"base_url": "http://there/v1"}, {**home, "CUSTOM_API_KEY": "k"})
    assert "Authorization" not in other.headers
    with pytest.raises(ProviderMisconfigured, match="CUSTOM_BASE_URL"):
        endpoints(ACCOUNTS["custom"], "m", {}, {})


def test_addresses_may_hold_their_version_or_not() -> None:
    key = {"ANTHROPIC_API_KEY": "k", "GOOGLE_API_KEY": "k"}
    for base in ("https://gateway/a", "https://gateway/a/", "https://gateway/a/v1"):
        assert urls("anthropic", key, "/v1/messages", base_url=base) == ["https://gateway/a/v1/messages"]
    assert urls("google", key, "/models", base_url="https://gateway") == ["https://gateway/v1beta/models"]
    assert urls("google", key, "/models", base_url="https://gateway/v1/x") == ["https://gateway/v1/x/models"]
    assert urls("ollama", {}, "/api/chat") == ["http://localhost:11434/api/chat"]


def test_each_address_with_each_key_is_an_endpoint() -> None:
    environment = {"OPENAI_BASE_URL": "http://a/v1, http://b/v1", "OPENAI_API_KEY": "one,two ,one,"}
    made = endpoints(ACCOUNTS["openai"], "m", {}, environment)
    assert [(endpoint.base, endpoint.headers["Authorization"]) for endpoint in made] == [
        ("http://a/v1", "Bearer one"),
        ("http://a/v1", "Bearer two"),
        ("http://b/v1", "Bearer one"),
        ("http://b/v1", "Bearer two"),
    ]
    assert len({endpoint.identity for endpoint in made}) == 4
    assert not any("one" in endpoint.identity for endpoint in made)


@pytest.mark.parametrize(
    ("kind", "variable", "header"),
    [("anthropic", "ANTHROPIC_API_KEY", "x-api-key"), ("google", "GOOGLE_API_KEY", "x-goog-api-key")],
)
async def test_keys_go_where_the_protocol_asks_for_them(kind: str, variable: str, header: str) -> None:
    async with ChatServer() as server:
        registry = ProviderRegistry({variable: "secret-key"})
        provider = registry.provider(
            {"type": kind, "options": {"base_url": server.root, "options": {"extra": {"a": 1}}}}
        )
        async with aclosing(provider.stream(ASKED)) as chunks:
            assert [chunk async for chunk in chunks]
        await registry.aclose()
        assert server.requests[0].headers[header] == "secret-key"
        assert server.requests[0].body["extra"] == {"a": 1}
        assert kind != "anthropic" or server.requests[0].headers["anthropic-version"] == "2023-06-01"


def test_who_signs_requests_himself_sends_no_key_beside_that() -> None:
    given = {"base_url": "https://x-aiplatform.googleapis.com/v1/p", "headers": {"Authorization": "Bearer ${T}"}}
    (signed,) = endpoints(ACCOUNTS["google"], "gemini-3", given, {"T": "token", "GOOGLE_API_KEY": "key"})
    assert signed.headers["Authorization"] == "Bearer token"
    assert "key" not in signed.headers.values()


class Voice:
    """A provider that answers, or fails after saying `text`."""

    def __init__(self, text: str = "ok", error: ProviderError | None = None) -> None:
        self.text, self.error, self.asked = text, error, 0

    async def stream(self, request: ModelRequest) -> Any:
        self.asked += 1
        if self.text:
            yield TextChunk(self.text)
        if self.error is not None:
            raise self.error
        yield Finished("stop", "m")


async def hear(provider: Any) -> list[ModelChunk]:
    async with aclosing(provider.stream(ASKED)) as chunks:
        return [chunk async for chunk in chunks]


def balanced(*voices: Voice, clock: list[float] | None = None) -> BalancedProvider:
    at = clock if clock is not None else [0.0]
    members = [Member(str(number), voice) for number, voice in enumerate(voices)]
    return BalancedProvider(lambda: members, Health(now=lambda: at[0]))


async def test_requests_go_round() -> None:
    voices = Voice(), Voice(), Voice()
    provider = balanced(*voices)
    for _ in range(6):
        await hear(provider)
    assert [voice.asked for voice in voices] == [2, 2, 2]


async def test_a_broken_key_is_taken_out_and_tried_again_later() -> None:
    clock = [0.0]
    broken, sound = Voice("", AuthenticationRefused("no")), Voice()
    provider = balanced(broken, sound, clock=clock)
    for _ in range(6):
        assert text_of(await hear(provider)) == "ok"
    assert broken.asked == 1
    clock[0] = 601.0
    broken.error, broken.text = None, "mended"
    assert {text_of(await hear(provider)) for _ in range(2)} == {"ok", "mended"}


async def test_a_limited_endpoint_rests_as_long_as_it_asks() -> None:
    clock = [0.0]
    limited, sound = Voice("", RateLimited("slow", retry_after=5)), Voice()
    provider = balanced(limited, sound, clock=clock)
    for _ in range(4):
        await hear(provider)
    clock[0] = 5.5
    await hear(provider)
    await hear(provider)
    assert limited.asked == 2


async def test_where_all_rest_the_first_to_come_back_is_tried() -> None:
    slow, quick = Voice("", RateLimited("slow", retry_after=50)), Voice("", RateLimited("quick", retry_after=5))
    provider = balanced(slow, quick)
    with pytest.raises(RateLimited):
        await hear(provider)
    with pytest.raises(RateLimited, match="quick"):
        await hear(provider)
    assert (slow.asked, quick.asked) == (1, 2)


@pytest.mark.parametrize(
    ("text", "error"),
    [("half", RateLimited("late")), ("", ModelRequestRefused("the request's own fault")), ("half", StreamCut("cut"))],
)
async def test_another_endpoint_is_asked_only_where_that_can_help(text: str, error: ProviderError) -> None:
    other = Voice()
    with pytest.raises(type(error)):
        await hear(balanced(Voice(text, error), other))
    assert other.asked == 0


async def test_several_keys_over_http() -> None:
    """The first key is refused, the second is used, and no text shows either."""
    replies = [{"when": "zzz", "text": ""}, {"status": 401}, {"text": "fine"}]
    async with ChatServer(replies) as server:
        registry = ProviderRegistry({"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "key-aaaaaaaa,key-bbbbbbbb"})
        chunks = await hear(registry.provider({"type": "openai"}))
        await registry.aclose()
        keys = [received.headers["authorization"] for received in server.requests]
    assert text_of(chunks) == "fine"
    assert keys == ["Bearer key-aaaaaaaa", "Bearer key-bbbbbbbb"]


async def test_a_provider_is_pressed_while_every_endpoint_of_it_has_too_much_to_do() -> None:
    clock = [0.0]
    health = Health(now=lambda: clock[0])
    busy, other = Member("a", Voice("", RateLimited("slow", retry_after=500))), Member("b", Voice())
    provider = BalancedProvider(lambda: [busy, other], health)
    await hear(provider)
    assert health.pressed("a") and not health.pressed("b")
    clock[0] = 61.0
    assert not health.pressed("a"), "after a minute somebody should try again, whatever it asked for"
    # What somebody must mend is no pressure: cases go on to be claimed, and say what is wrong.
    assert health.fail(other, AuthenticationRefused("no")) and not health.pressed("b")


async def test_a_registry_says_which_types_can_take_no_more() -> None:
    registry = ProviderRegistry({"OPENAI_API_KEY": "key"})
    spec = {
        "type": "openai",
        "model": "m",
        "options": {"base_url": "http://127.0.0.1:9/v1", "limits": {"requests_per_minute": 2}},
    }
    assert registry.pressed() == frozenset()
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            await hear(registry.provider(spec))
    assert registry.pressed() == {"openai"}
    await registry.aclose()

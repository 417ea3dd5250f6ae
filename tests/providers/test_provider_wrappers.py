"""What lies around providers: limits and fallback; and the doors `embed` and `rerank`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from chat_server import ChatServer
from replay import ASKED, finished_of, text_of

from circuit.errors import (
    BadResponse,
    ContentFiltered,
    ModelNotFound,
    ModelOutOfMemory,
    ModelRequestRefused,
    ProviderError,
    ProviderMisconfigured,
    RateLimited,
    StreamCut,
)
from circuit.minute import Minute
from circuit.providers.fallback import Choice, FallbackProvider
from circuit.providers.limits import Allowance, LimitedProvider, Limits, until
from circuit.providers.messages import Message, Role, TextPart, ToolResultPart
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, Restarted, TextChunk
from circuit.providers.registry import ProviderRegistry
from circuit.providers.retrieval import EmbeddingRequest, Ranked, RerankRequest, embedding_wire

USAGE = {"input_tokens": 60, "output_tokens": 40}


class Voice:
    """A provider that says `text`, then fails or ends."""

    def __init__(self, text: str = "ok", error: ProviderError | None = None, gate: asyncio.Event | None = None) -> None:
        self.text, self.error, self.gate = text, error, gate
        self.asked: list[ModelRequest] = []
        self.running = self.most = 0

    async def stream(self, request: ModelRequest) -> Any:
        self.asked.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.text:
                yield TextChunk(self.text)
            if self.error is not None:
                raise self.error
            yield Finished("stop", request.model, USAGE, (TextPart(self.text),))
        finally:
            self.running -= 1


async def hear(provider: Any, asked: ModelRequest = ASKED) -> list[ModelChunk]:
    async with aclosing(provider.stream(asked)) as chunks:
        return [chunk async for chunk in chunks]


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def allowance(self, **limits: int) -> Allowance:
        return Allowance(Limits(**limits), now=lambda: self.now, sleep=self.sleep)


class TestLimits:
    async def test_so_many_at_once(self) -> None:
        gate, time = asyncio.Event(), Time()
        voice = Voice(gate=gate)
        limited = LimitedProvider(voice, time.allowance(concurrency=2))
        tasks = [asyncio.ensure_future(hear(limited)) for _ in range(5)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert voice.running == 2
        gate.set()
        await asyncio.gather(*tasks)
        assert (voice.most, len(voice.asked)) == (2, 5)

    async def test_so_many_a_minute(self) -> None:
        time = Time()
        limited = LimitedProvider(Voice(), time.allowance(requests_per_minute=3))
        for _ in range(7):
            await hear(limited)
        assert time.slept == [60.0, 60.0]

    async def test_so_many_tokens_a_minute_as_they_were_really_used(self) -> None:
        time = Time()
        limited = LimitedProvider(Voice(), time.allowance(tokens_per_minute=200))
        for _ in range(3):
            await hear(limited)
        assert time.slept == [60.0]

    @pytest.mark.parametrize(
        "headers",
        [
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m6s"},
            {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "66s"},
            {
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-21T09:31:06Z",
            },
        ],
    )
    async def test_what_the_provider_says_is_kept_to(self, headers: dict[str, str]) -> None:
        time = Time()
        allowance = time.allowance()
        allowance.learn(headers, datetime(2026, 11, 21, 9, 30, tzinfo=UTC))
        await hear(LimitedProvider(Voice(), allowance))
        assert time.slept == [pytest.approx(66.0)]
        allowance.learn({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "9s"})
        await hear(LimitedProvider(Voice(), allowance))
        assert len(time.slept) == 1

    @pytest.mark.parametrize(
        ("kind", "left", "at_once"),
        [("requests", "3", 3), ("tokens", "250", 2), ("input-tokens", "250", 5), ("output-tokens", "1", 5)],
    )
    async def test_what_remains_is_shared_out(self, kind: str, left: str, at_once: int) -> None:
        """Before the next answer says anew what remains: each of five requests has 40 tokens, and an answer of 60."""
        time = Time()
        allowance = time.allowance()
        allowance.learn({f"x-ratelimit-remaining-{kind}": left, f"x-ratelimit-reset-{kind}": "30s"})
        admitted: list[float] = []
        for _ in range(5):
            await allowance.admit(40, 60)
            admitted.append(time.now)
        assert admitted.count(1_000.0) == at_once
        assert time.slept == ([] if at_once == 5 else [30.0])

    async def test_nobody_waits_for_ever(self) -> None:
        allowance = Allowance(Limits(requests_per_minute=1), now=lambda: 0.0, sleep=lambda _: asyncio.sleep(0))
        await allowance.admit(1)
        with pytest.raises(RateLimited):
            await allowance.admit(1)

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("1s", 1), ("6m0s", 360), ("12ms", 0.012), ("1h2m3s", 3723), ("7", 7), ("", None), ("soon", None)],
    )
    def test_resets(self, text: str, seconds: float | None) -> None:
        assert until(text, datetime.now(UTC)) == seconds

    async def test_limits_of_the_headers_over_http(self) -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            for allowance in registry._allowances.values():
                allowance._left.clear()

        headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s", "Retry-After": "0"}
        async with ChatServer([{"status": 429, "headers": headers}, {"text": "late"}]) as server:
            registry = ProviderRegistry({"OPENAI_BASE_URL": server.url}, sleep=sleep)
            provider = registry.provider({"type": "openai", "model": "m"})
            with pytest.raises(RateLimited):
                await hear(provider)
            assert text_of(await hear(provider)) == "late"
            await registry.aclose()
        assert len(slept) == 1
        assert 29 < slept[0] <= 30


class TestFallback:
    def choices(self, *voices: Voice) -> FallbackProvider:
        return FallbackProvider([Choice(f"p:{n}", f"model-{n}", voice) for n, voice in enumerate(voices)])

    async def test_before_the_first_chunk_nobody_notices(self) -> None:
        first, second = Voice("", ModelNotFound("no")), Voice("fine")
        chunks = await hear(self.choices(Voice("", ModelOutOfMemory("no")), first, second))
        assert [type(chunk) for chunk in chunks] == [TextChunk, Finished]
        assert finished_of(chunks).model == "model-2"
        assert second.asked[0].model == "model-2"

    async def test_after_it_the_stream_is_marked_as_restarted(self) -> None:
        chunks = await hear(self.choices(Voice("half", StreamCut("cut")), Voice("whole")))
        assert chunks[:3] == [TextChunk("half"), Restarted("p:1 is asked instead: stream_cut"), TextChunk("whole")]

    async def test_what_another_model_would_refuse_too_is_not_tried(self) -> None:
        for error in (ModelRequestRefused("bad schema"), ContentFiltered("no")):
            other = Voice()
            with pytest.raises(type(error)):
                await hear(self.choices(Voice("", error), other))
            assert other.asked == []

    async def test_where_all_fail_the_last_error_counts(self) -> None:
        with pytest.raises(RateLimited, match="second"):
            await hear(self.choices(Voice("", StreamCut("first")), Voice("", RateLimited("second"))))

    async def test_what_one_server_thought_goes_to_no_other_in_the_middle_of_a_round(self) -> None:
        """Strict servers refuse a key that they do not know, and so a fallback would fail just when it is needed."""
        call = {"name": "look", "arguments": {}, "id": "a"}
        thinking = {"calls": [call], "reasoning": "hm"}
        async with (
            ChatServer([thinking, {"status": 401, "body": "no"}, {"text": "back"}]) as own,
            ChatServer() as strict,
        ):
            registry = ProviderRegistry({"OWN_URL": own.url})
            addresses = ("${OWN_URL}", strict.url)
            specs = [{"type": "custom", "model": "m", "options": {"base_url": address}} for address in addresses]
            provider = registry.fallback(specs)

            async def ask(*more: Message) -> Finished:
                async with aclosing(provider.stream(ModelRequest("m", (*ASKED.messages, *more)))) as chunks:
                    return finished_of([chunk async for chunk in chunks])

            made = Message(Role.ASSISTANT, (await ask()).parts)
            result = Message(Role.TOOL, (ToolResultPart("a", "look", "seen"),))
            assert [(await ask(made, result)).choice for _ in range(2)] == [1, 0]
            await registry.aclose()
        [told] = [one.body["messages"][1] for one in strict.requests]
        assert set(told) == {"role", "content", "tool_calls"} and told["tool_calls"][0]["id"] == "a"
        for one in own.requests[1:]:
            assert one.body["messages"][1]["reasoning_content"] == "hm"

    async def test_from_one_server_to_another(self) -> None:
        async with (
            ChatServer([{"text": "x" * 99, "cut_after": 900}]) as broken,
            ChatServer([{"text": "sound"}]) as sound,
        ):
            registry = ProviderRegistry({"ANTHROPIC_API_KEY": "k"})
            specs: list[dict[str, Any]] = [
                {"type": "custom", "model": "a", "options": {"base_url": broken.url}},
                {"type": "anthropic", "model": "b", "options": {"base_url": sound.root}},
            ]
            chunks = await hear(registry.fallback(specs))
            await registry.aclose()
        at = next(n for n, chunk in enumerate(chunks) if isinstance(chunk, Restarted))
        assert text_of(chunks[at:]) == "sound"


class TestVectors:
    BODIES: Mapping[str, Any] = {
        "openai": {"data": [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}],
                   "usage": {"prompt_tokens": 4}},
        "custom": {"data": [{"embedding": [1, 0]}, {"embedding": [0, 1]}]},
        "google": {"embeddings": [{"values": [1, 0]}, {"values": [0, 1]}]},
        "ollama": {"embeddings": [[1, 0], [0, 1]], "prompt_eval_count": 4},
    }  # fmt: skip

    @pytest.mark.parametrize("kind", ["openai", "custom", "google", "ollama"])
    async def test_every_provider_that_makes_vectors(self, kind: str) -> None:
        async with ChatServer([{"raw": json.dumps(self.BODIES[kind]), "content_type": "application/json"}]) as server:
            registry = ProviderRegistry({"GOOGLE_API_KEY": "k"})
            base = server.url if kind in ("openai", "custom") else server.root
            embedder = registry.embedder({"type": kind, "model": "e", "options": {"base_url": base}})
            made = await embedder.embed(EmbeddingRequest("e", ("one", "two"), dimensions=2))
            await registry.aclose()
            (asked,) = server.requests
        assert made.vectors == ((1.0, 0.0), (0.0, 1.0))
        assert made.usage.get("input_tokens", 4) == 4
        assert "one" in json.dumps(asked.body)
        assert asked.path.partition("?")[0].rsplit("/", 1)[-1] in ("embeddings", "embed", "e:batchEmbedContents")

    async def test_more_texts_than_a_protocol_takes_at_once(self) -> None:
        """Each request holds what the provider's `options` say, and what was used is added up."""
        replies = [
            {"raw": json.dumps({"data": [{"embedding": [n]} for n in range(first, first + count)], "usage": {
                "prompt_tokens": count}}), "content_type": "application/json"}
            for first, count in ((0, 2_048), (2_048, 2))
        ]  # fmt: skip
        async with ChatServer(replies) as server:
            registry = ProviderRegistry({})
            options = {"base_url": server.url, "options": {"user": "me"}}
            embedder = registry.embedder({"type": "custom", "model": "e", "options": options})
            made = await embedder.embed(EmbeddingRequest("e", tuple(str(n) for n in range(2_050))))
            await registry.aclose()
            asked = [(len(one.body["input"]), one.body["user"]) for one in server.requests]
        assert asked == [(2_048, "me"), (2, "me")]
        assert (made.vectors[-1], made.usage) == ((2_049.0,), {"input_tokens": 2_050})
        assert embedding_wire("google").most == 100

    async def test_requests_for_vectors_and_rankings_are_within_the_limits(self) -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            for allowance in registry._allowances.values():
                allowance._own.minute = Minute()

        made = {"raw": json.dumps({"data": [{"embedding": [1]}], "usage": {"prompt_tokens": 90}})}
        ranked = {"raw": json.dumps({"results": [{"index": 0, "relevance_score": 1}]})}
        async with ChatServer([made, made, ranked]) as server:
            registry = ProviderRegistry({}, sleep=sleep)
            limits = {"requests_per_minute": 10, "tokens_per_minute": 100}
            spec = {"type": "custom", "model": "m", "options": {"base_url": server.url, "limits": limits}}
            await registry.embedder(spec).embed(EmbeddingRequest("m", ("x" * 40,)))
            # Ten tokens were thought of, and ninety taken.
            await registry.embedder(spec).embed(EmbeddingRequest("m", ("x" * 40,)))
            assert slept == []
            await registry.reranker(spec).rerank(RerankRequest("m", "which?", ("x" * 40,)))
            await registry.aclose()
        assert len(slept) == 1 and 0 < slept[0] <= 60

    @pytest.mark.parametrize(
        "body",
        [
            '{"data": [{"embedding": [NaN]}, {"embedding": [1]}]}',
            '{"data": []}',
            '{"data": [{"embedding": ["x"]}, {"embedding": [1]}]}',
            "<html>",
        ],
    )
    async def test_what_is_no_vector(self, body: str) -> None:
        async with ChatServer([{"raw": body}]) as server:
            registry = ProviderRegistry({})
            embedder = registry.embedder({"type": "custom", "options": {"base_url": server.url}})
            with pytest.raises(BadResponse):
                await embedder.embed(EmbeddingRequest("e", ("one", "two")))
            await registry.aclose()

    async def test_texts_in_order(self) -> None:
        results = {"results": [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}]}
        async with ChatServer([{"raw": json.dumps(results)}]) as server:
            registry = ProviderRegistry({})
            reranker = registry.reranker({"type": "custom", "options": {"base_url": server.url}})
            ranked = await reranker.rerank(RerankRequest("r", "which?", ("a", "b"), top=1))
            await registry.aclose()
        assert ranked == (Ranked(1, 0.9),)

    async def test_scripted_ones_need_no_server(self) -> None:
        registry = ProviderRegistry({})
        spec = {"type": "scripted"}
        texts = ("the quick fox", "a slow snail", "the quick dog")
        made = await registry.embedder(spec).embed(EmbeddingRequest("", texts, dimensions=32))
        assert {len(vector) for vector in made.vectors} == {32}
        ranked = await registry.reranker(spec).rerank(RerankRequest("", "the quick", texts, top=2))
        assert {one.index for one in ranked} == {0, 2}

    def test_who_makes_none(self) -> None:
        registry = ProviderRegistry({})
        with pytest.raises(ProviderMisconfigured, match="makes no vectors"):
            registry.embedder({"type": "anthropic"})
        with pytest.raises(ProviderMisconfigured, match="use custom"):
            registry.reranker({"type": "openai"})

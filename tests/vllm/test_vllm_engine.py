"""vLLM's own engine behind the provider: what is asked of every provider, and what only an engine inside can be asked.

One engine serves the tests of this file, for it takes half a minute to start. The model says nonsense; what is checked
is that it is its own nonsense, in the form that was asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import jsonschema_rs
import psutil
import pytest
import pytest_asyncio
from conftest import spec_of
from tiny_model import make_adapter

from circuit.errors import (
    ContextTooLong,
    ModelCrashed,
    ModelNotFound,
    ModelRequestRefused,
    ModelUnsupported,
    ProviderError,
)
from circuit.providers.messages import ImagePart, Message, Role, ToolResultPart, calls_of, text_of
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, ReasoningChunk, TextChunk, ToolSpec
from circuit.providers.registry import ProviderRegistry
from circuit.providers.retrieval import EmbeddingRequest
from circuit.providers.vllm.model import HostedModel, ModelState
from circuit.providers.vllm.spec import ModelSpec
from circuit.providers.vllm.tether import NICENESS

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = {
    "type": "object",
    "required": ["verdict", "score"],
    "properties": {"verdict": {"enum": ["yes", "no"]}, "score": {"type": "integer", "minimum": 1, "maximum": 9}},
    "additionalProperties": False,
}
LOOK = ToolSpec(
    "fs.look",
    "Looks.",
    {
        "type": "object",
        "properties": {"where": {"enum": ["here", "there"]}},
        "required": ["where"],
        "additionalProperties": False,
    },
)
PARSERS = {"tool_parser": "hermes", "reasoning_parser": "deepseek_r1"}


class Inside:
    """One model of the session, and providers that share it."""

    def __init__(self, registry: ProviderRegistry, model: Path, adapters: Mapping[str, str]) -> None:
        self.registry = registry
        self.path = model
        self.adapters = dict(adapters)

    def spec(self, **more: Any) -> dict[str, Any]:
        options = {"max_loras": 2, "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True}}
        return spec_of(self.path, options, adapters=self.adapters, **more)

    @property
    def model(self) -> HostedModel:
        return self.registry.models.model(ModelSpec.of(self.spec()))

    async def ask(self, *messages: Message, provider: Mapping[str, Any] | None = None, **more: Any) -> list[ModelChunk]:
        asked = ModelRequest(
            **{"model": str(self.path), "messages": messages or (Message.text(Role.USER, "hi"),)} | more
        )
        async with aclosing(self.registry.provider(self.spec(**(provider or {}))).stream(asked)) as chunks:
            return [chunk async for chunk in chunks]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def inside(
    tiny: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Inside]:
    folder = tmp_path_factory.mktemp("adapters")
    adapters = {name: str(make_adapter(folder / name, tiny, seed=seed)) for seed, name in enumerate(("one", "two"))}
    registry = ProviderRegistry(environment)
    yield Inside(registry, tiny, adapters)
    await registry.aclose()


def said(chunks: list[ModelChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


def end(chunks: list[ModelChunk]) -> Finished:
    assert isinstance(chunks[-1], Finished)
    return chunks[-1]


async def test_text_comes_in_pieces_with_usage_and_the_reason_of_its_end(inside: Inside) -> None:
    asked: dict[str, Any] = {"request": {"seed": 1, "ignore_eos": True}}
    chunks = await inside.ask(parameters={"max_tokens": 400, "temperature": 0.0}, provider=asked)
    finished = end(chunks)
    assert (finished.reason, finished.usage["output_tokens"]) == ("length", 400)
    # The chat template was applied: <s>, the role, two characters, the assistant's turn.
    assert finished.usage["input_tokens"] == 5
    assert text_of(finished.parts) == said(chunks)
    assert len(chunks) > 3


async def test_no_text_of_a_message_becomes_a_control_token(inside: Inside) -> None:
    async def counted(*messages: Message, **more: Any) -> int:
        finished = end(await inside.ask(*messages, parameters={"max_tokens": 1}, **more))
        return int(finished.usage["input_tokens"])

    for role in (Role.USER, Role.SYSTEM):
        # <s>, the role, the assistant's turn, and each character by itself: a space stands in every token.
        for text, spaces in (("a</s><|system|>b", 2), ("<<s>s>", 1)):
            assert await counted(Message.text(role, text)) == 3 + len(text) + spaces, text
    assert await counted(Message.text(Role.USER, "<think>")) == 3 + len("<think>") + 1
    # Its author's words may hold what is no special token.
    assert await counted(Message.text(Role.SYSTEM, "<think>")) == 3 + 1


async def test_what_is_asked_for_reaches_the_sampler(inside: Inside) -> None:
    seeded = {"request": {"seed": 7, "top_k": 5}}
    first, again = [said(await inside.ask(parameters={"max_tokens": 30}, provider=seeded)) for _ in range(2)]
    other = said(await inside.ask(parameters={"max_tokens": 30}, provider={"request": {"seed": 8, "top_k": 5}}))
    assert first == again != other
    stopped = await inside.ask(parameters={"max_tokens": 30, "stop_sequences": [first[3]]}, provider=seeded)
    assert (said(stopped), end(stopped).reason) == (first[: first.index(first[3])], "stop")


async def test_an_answer_keeps_to_its_schema(inside: Inside) -> None:
    asked = [
        inside.ask(output_schema=SCHEMA, parameters={"max_tokens": 100}, provider={"request": {"seed": seed}})
        for seed in range(8)
    ]
    for chunks in await asyncio.gather(*asked):
        assert end(chunks).reason == "stop"
        jsonschema_rs.validate(SCHEMA, json.loads(said(chunks)))


async def test_many_requests_share_the_batches(inside: Inside) -> None:
    """Together they take far fewer steps of the engine than one after the other."""
    before = (await inside.model.counts())["vllm:iteration_tokens_total_count"]
    answers = await asyncio.gather(
        *(inside.ask(parameters={"max_tokens": 50}, provider={"request": {"ignore_eos": True}}) for _ in range(32))
    )
    steps = (await inside.model.counts())["vllm:iteration_tokens_total_count"] - before
    assert {end(chunks).usage["output_tokens"] for chunks in answers} == {50}
    assert steps < 32 * 50 / 4


async def test_a_prompt_that_comes_again_is_read_from_the_cache(inside: Inside) -> None:
    long = Message.text(Role.USER, "a prompt that is long enough for a block or more of the cache. " * 6)
    for _ in range(2):
        finished = end(await inside.ask(long, parameters={"max_tokens": 2}))
    assert finished.usage["cached_input_tokens"] >= 128


async def test_adapters_answer_by_their_names(inside: Inside) -> None:
    """Greedy, all three differ, and each says the same again."""
    heard: dict[str, set[str]] = {}
    for name in ("", "one", "two") * 2:
        chosen = {"adapter": name} if name else {}
        chunks = await inside.ask(parameters={"max_tokens": 24, "temperature": 0.0}, provider=chosen)
        heard.setdefault(name, set()).add(said(chunks))
    assert all(len(texts) == 1 for texts in heard.values())
    assert len(set.union(*heard.values())) == 3


async def test_an_adapter_that_is_none_is_named(inside: Inside, tmp_path: Path) -> None:
    inside.adapters["empty"] = str(tmp_path)
    with pytest.raises(ModelNotFound, match="the adapter 'empty' cannot be loaded"):
        await inside.ask(provider={"adapter": "empty"})
    # The others are as they were.
    assert said(await inside.ask(parameters={"max_tokens": 3, "temperature": 0.0}, provider={"adapter": "one"}))


async def test_a_cancelled_request_ends_in_the_engine(inside: Inside) -> None:
    provider = inside.registry.provider(inside.spec(request={"ignore_eos": True}))
    # So many at once that none is over before its end is asked for.
    streams = [
        provider.stream(ModelRequest(str(inside.path), (Message.text(Role.USER, "hi"),), {"max_tokens": 400}))
        for _ in range(24)
    ]
    before = await inside.model.counts()
    for first in await asyncio.gather(*(anext(stream) for stream in streams)):
        assert isinstance(first, TextChunk)
    for stream in streams:
        await stream.aclose()
    await inside.ask(parameters={"max_tokens": 1})
    after = await inside.model.counts()
    assert after["vllm:num_requests_running"] == 0
    assert after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"] < 24 * 300


@pytest.mark.parametrize(
    ("text", "more", "error", "words"),
    [
        ("x" * 600, {}, ContextTooLong, "maximum context length is 512"),
        ("hi", {"parameters": {"temperature": 7}}, ModelRequestRefused, "temperature"),
        ("hi", {"output_schema": {"type": "nonsense"}}, ModelRequestRefused, "refused the request"),
        ("", {"image": True}, ModelUnsupported, "not a multimodal model"),
    ],
)  # fmt: skip
async def test_what_the_engine_refuses_has_a_name(
    inside: Inside, text: str, more: dict[str, Any], error: type[ProviderError], words: str
) -> None:
    message = Message.text(Role.USER, text)
    if more.pop("image", False):
        message = Message(Role.USER, (ImagePart("image/png", "iVBORw0KGgo="),))
    with pytest.raises(error, match=words):
        await inside.ask(message, **more)
    assert end(await inside.ask(parameters={"max_tokens": 1})).reason == "length"


async def test_vectors_of_a_model_that_makes_none_are_refused(inside: Inside) -> None:
    with pytest.raises(ModelUnsupported, match="makes no vectors; it does generate"):
        await inside.registry.embedder(inside.spec()).embed(EmbeddingRequest("tiny", ("a",)))


async def test_a_model_sleeps_and_wakes(inside: Inside) -> None:
    asked = {"parameters": {"max_tokens": 20, "temperature": 0.0}}
    before = said(await inside.ask(**asked))
    await inside.model.sleep()
    assert inside.model.view().state is ModelState.ASLEEP
    assert said(await inside.ask(**asked)) == before
    assert inside.model.view().state is ModelState.READY


async def test_reasoning_and_calls_are_read_out_of_the_answer(
    tiny: Path, environment: dict[str, str], inside: Inside
) -> None:
    """Another load of the same model, beside the first: with parsers."""
    registry = ProviderRegistry(environment)
    try:
        provider = registry.provider(spec_of(tiny, request={"seed": 3}, **PARSERS))
        messages = (Message.text(Role.USER, "hi"),)
        asked = ModelRequest("tiny", messages, {"max_tokens": 300}, tools=(LOOK,), tool_choice="required")
        async with aclosing(provider.stream(asked)) as stream:
            chunks = [chunk async for chunk in stream]
        finished = end(chunks)
        calls = calls_of(finished.parts)
        assert any(isinstance(chunk, ReasoningChunk) for chunk in chunks)
        assert calls
        assert {call.name for call in calls} == {"fs.look"}
        # And what was said goes back to the model with the results.
        results = tuple(ToolResultPart(call.id, call.name, "nothing") for call in calls)
        again = (*messages, Message(Role.ASSISTANT, finished.parts), Message(Role.TOOL, results))
        async with aclosing(provider.stream(ModelRequest("tiny", again, {"max_tokens": 3}, tools=(LOOK,)))) as stream:
            more = [chunk async for chunk in stream]
        assert end(more).usage["input_tokens"] > finished.usage["input_tokens"]
    finally:
        await registry.aclose()


async def test_an_engine_that_is_killed_fails_what_runs_and_comes_back(inside: Inside) -> None:
    """Last in this file: it costs a start."""
    await inside.model.loaded()
    pid = inside.model.view().pid
    assert pid is not None
    engines = [one for one in psutil.Process(pid).children(recursive=True) if "EngineCore" in " ".join(one.cmdline())]
    # What forwards answers goes before what computes them.
    assert [one.nice() for one in engines] == [psutil.Process(pid).nice() + NICENESS]
    # That counts for nothing between sessions where Linux shares processors out among them first; a signal from the
    # terminal is for Circuit alone.
    assert os.getsid(pid) == os.getsid(0)
    assert os.getpgid(pid) == pid != os.getpgrp()
    stream = inside.registry.provider(inside.spec(request={"ignore_eos": True})).stream(
        ModelRequest(str(inside.path), (Message.text(Role.USER, "hi"),), {"max_tokens": 480})
    )
    await anext(stream)
    for engine in engines:
        os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(ModelCrashed, match="it is started again"):
        async for _ in stream:
            pass
    await inside.model.loaded()
    assert (inside.model.view().crashes, inside.model.view().pid != pid) == (1, True)
    assert end(await inside.ask(parameters={"max_tokens": 2})).usage["output_tokens"] == 2

"""The action of the kind `agent`, from a call to its outputs, against scripted answers and a real server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest
from chat_server import ChatServer
from surroundings import Book

from circuit.actions.agent import AgentAction, agent_run
from circuit.agents.agent import ANSWER_STEP
from circuit.engine.action import ActionCall
from circuit.errors import InvalidOutput, ProviderMisconfigured
from circuit.ids import CaseKey
from circuit.providers.messages import Message, Role
from circuit.providers.profiles import context_of
from circuit.providers.registry import ProviderRegistry

CASE = UUID(int=7)
SCHEMA = {
    "type": "object",
    "required": ["assessment"],
    "properties": {"assessment": {"enum": ["approve", "reject"]}, "model": {"type": "string"}},
}


def call(of_agent: dict[str, Any], *, schema: Any = SCHEMA, recorded: Any = None, **config: Any) -> ActionCall:
    agent = {
        "id": "content-reviewer",
        "name": "Reviewer",
        "description": "",
        "provider": of_agent,
        "parameters": {"temperature": 0.2},
        "prompts": {"system": "Review.", "user_template": "Text: {document}", "context_instructions": ""},
        "output_schema": schema,
        "hash": "h",
        "prompt_hash": "p",
    }
    return ActionCall(
        key=CaseKey(1, CASE),
        firing=2,
        attempt=1,
        start=1,
        execution_id=f"{CASE}.2",
        workflow_id="review",
        transition="ai_review",
        kind="agent",
        config={"agent_id": "content-reviewer", "agent": agent, **config},
        inputs={"document": "A text."},
        tokens=({"id": f"{CASE}.1", "place": "submitted", "data": {}, "metadata": {}},),
        history_count=2,
        timeout_seconds=60,
        recorded=recorded or {},
    )


def spec(*responses: Any) -> dict[str, Any]:
    return {"type": "scripted", "model": "demo", "options": {"responses": list(responses)}}


async def test_the_outputs_are_the_structured_ones_and_the_built_in_ones() -> None:
    book = Book()
    answer = {"assessment": "approve", "model": "forged"}
    output = await AgentAction(ProviderRegistry({})).perform(call(spec(answer)), book)
    assert output.outputs == {
        "assessment": "approve",
        "agent_id": "content-reviewer",
        "execution_id": f"{CASE}.2",
        "model": "demo",
        "timestamp": "2026-11-21T09:30:00.250Z",
        "usage": output.usage,
        "text": output.text,
        "output": answer,
    }
    assert output.output == answer
    assert orjson.loads(output.text) == answer
    assert book.text == output.text
    orjson.dumps(output.outputs)


async def test_a_text_answer_has_only_built_in_outputs() -> None:
    output = await AgentAction(ProviderRegistry({})).perform(call(spec("Fine."), schema=None), Book())
    assert set(output.outputs) == {"agent_id", "execution_id", "model", "timestamp", "usage", "text", "output"}
    assert (output.text, output.output) == ("Fine.", None)


async def test_the_occurrence_chooses_the_answer() -> None:
    action = AgentAction(ProviderRegistry({}))
    provider = spec({"assessment": "reject"}, {"assessment": "approve"})
    said = [(await action.perform(call(provider, occurrence=n), Book())).output["assessment"] for n in range(3)]
    assert said == ["reject", "approve", "approve"]


async def test_a_provider_in_the_configuration_replaces_the_agents() -> None:
    output = await AgentAction(ProviderRegistry({})).perform(
        call({"type": "openai", "model": "x"}, schema=None, provider=spec("replaced")), Book()
    )
    assert output.text == "replaced"


async def test_a_resumed_call_asks_nobody() -> None:
    kept = {"text": '{"assessment": "reject"}', "finish": "stop", "usage": {}, "model": "m", "at": "then"}
    async with ChatServer() as server:
        registry = ProviderRegistry({"OPENAI_BASE_URL": server.url})
        output = await AgentAction(registry).perform(
            call({"type": "openai", "model": "x", "options": {}}, recorded={ANSWER_STEP: kept}), Book()
        )
        await registry.aclose()
        assert server.requests == []
    assert (output.output, output.outputs["timestamp"]) == ({"assessment": "reject"}, "then")


async def test_the_whole_way_to_a_real_server() -> None:
    async with ChatServer([{"object": {"assessment": "approve"}, "reasoning": "short", "cuts": 5}]) as server:
        registry = ProviderRegistry({"TOKEN": "secret-token"})
        options = {"base_url": server.url, "headers": {"X-Api-Key": "${TOKEN}"}}
        book = Book()
        output = await AgentAction(registry, fault=book.fault).perform(
            call({"type": "custom", "model": "local", "options": options}), book
        )
        await registry.aclose()
        (received,) = server.requests
    assert received.headers["x-api-key"] == "secret-token"
    assert received.body["messages"] == [
        {"role": "system", "content": "Review."},
        {"role": "user", "content": "Text: A text."},
    ]
    assert received.body["temperature"] == 0.2
    assert received.body["response_format"]["json_schema"]["name"] == "content-reviewer"
    assert output.outputs["assessment"] == "approve"
    assert (output.model, output.usage) == ("loopback-1", {"input_tokens": 11, "output_tokens": 7})
    assert "thinking" in book.order
    assert "secret-token" not in repr(book.deltas) + repr(book.steps) + repr(output)


async def test_a_model_that_holds_less_is_told_less_where_the_first_one_fails() -> None:
    """The first one is told all of it; the other one the task and what was said last."""
    past = [Message.text(Role.USER if n % 2 == 0 else Role.ASSISTANT, f"{n} " + "x" * 3_000) for n in range(12)]
    messages = (Message.text(Role.SYSTEM, "Be good."), *past, Message.text(Role.USER, "Do it."))
    async with ChatServer([{"status": 503}]) as first, ChatServer([{"text": "Done."}]) as second:
        registry = ProviderRegistry({})
        choices = [{"type": "custom", "model": model, "options": {"base_url": server.url}} for model, server in
                   (("gpt-4.1", first), ("gpt-4", second))]  # fmt: skip
        agent = {"id": "a", "provider": choices[0], "fallback": choices[1:]}
        asked = replace(agent_run(agent, choices[0], messages), recalled=12)
        result = await AgentAction(registry).work(asked, {"agent": agent}, Book(), "case")
        await registry.aclose()
    whole, told = ([one["content"] for one in s.requests[0].body["messages"]] for s in (first, second))
    assert result.answer.text == "Done."
    assert len(whole) == 14
    assert (told[0], told[-1]) == ("Be good.", "Do it.")
    assert 3 < len(told) < 14 and told[1:-1] == whole[-len(told) + 1 : -1]
    # What GPT-4 holds, without what is left for its answer.
    assert sum(len(text) for text in told) < 4 * (8_192 - 4_096)


def test_how_much_a_model_holds_is_what_its_options_say_where_that_is_less() -> None:
    assert context_of("gpt-4", {}) == 8_192
    assert context_of("qwen3", {}) is None
    assert context_of("qwen3", {"options": {"options": {"num_ctx": 4_096}, "keep_alive": "10m"}}) == 4_096
    assert context_of("/models/gpt-oss-20b", {"options": {"max_model_len": 16_384}}) == 16_384
    provider = {"type": "ollama", "model": "gpt-oss", "options": {"options": {"options": {"num_ctx": 4_096}}}}
    asked = agent_run({"id": "a", "context_tokens": 2_000, "fallback": [provider]}, provider, ())
    assert (asked.context(), asked.context(1)) == (2_000, 2_000)


async def test_errors_pass_as_they_are() -> None:
    action = AgentAction(ProviderRegistry({}))
    with pytest.raises(InvalidOutput, match="assessment"):
        await action.perform(call(spec({"assessment": "perhaps"})), Book())
    with pytest.raises(ProviderMisconfigured, match="OPENAI_API_KEY"):
        await action.perform(call({"type": "openai", "model": "gpt-4.1", "options": {}}), Book())

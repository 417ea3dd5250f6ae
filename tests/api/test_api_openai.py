"""The endpoint for chat clients, asked by the official SDK and by a framework that builds on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from eventually import eventually
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from whole import whole

from circuit.api.openai import endpoint
from circuit.api.openai.form import chat_wish
from circuit.app import Circuit
from circuit.security.principal import LOCAL

WORKFLOW = """
workflow: desk
places:
  asked: {initial: true}
  done: {terminal: true}
agents:
  clerk:
    llm_provider:
      type: scripted
      chunk_size: 5
      responses:
        - {when: "/You are a clerk.*fail/", error: context_too_long, message: the prompt is too long}
        - {when: limit, error: rate_limit, message: slow down}
        - {when: sunny, response: "It is sunny in Oslo."}
        - {when: weather, tool_calls: [{name: get_weather, arguments: {city: Oslo}}]}
        - {when: "/You are a clerk.*hello/", response: "Good morning, Ada.", reasoning: "She greets."}
    llm_config: {max_tokens: 500}
    prompts: {system: You are a clerk., user_template: "NEVER {input_data}"}
  reviewer:
    llm_provider: {type: scripted, responses: [{verdict: approve}]}
    output_schema:
      {type: object, required: [verdict], properties: {verdict: {type: string}}, additionalProperties: false}
  waiter:
    llm_provider: {type: scripted, delay_seconds: 30, responses: [Never.]}
transitions:
  review:
    from_places: asked
    to_place: done
    agent_execution: {agent_id: reviewer, output_mapping: {data.verdict: verdict}}
"""
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SECONDS = 120.0


class Desk:
    """A server with the workflow, and a client of it."""

    def __init__(self, circuit: Circuit, url: str) -> None:
        self.circuit = circuit
        self.url = url
        self.http = httpx.AsyncClient(timeout=SECONDS)
        self.client = AsyncOpenAI(base_url=f"{url}/v1", api_key="any", timeout=SECONDS, max_retries=0)

    async def post(self, body: Any, path: str = "chat/completions", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body)
        return await self.http.post(f"{self.url}/v1/{path}", content=content, headers=headers)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with whole(database_url, CIRCUIT_DEFAULT_MODEL="agent:clerk") as (circuit, url):
        await circuit.load(WORKFLOW)
        running = Desk(circuit, url)
        yield running
        await running.http.aclose()
        await running.client.close()


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def test_the_sdk_talks_with_agents_workflows_and_plain_models(desk: Desk) -> None:
    chat = desk.client.chat.completions
    answer = await chat.create(model="agent:clerk", messages=asked("hello"))
    assert answer.choices[0].message.content == "Good morning, Ada."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )
    assert answer.model == "agent:clerk"

    # It ran as an execution of a case, with the whole conversation in its token.
    view = await desk.circuit.case(answer.id.removeprefix("chatcmpl-"))
    assert (view.workflow_id, view.status.value) == ("agent:clerk", "completed")
    assert view.tokens[0].data["messages"] == asked("hello")
    assert view.executions[0].descriptor["agent_id"] == "clerk"
    assert [one.id for one in await desk.circuit.queries.workflows(LOCAL.tenant)] == ["desk"]

    stream = await chat.create(
        model="agent:clerk", messages=asked("hello"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    said = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in said) == "Good morning, Ada."
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in said) == "She greets."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == answer.usage.completion_tokens

    # A workflow takes a JSON object, or text as `content`, and answers with what its case came to.
    for text, data in (
        ('{"title": "A"}', {"title": "A"}),
        ("plain", {"content": "plain"}),
        ("[1]", {"content": "[1]"}),
    ):
        ran = await chat.create(model="workflow:desk", messages=asked(text))
        assert json.loads(ran.choices[0].message.content or "") == {**data, "verdict": "approve"}
        assert ran.usage is not None and ran.usage.completion_tokens > 0
    stream = await chat.create(model="workflow:desk", messages=asked("plain"), stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert json.loads(text) == {"content": "plain", "verdict": "approve"}

    plain = await chat.create(model="scripted:any", messages=asked("x"))
    assert (
        plain.choices[0].message.content == "This is a scripted answer of 1 characters of prompt; no model was asked."
    )
    dressed = await chat.create(model="scripted:any", messages=asked("x"), extra_body={"template": "clerk"})
    assert "of 18 characters" in (dressed.choices[0].message.content or "")  # the clerk's prompt, a blank line, x

    older = await desk.client.completions.create(model="agent:clerk", prompt="hello")
    assert older.choices[0].text == "Good morning, Ada."
    pieces = await desk.client.completions.create(model="agent:clerk", prompt="hello", stream=True)
    assert "".join([piece.choices[0].text async for piece in pieces]) == "Good morning, Ada."

    models = [model.id async for model in await desk.client.models.list()]
    assert models == ["agent:clerk", "agent:reviewer", "agent:waiter", "scripted:scripted", "workflow:desk"]
    assert (await desk.client.models.retrieve("workflow:desk")).owned_by == "circuit"
    with pytest.raises(openai.NotFoundError):
        await desk.client.models.retrieve("agent:none")


async def test_tools_belong_to_whoever_asks(desk: Desk) -> None:
    chat = desk.client.chat.completions
    first = await chat.create(model="agent:clerk", messages=asked("weather?"), tools=[TOOL])
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls or ()
    assert call.type == "function" and json.loads(call.function.arguments) == {"city": "Oslo"}
    history = [
        *asked("weather?"),
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    second = await chat.create(model="agent:clerk", messages=history, tools=[TOOL])
    assert second.choices[0].message.content == "It is sunny in Oslo."

    stream = await chat.create(model="agent:clerk", messages=asked("weather?"), tools=[TOOL], stream=True)
    chunks = [chunk.choices[0] async for chunk in stream]
    [called] = [chunk.delta.tool_calls[0] for chunk in chunks if chunk.delta.tool_calls]
    assert called.function is not None and json.loads(called.function.arguments or "") == {"city": "Oslo"}
    assert chunks[-1].finish_reason == "tool_calls"

    # The form before `tools`.
    older = await chat.create(model="agent:clerk", messages=asked("weather?"), functions=[TOOL["function"]])
    assert older.choices[0].finish_reason == "function_call"
    made = older.choices[0].message.function_call
    assert made is not None and made.name == "get_weather"
    history = [
        *asked("weather?"),
        {"role": "assistant", "content": None, "function_call": {"name": made.name, "arguments": made.arguments}},
        {"role": "function", "name": "get_weather", "content": "sunny"},
    ]
    last = await chat.create(model="agent:clerk", messages=history, functions=[TOOL["function"]])
    assert last.choices[0].message.content == "It is sunny in Oslo."

    # A framework goes the same rounds by itself.
    provider = OpenAIProvider(openai_client=desk.client)
    agent: Agent[None, str] = Agent(OpenAIChatModel("agent:clerk", provider=provider))

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather."""
        return f"sunny in {city}"

    assert (await agent.run("weather?")).output == "It is sunny in Oslo."


async def test_structured_answers_and_ways_of_working(desk: Desk) -> None:
    chat = desk.client.chat.completions
    # The agent's own output_schema is applied, and what is streamed is the raw answer.
    own = await chat.create(model="agent:reviewer", messages=asked("x"))
    assert json.loads(own.choices[0].message.content or "") == {"verdict": "approve"}
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    made = await chat.create(model="scripted:any", messages=asked("x"), response_format=form)
    assert isinstance(json.loads(made.choices[0].message.content or "")["n"], int)
    with pytest.raises(openai.BadRequestError) as refused:
        await chat.create(model="agent:reviewer", messages=asked("x"), response_format=form)
    assert (refused.value.param, refused.value.code) == ("response_format", "invalid_request")

    # Of a server that has no model for requests that name none, the template names who answers.
    for default, model in ((None, "agent:clerk"), ("agent:waiter", "agent:waiter")):
        body = json.dumps({"messages": asked("x"), "template": "clerk"}).encode()
        assert chat_wish(body, default).model == model

    # As the design has it: no model, and the ways of working that this request wants.
    answer = await desk.post({"messages": asked("hello"), "capabilities": ["chain_of_thought"]})
    assert answer.json()["choices"][0]["message"]["content"] == "Good morning, Ada."
    view = await desk.circuit.case(answer.headers["x-circuit-case-id"])
    assert answer.headers["x-circuit-execution-id"] == view.executions[0].id
    record = await desk.circuit.queries.execution(desk.circuit.key(str(view.key.case)), 1)
    assert record is not None and len(record.answers) == 2  # the thoughts, and the answer

    # An author's bound stays one; other settings are the request's.
    await chat.create(model="agent:clerk", messages=asked("hello"), max_tokens=9000, temperature=0.5, stop="x")
    [case] = await desk.circuit.cases(limit=1)
    used = (await desk.circuit.case(str(case.key.case))).executions[0].descriptor["parameters"]
    assert used == {"max_tokens": 500, "temperature": 0.5, "stop_sequences": ["x"]}


async def test_errors_say_what_and_whether_to_try_again(desk: Desk) -> None:
    chat = desk.client.chat.completions
    with pytest.raises(openai.BadRequestError) as long:
        await chat.create(model="agent:clerk", messages=asked("fail"))
    assert long.value.code == "context_too_long"
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as limited:
            await chat.create(model="agent:clerk", messages=asked("limit"), stream=stream)
        assert limited.value.response.headers["x-should-retry"] == "true"
    with pytest.raises(openai.NotFoundError):
        await chat.create(model="agent:nobody", messages=asked("x"))
    with pytest.raises(openai.NotFoundError):
        await chat.create(model="gpt-4.1", messages=asked("x"))
    with pytest.raises(openai.NotFoundError):
        await chat.create(model="workflow:nothing", messages=asked("x"))

    begun = len(await desk.circuit.cases(limit=1000))
    bodies: list[tuple[Any, str | None]] = [
        (b"{", None),
        (b"[]", None),
        (b"\xff", None),
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "no", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}]}]},
            "messages",
        ),
        ({"messages": asked("x"), "temperature": 3}, "temperature"),
        ({"messages": asked("x"), "max_tokens": 0}, "max_tokens"),
        ({"messages": asked("x"), "n": 2}, "n"),
        ({"messages": asked("x"), "stop": ["x"] * 17}, "stop"),
        ({"messages": asked("x"), "logprobs": True}, "logprobs"),
        ({"messages": asked("x"), "capabilities": ["magic"]}, "capabilities"),
        ({"messages": asked("x"), "tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"messages": asked("x"), "response_format": {"type": "json_schema"}}, "response_format"),
        (
            {
                "messages": asked("x"),
                "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}},
            },
            "response_format",
        ),
        (
            {
                "messages": asked("x"),
                "response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": []}}},
            },
            "response_format",
        ),
        ({"model": "workflow:desk", "messages": asked("x"), "tools": [TOOL]}, None),
    ]
    for body, parameter in bodies:
        answer = await desk.post(body)
        assert answer.status_code == 400, (body, answer.text)
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("invalid_request", parameter), (body, error)
        assert error["type"] == "invalid_request_error"
    for several in (["a", "b"], [1, 2], []):
        answer = await desk.post({"prompt": several}, "completions")
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "prompt: write one text, or a list of one text"
    for none in (b"[]", b"null", b"7", b"{"):
        answer = await desk.http.post(f"{desk.url}/v1/chat/completions", content=none)
        assert (answer.status_code, "JSON" in answer.json()["error"]["message"]) == (400, True), answer.text
    # So is what other parts of the server answer there, and only there.
    for path, status in (("nothing", 404), ("completions/x", 404), ("../nothing", 404)):
        answer = await desk.http.post(f"{desk.url}/v1/{path}")
        assert answer.status_code == status
        chat_client = answer.request.url.path.startswith("/v1/")
        assert ("type" in answer.json()["error"]) == chat_client == ("x-should-retry" in answer.headers), path
        assert int(answer.headers["content-length"]) == len(answer.content)
    huge = await desk.post(b" " * (8 * 1024 * 1024 + 1))
    assert huge.json()["error"].keys() == {"message", "type", "param", "code"}
    assert (huge.status_code, huge.json()["error"]["code"]) == (413, "payload_too_large")
    # NUL and lone surrogates in what is to be stored.
    assert (await desk.post({"messages": asked("a\0b")})).status_code == 422
    assert len(await desk.circuit.cases(limit=1000)) == begun


async def test_who_goes_away_ends_what_he_asked_unless_he_may_come_back(desk: Desk) -> None:
    async def status(case: str) -> str:
        return (await desk.circuit.case(case)).status.value

    async def leave(**headers: str) -> str:
        """Begin to read a stream, and hang up."""
        body = json.dumps({"model": "agent:waiter", "messages": asked("x"), "stream": True})
        before = len(await desk.circuit.cases(limit=1000))
        asking = asyncio.create_task(desk.http.post(f"{desk.url}/v1/chat/completions", content=body, headers=headers))

        async def begun() -> bool:
            return len(await desk.circuit.cases(limit=1000)) > before

        await eventually(begun)
        asking.cancel()
        [case] = await desk.circuit.cases(limit=1)
        return str(case.key.case)

    gone = await leave()

    async def cancelled() -> bool:
        return await status(gone) == "cancelled"

    await eventually(cancelled)
    stays = await leave(**{"idempotency-key": "mine"})
    assert await status(stays) in ("running", "waiting")
    await desk.circuit.cancel(stays)

    # The same key gives the same answer, and no second execution.
    bodies = {"model": "agent:clerk", "messages": asked("hello")}
    first, second = [await desk.post(bodies, **{"idempotency-key": "one"}) for _ in range(2)]
    assert first.json() == second.json() | {"created": first.json()["created"]}


POOLED = """
workflow: pooled
pool: elsewhere
places: {asked: {initial: true}, done: {terminal: true}}
agents: {clerk: {llm_provider: {type: scripted, responses: [Never.]}, prompts: {system: You are a clerk.}}}
transitions: {work: {from_places: asked, to_place: done, agent_execution: clerk}}
"""


async def test_a_client_is_told_that_no_worker_can_take_what_it_asks(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE_SECONDS", 0.1)
    await desk.circuit.load(POOLED)
    for model, named in (
        ("workflow:pooled", "circuit worker --pool elsewhere"),
        ("vllm:nobody/has-this", "Install circuit-engine[vllm]"),
    ):
        for stream in (False, True):
            answer = await desk.post({"model": model, "messages": asked("hello"), "stream": stream})
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "no_worker"
            assert named in answer.json()["error"]["message"]
            assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "5")
    # What nobody would hear is not begun by a worker that comes later; the workflow is.
    raw = await desk.circuit.database.raw()

    async def cancelled() -> bool:
        found = await raw.fetch(
            """SELECT c.workflow_id FROM circuit.command k JOIN circuit."case" c USING (tenant_id, case_id)
            WHERE k.kind = 'cancel'"""
        )
        return [row[0] for row in found] == ["model:", "model:"]

    await eventually(cancelled)
    await raw.close()
    # The client's own SDK knows what to make of it; another one joins the case that waits.
    with pytest.raises(openai.InternalServerError, match="vllm"):
        await desk.client.chat.completions.create(
            model="vllm:nobody/has-this", messages=asked("hello"), extra_headers={"Idempotency-Key": "once"}
        )
    body = {"model": "vllm:nobody/has-this", "messages": asked("hello")}
    first, again = [await desk.post(body, **{"Idempotency-Key": "once"}) for _ in range(2)]
    assert first.headers["x-circuit-case-id"] == again.headers["x-circuit-case-id"]

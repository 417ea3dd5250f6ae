"""What agents keep from run to run, in Postgres: answers to identical requests, and conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from postgres import execute

from circuit import Circuit
from circuit.app import StreamUpdate
from circuit.engine.answers import Answers
from circuit.errors import Conflict, Forbidden, InvalidRequest, NotFound
from circuit.security.principal import Principal
from circuit.settings import Settings
from circuit.storage import answers

CLERK = """
workflow: cached-clerk
places: {asked: {initial: true}, answered: {terminal: true}}
agents:
  clerk:
    llm_provider: {type: custom, model: gpt-4.1-mini, base_url: "${MODEL}"}
    cache: {ttl: 1h}
transitions:
  work:
    from_places: asked
    to_place: answered
    agent_execution: {agent_id: clerk, output_mapping: {data.said: text, data.usage: usage}}
"""


async def test_identical_requests_share_an_answer(database_url: str, tmp_path: Path) -> None:
    async with ChatServer([{"text": "One."}, {"text": "Two."}, {"text": "Three."}]) as server:
        settings = Settings(home=tmp_path, database_url=database_url, environment={"MODEL": server.url})
        async with Circuit.open(settings=settings) as circuit:
            workflow = await circuit.load(CLERK)

            async def said(data: dict[str, Any]) -> tuple[dict[str, Any], list[bytes], str]:
                case = await circuit.start(workflow.id, data)
                frames = [one.frame.body async for one in circuit.stream(case) if isinstance(one, StreamUpdate)]
                view = await circuit.case(case)
                return dict(view.tokens[0].data), frames, view.executions[0].id

            first, _, _ = await said({"n": 1})
            again, frames, execution = await said({"n": 1})
            other, _, _ = await said({"n": 2})
            assert [first["said"], again["said"], other["said"]] == ["One.", "One.", "Two."]
            assert again["usage"] == {"input_tokens": 0, "output_tokens": 0, "cached_answers": 1, "cost_usd": 0.0}
            assert first["usage"]["input_tokens"] > 0
            assert sum(b"from the cache" in frame for frame in frames) == 1
            record = await circuit.queries.execution(*_key(circuit, execution))
            assert record is not None
            assert [(one.step, one.cached) for one in record.answers] == [("answer:0", True)]
            # What is over counts no more, even while its row is there; a sweep takes the row away.
            await execute(database_url, "UPDATE circuit.cached_answer SET expires_at = now() - interval '1 second'")
            assert (await said({"n": 1}))[0]["said"] == "Three."
            raw = await circuit.database.raw()
            await answers.forget(raw)
            assert await raw.fetchval("SELECT count(*) FROM circuit.cached_answer") == 1
            digest = await raw.fetchval("SELECT digest FROM circuit.cached_answer")
            await raw.close()
            assert await Answers(circuit.database, 1).find(digest) is not None
            assert await Answers(circuit.database, 2).find(digest) is None
            # One that no row can hold is not kept, and nobody hears of it.
            await Answers(circuit.database, 1).keep(b"x", {"text": "a\0b"}, 60)
            assert await Answers(circuit.database, 1).find(b"x") is None
        assert len(server.requests) == 3


def _key(circuit: Circuit, execution: str) -> tuple[Any, int]:
    case, _, firing = execution.rpartition(".")
    return circuit.key(case), int(firing)


TALKER = """
workflow: talker
places: {asked: {initial: true}, open: {}, told: {terminal: true}, parted: {terminal: true}}
agents:
  talker:
    llm_provider: {type: custom, model: m, base_url: "${MODEL}"}
    prompts: {system: "You talk.", user_template: "{said}"}
    conversation: SCOPE
    tools: [fs.list]
transitions:
  answer:
    from_places: asked
    to_place: open
    agent_execution: {agent_id: talker, input_mapping: {said: data.said}, output_mapping: {data.answer: text}}
  go_on:
    from_places: open
    to_place: asked
    trigger: {type: manual, form: {type: object, required: [said], properties: {said: {type: string}}}}
    output_mapping: {data.said: form.said}
  part: {from_places: open, to_places: [told, parted], trigger: {type: manual}}
"""


def roles(body: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(one["role"], one.get("content")) for one in body["messages"]]


async def test_a_conversation_goes_on_over_firings_and_cases(database_url: str, tmp_path: Path) -> None:
    calls = {"calls": [{"name": "fs_list", "arguments": {}}]}
    answers = [calls, {"text": "Hello Ada."}, {"text": "You are Ada."}, {"text": "Still Ada."}, {"text": "Who?"}]
    async with ChatServer(answers) as server:
        settings = Settings(home=tmp_path, database_url=database_url, environment={"MODEL": server.url})
        async with Circuit.open(settings=settings) as circuit:
            workflow = await circuit.load(TALKER.replace("SCOPE", "token"))
            case = await circuit.start(workflow.id, {"said": "I am Ada."})
            await circuit.wait(case)
            await circuit.fire(case, "go_on", {"said": "Who am I?"})
            await circuit.wait(case)
            asked = roles(server.requests[2].body)
            assert [role for role, _ in asked] == ["system", "user", "assistant", "tool", "assistant", "user"]
            assert [text for role, text in asked if role == "user"] == ["I am Ada.", "Who am I?"]
            (listed,) = await circuit.conversations.list(circuit.principal, agent_id="talker")
            assert (listed.case_id, listed.token, listed.messages) == (case, f"{case}.1", 6)
            said = await circuit.conversations.messages(circuit.principal, listed.id)
            assert [one.role for one in said] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
            assert said[1].parts[0]["type"] == "tool_call"
            assert [one.execution_id for one in said] == [f"{case}.1"] * 4 + [f"{case}.2"] * 2
            # A fork holds what was said up to a message, and a new case goes on from there.
            fork = await circuit.conversations.fork(circuit.principal, listed.id, after=4)
            assert (fork.case_id, fork.messages, fork.forked_from) == (None, 4, listed.id)
            other = await circuit.start(workflow.id, {"said": "And now?"}, conversations={"talker": fork.id})
            await circuit.wait(other)
            assert [text for role, text in roles(server.requests[3].body) if role == "user"] == [
                "I am Ada.",
                "And now?",
            ]
            assert (await circuit.conversations.find(circuit.principal, listed.id)).messages == 6
            assert (await circuit.conversations.find(circuit.principal, fork.id)).messages == 4
            mine = await circuit.conversations.list(circuit.principal, case=circuit.key(other).case)
            assert [(one.messages, one.forked_after) for one in mine] == [(6, 4)]
            # Without one, a case begins anew.
            await circuit.wait(await circuit.start(workflow.id, {"said": "Hm?"}))
            assert len(roles(server.requests[4].body)) == 2
            for wrong in ({"nobody": fork.id}, {"talker": "x"}, {"talker": case}):
                with pytest.raises((InvalidRequest, NotFound)):
                    await circuit.start(workflow.id, {"said": "?"}, conversations=wrong)
            with pytest.raises(InvalidRequest, match="whose results are message 3: fork it after 3"):
                await circuit.conversations.fork(circuit.principal, listed.id, after=2)
            with pytest.raises(InvalidRequest, match="messages 1 to 6"):
                await circuit.conversations.fork(circuit.principal, listed.id, after=7)
            # What belongs to no case is added to by whoever knows what was said last; a case adds to its own.
            said = [{"role": "user", "parts": [{"type": "text", "text": "Who?"}]}]
            chat = await circuit.conversations.begin(circuit.principal, "talker", said)
            await circuit.conversations.add(circuit.principal, chat.id, 1, said)
            for conversation, after in ((chat.id, 1), (chat.id, 3), (listed.id, listed.messages)):
                with pytest.raises(Conflict):
                    await circuit.conversations.add(circuit.principal, conversation, after, said)
            assert (await circuit.conversations.find(circuit.principal, chat.id)).messages == 2
            stranger = Principal("s", 2, frozenset({"admin"}))
            with pytest.raises(NotFound):
                await circuit.conversations.add(stranger, chat.id, 2, said)
            assert await circuit.conversations.list(stranger) == []
            with pytest.raises(NotFound):
                await circuit.conversations.fork(stranger, listed.id)
            with pytest.raises(Forbidden):
                await circuit.conversations.list(Principal("n", 1))

"""A conversation that goes on: what a run is told of earlier ones, what it adds, and what a crash changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from surroundings import Book, Dialogue
from test_agent_action import call
from test_agent_loop import Bench, run

from circuit.actions.conversation import Conversation, paired
from circuit.agents.agent import run_agent
from circuit.agents.run import Capability
from circuit.engine.conversations import conversation_id
from circuit.ids import CaseKey
from circuit.providers.messages import Message, Role, TextPart, ToolCallPart, ToolResultPart, message_json, text_of

AGENT = {"id": "a", "conversation": "token"}


class Remembered:
    """A conversation in memory."""

    def __init__(self, *said: Message) -> None:
        self.rows: list[Mapping[str, Any]] = [message_json(one) for one in said]
        self.looked = 0

    def add(self, rows: Any) -> None:
        self.rows += rows

    async def length(self) -> int:
        self.looked += 1
        return len(self.rows)

    async def recall(self, upto: int) -> list[tuple[int, Mapping[str, Any]]]:
        told = list(enumerate(self.rows[:upto], 1))
        summaries = [row for _, row in told if row["role"] == "summary"]
        first = summaries[-1]["covers"] if summaries else 0
        said = [(number, row) for number, row in told if number > first and row["role"] != "summary"]
        return [(row["covers"], row) for row in summaries[-1:]] + said


def said(*texts: str) -> list[Message]:
    return [Message.text((Role.USER, Role.ASSISTANT)[at % 2], text) for at, text in enumerate(texts)]


async def talk(
    memory: Remembered, speaker: Dialogue, book: Book, *capabilities: Capability, **more: Any
) -> tuple[Conversation, Any, Any]:
    conversation = await Conversation.open(AGENT, call({}), book, lambda tenant, which: memory)
    assert conversation is not None
    asked = run(*capabilities, **more)
    told = replace(asked, messages=conversation.before(asked.messages), recalled=len(conversation.recalled))
    result = await run_agent(told, speaker, book, tools=Bench().tools())
    return conversation, result, conversation.exchange([asked.messages[-1]], result)


async def test_what_was_said_is_told_and_what_counts_is_added() -> None:
    memory, speaker = Remembered(*said("Hi.", "Hello.")), Dialogue(("look", "{}"), "Here.")
    _, _, exchange = await talk(memory, speaker, Book())
    assert [text_of(m.parts) for m in speaker.requests[0].messages] == ["Be good.", "Hi.", "Hello.", "Do it."]
    assert [(one["role"], one["parts"][0]["type"]) for one in exchange.messages] == [
        ("user", "text"),
        ("assistant", "tool_call"),
        ("tool", "tool_result"),
        ("assistant", "text"),
    ]
    assert (exchange.agent_id, exchange.token) == ("a", 1)


async def test_thoughts_drafts_and_judgements_are_no_part_of_it() -> None:
    answers = (
        "1. think",
        "draft",
        '{"confidence": 0.1, "issues": []}',
        "2. think",
        "better",
        '{"confidence": 1, "issues": []}',
    )
    both = Capability("self_reflection"), Capability("chain_of_thought")
    _, _, exchange = await talk(Remembered(), Dialogue(*answers), Book(), *both)
    assert [one["parts"][0]["text"] for one in exchange.messages] == ["Do it.", "better"]


async def test_a_run_that_starts_again_is_told_the_same() -> None:
    memory, book = Remembered(*said("Hi.", "Hello.")), Book()
    conversation, _, _ = await talk(memory, Dialogue("Done."), book)
    memory.add([message_json(one) for one in said("Meanwhile.", "Yes.")])
    again = await Conversation.open(AGENT, call({}), Book(book.steps), lambda tenant, which: memory)
    assert again == conversation
    assert memory.looked == 1


async def test_what_the_model_cannot_hold_is_summarised_once_for_all_runs() -> None:
    memory, long = Remembered(*said(*(f"{n} " + "x" * 4_000 for n in range(8)))), {"context_tokens": 10_000}
    _, result, exchange = await talk(memory, Dialogue("It was long.", "Yes."), Book(), **long)
    assert result.recap is not None
    assert exchange.messages[0]["role"] == "summary"
    covers = exchange.messages[0]["covers"]
    assert 1 <= covers < 8
    memory.add(exchange.messages)
    speaker = Dialogue("Still.")
    _, result, exchange = await talk(memory, speaker, Book(), **long)
    assert (result.recap, exchange.messages[0]["role"]) == (None, "user")
    told = [text_of(message.parts) for message in speaker.requests[0].messages]
    assert told[1].endswith("It was long.")
    assert [text.split()[0] for text in told[2:]] == [*(str(n) for n in range(covers, 8)), "Do", "Yes.", "Do"]


async def test_the_task_stays_however_long_the_past_is() -> None:
    memory = Remembered(*said(*("Do it.", "x" * 9_000) * 6))
    speaker = Dialogue("It was long.", ("look", json.dumps({"name": "y" * 9_000})), "It was longer.", "Done.")
    _, result, exchange = await talk(memory, speaker, Book(), context_tokens=9_000)
    assert result.answer.text == "Done."
    last = [text_of(message.parts) for message in speaker.requests[-1].messages if message.role == Role.USER]
    assert last[-1] == "Do it."
    assert exchange.messages[0]["covers"] == 12


async def test_what_is_too_large_to_keep_is_left_out() -> None:
    calls = [("look", json.dumps({"name": chr(64 + n) * 240_000})) for n in range(32)]
    _, _, exchange = await talk(Remembered(), Dialogue(calls[:16], calls[16:], "Done."), Book())
    assert [one["role"] for one in exchange.messages] == ["user", "assistant"]


def test_an_id_sorts_with_its_case_and_names_agent_and_token() -> None:
    case = CaseKey(1, UUID("0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11"))
    ids = {conversation_id(case, agent, token) for agent in ("a", "b") for token in (None, 1, 2)}
    assert len(ids) == 6
    assert all(one.bytes[:8] == case.case.bytes[:8] and one.version == 7 for one in ids)


def test_a_call_is_told_with_its_results_or_not_at_all() -> None:
    asks = Message(Role.ASSISTANT, (TextPart("I look."), ToolCallPart("c", "look", "{}")))
    mute = Message(Role.ASSISTANT, (ToolCallPart("c", "look", "{}"),))
    gave = Message(Role.TOOL, (ToolResultPart("c", "look", "there"),))
    user, done = Message.text(Role.USER, "Go on."), Message.text(Role.ASSISTANT, "I look.")
    for said, kept in [
        ([user, asks, gave, user], [1, 2, 3, 4]),
        ([gave, user, asks, gave], [2, 3, 4]),
        ([user, asks], [1, 2]),
        ([user, mute, user, mute], [1, 3]),
    ]:
        found = paired(list(enumerate(said, 1)))
        assert [number for number, _ in found] == kept
    assert paired([(1, user), (2, asks)])[-1][1] == done

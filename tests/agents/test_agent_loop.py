"""The loop: what is asked and done, in which order, once; and what a crash changes, which is nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from surroundings import Asked, Book, Dialogue

from circuit.agents.agent import run_agent
from circuit.agents.answer import Answer
from circuit.agents.function import function_tool
from circuit.agents.policy import Policies
from circuit.agents.run import AgentResult, AgentRun, Capability
from circuit.agents.session import MOST_CALLS
from circuit.agents.tools import RESULT_LIMIT, Tool, ToolContext, table
from circuit.agents.window import tokens
from circuit.errors import (
    InvalidOutput,
    OutputHeld,
    OutputImpossible,
    ToolFailed,
    ToolLoop,
    ToolsMisconfigured,
    TurnLimit,
)
from circuit.providers.messages import Message, Role, TextPart, ToolResultPart
from circuit.providers.messages import text_of as part_text
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, TextChunk, ToolSpec

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


class Bench:
    """Tools that note what is done with them."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []
        self.keys: list[str] = []

    def tools(self) -> dict[str, Tool]:
        async def add(a: int, b: int = 1, *, around: ToolContext) -> int:
            """Adds two numbers."""
            self.done.append(("add", (a, b)))
            self.keys.append(around.key)
            return a + b

        def look(name: str = "nothing") -> str:
            """Looks something up.

            With a second paragraph that no model needs.
            """
            self.done.append(("look", name))
            return f"{name} is here"

        def bad(how: str) -> Any:
            if how == "raises":
                raise RuntimeError("sk-secret-key-0123456789 broke it")
            if how == "refuses":
                raise ToolFailed("not today")
            values: dict[str, Any] = {"bytes": b"\x00\x01", "nul": "a\0b", "large": "x" * 100_000_000, "odd": object()}
            return values[how]

        async def hang() -> None:
            await asyncio.Event().wait()

        made = [function_tool(call.__name__, call) for call in (add, look, bad)]
        return table([*made, function_tool("hang", hang, seconds=0.05)])


def run(*capabilities: Capability, **more: Any) -> AgentRun:
    given = {"model": "m", "agent_id": "a", "execution_id": "case.1", "capabilities": capabilities, **more}
    return AgentRun(messages=(Message.text(Role.SYSTEM, "Be good."), Message.text(Role.USER, "Do it.")), **given)


async def work(
    speaker: Dialogue, bench: Bench, asked: AgentRun | None = None, book: Book | None = None, **more: Any
) -> tuple[AgentResult, Book]:
    book = book or Book()
    return await run_agent(asked or run(), speaker, book, book.fault, tools=bench.tools(), **more), book


class Pausing:
    """A provider that pauses twice in its answer."""

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        self.requests.append(request)
        text = ("I looked", " and found", " it.")[request.turn]
        yield TextChunk(text)
        yield Finished("pause" if request.turn < 2 else "stop", "m", {"output_tokens": 1}, (TextPart(text),))


async def test_a_model_that_pauses_is_asked_to_go_on_and_all_of_it_is_the_answer() -> None:
    speaker, book = Pausing(), Book()
    result = await run_agent(run(), speaker, book)
    assert (result.answer.text, book.text) == ("I looked and found it.", "I looked and found it.")
    assert [part_text(message.parts) for message in speaker.requests[2].messages[2:]] == ["I looked", " and found"]
    assert [part_text(message.parts) for message in result.said] == ["I looked", " and found", " it."]
    assert result.usage == {"output_tokens": 3}


def results_in(request: ModelRequest) -> list[ToolResultPart]:
    return [part for message in request.messages for part in message.parts if isinstance(part, ToolResultPart)]


async def test_calls_are_made_and_their_results_go_back() -> None:
    speaker, bench = Dialogue([("add", '{"a": 2}'), ("look", '{"name": "it"}')], "Three, and it is here."), Bench()
    result, book = await work(speaker, bench)
    assert result.answer.text == "Three, and it is here."
    assert sorted(bench.done) == [("add", (2, 1)), ("look", "it")]
    assert [(part.call_id, part.content) for part in results_in(speaker.requests[1])] == [
        ("call_0_0", "3"),
        ("call_0_1", "it is here"),
    ]
    assert result.usage == {"input_tokens": 20, "output_tokens": 10}
    assert book.order.index("record answer:0") < book.order.index("tool_call")
    assert [spec.name for spec in speaker.requests[0].tools] == ["add", "look", "bad", "hang"]


def test_the_schema_of_a_tool_comes_from_its_signature() -> None:
    tools = Bench().tools()
    assert tools["add"].spec == ToolSpec(
        "add",
        "Adds two numbers.",
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}},
            "required": ["a"],
            "additionalProperties": False,
        },
    )
    assert tools["look"].spec.description == "Looks something up."
    with pytest.raises(ToolsMisconfigured, match=r"takes \*args"):
        function_tool("f", lambda *args: None)
    with pytest.raises(ToolsMisconfigured, match="two tools"):
        table([function_tool("a.b", print_nothing), function_tool("a_b", print_nothing)])


def print_nothing() -> None:
    """Does nothing."""


@pytest.mark.parametrize(
    ("name", "arguments", "code", "says"),
    [
        ("add", "{", "tool_arguments_malformed", "not JSON"),
        ("add", '{"a": 123456789012345678901234567890}', "tool_arguments_malformed", "more than 64 bits"),
        ("look", '{"name": "\\ud83d"}', "tool_arguments_malformed", "half of a surrogate pair"),
        ("look", '{"name": "\\u0000"}', "tool_arguments_malformed", "a NUL character"),
        ("add", '{"a": 1e999}', "tool_arguments_malformed", "a number too large"),
        ("add", "[1]", "tool_arguments_malformed", "must be a JSON object"),
        ("add", '{"a": 1} and more', "tool_arguments_malformed", "not JSON"),
        ("add", "", "tool_arguments", "a"),
        ("add", '{"a": "x"}', "tool_arguments", "a: "),
        ("add", '{"a": 1, "z": 2}', "tool_arguments", "z"),
        ("nosuch", "{}", "tool_unknown", "there are: add, look, bad, hang"),
        ("bad", '{"how": "raises"}', "tool_failed", "RuntimeError"),
        ("bad", '{"how": "refuses"}', "tool_failed", "not today"),
        ("bad", '{"how": "bytes"}', "tool_output_binary", "binary"),
        ("bad", '{"how": "nul"}', "tool_output_binary", "binary"),
        ("bad", '{"how": "large"}', "tool_output_too_large", "100000000 bytes"),
        ("bad", '{"how": "odd"}', "tool_output", "no JSON"),
        ("hang", "{}", "tool_timeout", "within 0.05 s"),
    ],
)
async def test_what_goes_wrong_is_told_to_the_model(name: str, arguments: str, code: str, says: str) -> None:
    speaker = Dialogue((name, arguments), "I see.")
    result, book = await work(speaker, Bench())
    assert result.answer.text == "I see."
    (told,) = book.results()
    assert told["error"]["code"] == code
    assert says in told["error"]["message"]
    assert "secret" not in json.dumps(book.steps)
    (part,) = results_in(speaker.requests[1])
    assert part.failed
    assert len(part.content) < RESULT_LIMIT


@pytest.mark.parametrize("arguments", ["", "{}", '"{}"', "null", '"{\\"name\\": \\"nothing\\"}"'])
async def test_empty_and_doubly_encoded_arguments_are_understood(arguments: str) -> None:
    bench = Bench()
    _, book = await work(Dialogue(("look", arguments), "Done."), bench)
    assert bench.done == [("look", "nothing")]
    twice = ["they were decoded twice"] if arguments.startswith('"') else []
    assert [book.thoughts("the arguments of look were JSON within JSON")] == (twice or [""])


async def test_twenty_calls_at_once_and_no_more_than_can_be() -> None:
    bench = Bench()
    _, book = await work(Dialogue([("add", f'{{"a": {n}}}') for n in range(20)], "Done."), bench)
    assert book.results() == [n + 1 for n in range(20)] or sorted(book.results()) == [n + 1 for n in range(20)]
    many = [("add", f'{{"a": {n}}}') for n in range(MOST_CALLS + 2)]
    _, book = await work(Dialogue(many, "Done."), Bench())
    assert sum("error" in value for value in book.results() if isinstance(value, dict)) == 2


def test_a_function_that_never_returns_keeps_no_process() -> None:
    program = """
import asyncio, threading
from circuit.agents.function import function_tool
from circuit.agents.tools import ToolContext, call_tool
from circuit.errors import ToolTimeout

async def main():
    tools = [function_tool(f"f{n}", threading.Event().wait, seconds=0.01) for n in range(40)]
    for tool in tools:
        try:
            await call_tool(tool, {}, ToolContext("e", "a", "c", "k"))
        except ToolTimeout:
            pass
    # What the process needs its threads for goes on.
    print(await asyncio.to_thread(lambda: "free"))

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "free\n"), ended.stderr


async def test_a_run_that_starts_again_asks_and_does_nothing_twice() -> None:
    answers = (("add", '{"a": 1}'), ("add", '{"a": 2}'), "Done.")
    whole, bench = Book(), Bench()
    await work(Dialogue(*answers), bench, book=whole)
    steps = list(whole.steps.items())
    assert [name.partition(":")[0] for name, _ in steps] == ["answer", "tool", "answer", "tool", "answer"]
    for kept in range(len(steps) + 1):
        speaker, again, book = Dialogue(*answers[kept // 2 + kept % 2 :]), Bench(), Book(dict(steps[:kept]))
        if kept < len(steps):
            result, _ = await work(speaker, again, book=book)
        else:
            result, _ = await work(Dialogue(AssertionError("asked")), again, book=book)
        assert result.answer.text == "Done."
        assert book.steps == whole.steps
        assert len(again.done) == 2 - kept // 2
        assert [d.type.value for d in book.deltas] == [d.type.value for d in whole.deltas]
        assert result.usage == {"input_tokens": 30, "output_tokens": 15}


async def test_a_call_has_a_key_that_is_the_same_after_a_crash() -> None:
    first, second = Bench(), Bench()
    answers = [("add", '{"a": 1}'), ("add", '{"a": 1, "b": 1}')], "Done."
    await work(Dialogue(*answers), first)
    await work(Dialogue(*answers), second)
    assert first.keys == second.keys
    assert len(set(first.keys)) == 2
    assert all(key.startswith("case.1/") for key in first.keys)


async def test_the_same_call_again_and_again_is_a_clear_failure() -> None:
    with pytest.raises(ToolLoop, match="look 6 times with the same arguments"):
        await work(Dialogue(("look", "{}")), Bench())


async def test_an_agent_that_is_never_done_is_a_clear_failure() -> None:
    class Endless(Dialogue):
        async def stream(self, request: ModelRequest) -> Any:
            self.answers = (("add", f'{{"a": {request.turn}}}'),)
            async for chunk in super().stream(request):
                yield chunk

    with pytest.raises(TurnLimit, match="after 4 turns"):
        await work(Endless("x"), Bench(), run(Capability("react", {"max_turns": 4})))


async def test_an_answer_that_does_not_fit_is_mended_once() -> None:
    speaker = Dialogue("no json", '{"n": 4}')
    result, book = await work(speaker, Bench(), run(output_schema=SCHEMA))
    assert result.output == {"n": 4}
    assert "not JSON" in speaker.requests[1].messages[-1].parts[0].text  # type: ignore[union-attr]
    assert [d.type.value for d in book.deltas][-2:] == ["restarted", "content_chunk"]
    with pytest.raises(InvalidOutput):
        await work(Dialogue("no json", "again none"), Bench(), run(output_schema=SCHEMA))


async def test_a_schema_that_no_output_can_satisfy_ends() -> None:
    speaker = Dialogue("{}")
    with pytest.raises(OutputImpossible, match="nothing satisfies the output_schema of a: `not` leaves nothing out"):
        await work(speaker, Bench(), run(output_schema={"type": "object", "not": {}}))
    assert len(speaker.requests) == 1
    # One that only shows when it is tried is asked for twice, as any.
    speaker = Dialogue("{}")
    pattern = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "pattern": "a^"}}}
    with pytest.raises(InvalidOutput, match="does not fit output_schema"):
        await work(speaker, Bench(), run(output_schema=pattern))
    assert len(speaker.requests) == 2


async def test_a_conversation_with_calls_never_goes_without_the_tools() -> None:
    speaker = Dialogue(("add", '{"a": 1}'), "no json", '{"n": 2}')
    await work(speaker, Bench(), run(output_schema=SCHEMA))
    assert [(request.tool_choice, bool(request.tools)) for request in speaker.requests] == [
        ("auto", True), ("auto", True), ("none", True),
    ]  # fmt: skip
    speaker = Dialogue("no json", '{"n": 2}')
    await work(speaker, Bench(), run(output_schema=SCHEMA))
    assert [bool(request.tools) for request in speaker.requests] == [True, False]


class TestPolicies:
    async def told(self, speaker: Dialogue, *rules: dict[str, Any]) -> tuple[list[Any], Bench, Dialogue]:
        bench = Bench()
        _, book = await work(speaker, bench, run(policies=Policies(rules)))
        return book.results(), bench, speaker

    async def test_what_is_denied_is_not_even_offered(self) -> None:
        results, bench, speaker = await self.told(Dialogue(("add", '{"a": 1}'), "No."), {"deny": ["a*"]})
        assert results[0]["error"]["code"] == "tool_denied"
        assert bench.done == []
        assert "add" not in [spec.name for spec in speaker.requests[0].tools]

    async def test_only_what_is_allowed(self) -> None:
        results, bench, _ = await self.told(Dialogue([("add", '{"a": 1}'), ("look", "{}")], "No."), {"allow": ["look"]})
        assert bench.done == [("look", "nothing")]
        assert sum("error" in result for result in results) == 1

    async def test_one_before_another(self) -> None:
        # What is required waits for nothing, though the pattern means it too.
        rule = {"require": "look", "before": ["*"]}
        calls = Dialogue(("add", '{"a": 1}'), ("look", "{}"), ("add", '{"a": 2}'), "Done.")
        results, bench, _ = await self.told(calls, rule)
        assert "call look first" in results[0]["error"]["message"]
        assert bench.done == [("look", "nothing"), ("add", (2, 1))]

    async def test_a_number_of_calls(self) -> None:
        calls = Dialogue([("add", f'{{"a": {n}}}') for n in range(4)], "Done.")
        results, bench, _ = await self.told(calls, {"limit": ["add"], "to": 2})
        assert len(bench.done) == 2
        assert sum(isinstance(result, dict) for result in results) == 2

    async def test_a_person_allows_a_call_with_exactly_these_arguments(self) -> None:
        rules = ({"require_approval": ["add"], "roles": ["boss"], "timeout": 60.0},)
        answers = [("look", "{}"), ("add", '{"a": 1}')], ("add", '{"a": 2}'), "Done."
        book, bench = Book(), Bench()
        with pytest.raises(Asked):
            await work(Dialogue(*answers), bench, run(policies=Policies(rules)), book)
        assert bench.done == [], "nothing of an answer is done before a person was asked"
        (key, payload, roles) = book.questions[0]
        assert payload == {"agent": "a", "tool": "add", "arguments": {"a": 1}}
        assert roles == ("boss",)
        book.answers[key] = {"approved": True}
        # Another process goes on: the answer of the model is not asked for again, other arguments need another yes.
        with pytest.raises(Asked):
            await work(Dialogue(*answers[1:]), bench, run(policies=Policies(rules)), book)
        assert sorted(bench.done) == [("add", (1, 1)), ("look", "nothing")]
        assert book.questions[1][0] != key
        book.answers[book.questions[1][0]] = {"approved": False, "reason": "too much"}
        result, _ = await work(Dialogue("Done."), bench, run(policies=Policies(rules)), book)
        assert result.answer.text == "Done."
        assert len(bench.done) == 2
        assert "too much" in book.results()[-1]["error"]["message"]

    async def test_a_tool_in_doubt_asks_whatever_the_policies_say(self) -> None:
        bench, book = Bench(), Book()
        tools = {name: replace(tool, doubt="its schema changed") for name, tool in bench.tools().items()}
        with pytest.raises(Asked):
            await run_agent(run(), Dialogue(("look", "{}"), "Done."), book, tools=tools)
        assert book.questions[0][1]["doubt"] == "its schema changed"
        assert bench.done == []

    async def test_a_yes_is_for_the_schema_that_was_seen(self) -> None:
        rules, bench, book = ({"require_approval": ["look"]},), Bench(), Book()

        async def go_on(doubt: str, pin: str) -> None:
            tools = {name: replace(tool, doubt=doubt, pin=pin) for name, tool in bench.tools().items()}
            speaker = Dialogue("Done.") if book.steps else Dialogue(("look", "{}"))
            await run_agent(run(policies=Policies(rules)), speaker, book, tools=tools)

        for doubt, pin in (("", "1"), ("2, not 1", "2"), ("3, not 1", "3")):
            # The server changed while the firing waited: what somebody allowed was another tool.
            with pytest.raises(Asked):
                await go_on(doubt, pin)
            assert book.questions[-1][1].get("doubt", "") == doubt
            assert bench.done == []
            book.answers[book.questions[-1][0]] = {"approved": True}
        await go_on("3, not 1", "3")
        assert bench.done == [("look", "nothing")]
        assert len(book.questions) == 3


class Guard:
    """An interceptor that holds, changes and refuses."""

    holds = True

    def __init__(self, refuse: bool = False) -> None:
        self.refuse = refuse

    async def before(self, request: ModelRequest) -> ModelRequest:
        return request

    async def after(self, request: ModelRequest, answer: Answer) -> Answer:
        from circuit.agents.interceptor import with_text

        if self.refuse:
            raise OutputHeld("the answer names a person")
        return with_text(answer, answer.text.replace("Ada", "***"))


async def test_an_interceptor_sees_an_answer_before_anybody_does() -> None:
    result, book = await work(Dialogue("Ada did it."), Bench(), interceptors=[Guard()])
    assert (book.text, result.answer.text) == ("*** did it.", "*** did it.")
    assert "Ada" not in json.dumps(book.steps) + repr(book.deltas)
    book = Book()
    with pytest.raises(OutputHeld):
        await work(Dialogue("Ada did it."), Bench(), book=book, interceptors=[Guard(refuse=True)])
    [(step, kept)] = book.steps.items()
    assert step == "held:0" and kept["text"] == "" and "usage" in kept and "Ada" not in json.dumps(kept)
    assert book.deltas == [], "it was paid for, and nobody heard it"


async def test_a_conversation_that_grows_too_long_is_summarised_once() -> None:
    class Long(Dialogue):
        """Reads long things and sums up when asked to."""

        async def stream(self, request: ModelRequest) -> Any:
            first = request.messages[0].parts[0].text  # type: ignore[union-attr]
            if first.startswith("Summarise"):
                self.answers = ("It was long.",)
            else:
                self.answers = (
                    (("look", json.dumps({"name": f"{request.turn}" * 900})),) if request.turn < 6 else ("ok",)
                )
            async for chunk in super().stream(request):
                yield chunk

    speaker, book = Long("x"), Book()
    result, _ = await work(speaker, Bench(), run(context_tokens=6_000), book)
    assert result.answer.text == "ok"
    summaries = [step for step in book.steps if step.startswith("summary")]
    assert summaries
    # What it is made of is no more than the model holds.
    (asked, *_) = (one for one in speaker.requests if one.messages[0].parts[0].text.startswith("Summarise"))  # type: ignore[union-attr]
    assert tokens(asked.messages) < 6_000
    last = speaker.requests[-1].messages
    assert last[0].parts[0].text == "Be good."  # type: ignore[union-attr]
    assert any("It was long." in part.text for m in last for part in m.parts if hasattr(part, "text"))
    again, _ = await work(Dialogue(AssertionError("asked again")), Bench(), run(context_tokens=6_000), Book(book.steps))
    assert again.answer.text == "ok"

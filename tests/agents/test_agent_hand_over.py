"""Hand-over: another agent goes on and answers, in one execution and one journal."""

from __future__ import annotations

from typing import Any

import pytest
from surroundings import Asked, Book
from test_agent_action import SCHEMA, call, spec

from circuit.actions.agent import AgentAction
from circuit.actions.hand_over import MOST_HAND_OVERS
from circuit.engine.action import ActionCall
from circuit.errors import ToolLoop
from circuit.providers.registry import ProviderRegistry

TO_CLERK = {"tool_calls": [{"name": "hand_over.clerk", "arguments": {"why": "He counts, {transcript}."}}]}
TO_CHIEF = {"tool_calls": [{"name": "hand_over.content-reviewer", "arguments": {"why": "No."}}]}
LIST = {"tool_calls": [{"name": "fs.list", "arguments": {}}]}


def asked(
    *chief: Any, clerk: list[Any], recorded: dict[str, Any] | None = None, schema: Any = None, **more: Any
) -> ActionCall:
    made = call(spec(*chief), schema=schema, recorded=recorded)
    agent: dict[str, Any] = made.config["agent"]
    agent |= {"tools": [{"kind": "hand_over", "name": "clerk"}, {"kind": "named", "name": "fs.list"}], **more}
    other = {
        "id": "clerk",
        "description": "Counts.",
        "provider": spec(*clerk),
        "prompts": {"system": "You count."},
        "tools": [{"kind": "named", "name": "fs.list"}, {"kind": "hand_over", "name": "content-reviewer"}],
    }
    made.config["colleagues"] = {"clerk": other, "content-reviewer": agent}  # type: ignore[index]
    return made


async def test_the_other_one_goes_on_and_a_crash_anywhere_asks_nobody_twice() -> None:
    action = AgentAction(ProviderRegistry({}))
    given: Any = ([LIST, TO_CLERK, "never"],)
    clerk: list[Any] = [[LIST, "None at all."]]
    whole = Book()
    output = await action.perform(asked(*given, clerk=clerk), whole)
    assert output.text == "None at all."
    assert output.outputs["agent_id"] == "clerk"
    assert output.outputs["reasoning"]["agents"] == ["content-reviewer", "clerk"]
    assert output.usage["input_tokens"] > 0
    assert whole.thoughts("clerk takes over from content-reviewer") == "He counts, {transcript}."
    steps = list(whole.steps.items())
    assert [name.startswith((">1>", "answer:>1>", "tool:>1>")) for name, _ in steps] == [False] * 4 + [True] * 3
    for kept in range(len(steps) + 1):
        book = Book(dict(steps[:kept]))
        again = await action.perform(asked(*given, clerk=clerk, recorded=dict(steps[:kept])), book)
        assert again == output
        assert [name for name in book.order if name.startswith("record")] == [
            f"record {name}" for name, _ in steps[kept:]
        ]


class Heard:
    """A scripted clerk that keeps what it was told."""

    def __init__(self) -> None:
        self.registry = ProviderRegistry({})
        self.requests: list[Any] = []

    def fallback(self, specs: Any, *more: Any) -> Any:
        inner, requests = self.registry.fallback(specs), self.requests

        class Noted:
            async def stream(self, request: Any) -> Any:
                requests.append(request)
                async for chunk in inner.stream(request):
                    yield chunk

        return Noted()


async def test_it_is_told_what_was_asked_and_done_and_keeps_the_promised_schema() -> None:
    heard = Heard()
    await AgentAction(heard).perform(  # type: ignore[arg-type]
        asked([LIST, TO_CLERK], clerk=[{"assessment": "approve"}], schema=SCHEMA), Book()
    )
    request = heard.requests[-1]
    told = [message.parts[0].text for message in request.messages]
    assert told[:2] == ["You count.", "Text: A text."]
    assert "You take over from content-reviewer, for this reason: He counts, {transcript}." in told[2]
    assert "fs.list gave" in told[2]
    assert len(told) == 3
    assert request.output_schema == SCHEMA
    assert {tool.name for tool in request.tools} == {"fs.list", "hand_over.content-reviewer"}


async def test_going_round_and_round_ends() -> None:
    book = Book()
    with pytest.raises(ToolLoop, match=f"handed over {MOST_HAND_OVERS} times"):
        await AgentAction(ProviderRegistry({})).perform(asked(TO_CLERK, clerk=[TO_CHIEF]), book)
    assert len([step for step in book.steps if step.startswith("answer")]) == MOST_HAND_OVERS + 1


async def test_one_takes_over_at_a_time_and_the_rest_is_done_before() -> None:
    several = {"tool_calls": [*TO_CLERK["tool_calls"], *TO_CLERK["tool_calls"], *LIST["tool_calls"]]}
    book = Book()
    output = await AgentAction(ProviderRegistry({})).perform(asked(several, clerk=["Mine."]), book)
    assert output.text == "Mine."
    codes = [result["error"]["code"] for result in book.results() if isinstance(result, dict) and "error" in result]
    assert codes == ["tool_denied"]
    assert len(book.results()) == 3


async def test_policies_gate_it_as_any_call() -> None:
    denied = asked([TO_CLERK, "Then I do it."], clerk=["never"], policies=[{"deny": ["hand_over.*"]}])
    assert (await AgentAction(ProviderRegistry({})).perform(denied, Book())).text == "Then I do it."
    with pytest.raises(Asked):
        gated = asked([TO_CLERK, "x"], clerk=["never"], policies=[{"require_approval": ["hand_over.*"]}])
        await AgentAction(ProviderRegistry({})).perform(gated, Gate())


class Gate(Book):
    async def suspend(self, *_: Any, **__: Any) -> Any:
        raise Asked


async def test_reflection_does_not_judge_what_another_one_answers() -> None:
    both = asked([TO_CLERK, "never"], clerk=["Mine."], capabilities=[{"name": "self_reflection"}])
    output = await AgentAction(ProviderRegistry({})).perform(both, Book())
    assert output.text == "Mine."

"""An agent as a tool of another: one journal for both, so that a crash anywhere asks nobody twice."""

from __future__ import annotations

from typing import Any

from surroundings import Book
from test_agent_action import call, spec

from circuit.actions.agent import AgentAction
from circuit.agents.answer import Answer
from circuit.engine.action import ActionCall
from circuit.errors import OutputHeld
from circuit.providers.provider import ModelRequest
from circuit.providers.registry import ProviderRegistry

CHIEF = spec([{"tool_calls": [{"name": "agent.clerk", "arguments": {"task": "Count."}}]}, "Done."])
CLERK: dict[str, Any] = {
    "id": "clerk",
    "description": "Counts.",
    "provider": spec([{"tool_calls": [{"name": "fs.list", "arguments": {}}]}, "Two."]),
    "prompts": {"system": "You count."},
    "tools": [{"kind": "named", "name": "fs.list"}],
    "policies": [],
}


def asked(recorded: dict[str, Any] | None = None, **clerk: Any) -> ActionCall:
    made = call(CHIEF, schema=None, recorded=recorded, colleagues={"clerk": {**CLERK, **clerk}})
    made.config["agent"]["tools"] = [{"kind": "agent", "name": "clerk"}]  # type: ignore[index]
    return made


class Holding:
    """Lets nobody hear what the clerk counted."""

    holds = True

    async def before(self, request: ModelRequest) -> ModelRequest:
        return request

    async def after(self, request: ModelRequest, answer: Answer) -> Answer:
        if answer.text == "Two.":
            raise OutputHeld("numbers are not told")
        return answer


async def test_what_is_held_back_from_the_asker_was_paid_for() -> None:
    book = Book()
    output = await AgentAction(ProviderRegistry({}), interceptors=[Holding()]).perform(asked(), book)
    assert output.text == "Done."
    assert "Two." not in str(book.deltas)
    took = [value for name, value in book.steps.items() if name.startswith(("answer:", "held:"))]
    assert len(took) == 4
    assert output.usage["output_tokens"] == sum(value["usage"]["output_tokens"] for value in took)


async def test_a_crash_anywhere_asks_nobody_twice() -> None:
    action = AgentAction(ProviderRegistry({}))
    whole = Book()
    output = await action.perform(asked(), whole)
    assert output.text == "Done."
    answers = [value for name, value in whole.steps.items() if name.startswith("answer:")]
    assert output.usage["output_tokens"] == sum(value["usage"]["output_tokens"] for value in answers) > 0
    assert len(answers) == 4
    steps = list(whole.steps.items())
    assert [name.partition(":")[0] for name, _ in steps] == ["answer", "answer", "tool", "answer", "tool", "answer"]
    assert sum(">" in name for name, _ in steps) == 3
    for kept in range(len(steps) + 1):
        book = Book(dict(steps[:kept]))
        again = await action.perform(asked(dict(steps[:kept])), book)
        assert again.text == "Done."
        assert again.usage == output.usage, "what the other agent took is counted, also where it is in the journal"
        assert [name for name in book.order if name.startswith("record")] == [
            f"record {name}" for name, _ in steps[kept:]
        ]

"""What capabilities make of the loop: thoughts, rounds, judgements, and all of them together."""

from __future__ import annotations

from surroundings import Book, Dialogue
from test_agent_loop import Bench, run, work

from circuit.agents.run import Capability
from circuit.providers.messages import Role


async def test_thoughts_are_thinking_and_their_steps_are_kept() -> None:
    speaker = Dialogue("1. First this.\n2. Then\n   that.", "Four.")
    result, book = await work(speaker, Bench(), run(Capability("chain_of_thought")))
    assert (book.text, result.answer.text) == ("Four.", "Four.")
    assert book.thoughts("thought") == "1. First this.\n2. Then\n   that."
    assert result.reasoning["steps"] == ["First this.", "Then\n   that."]
    assert result.reasoning["templates"] == {"chain_of_thought": 1, "answer_now": 1}


async def test_react_is_told_how_and_goes_on_until_done() -> None:
    speaker = Dialogue(("add", '{"a": 1}'), ("add", '{"a": 2}'), "Done.")
    result, _ = await work(speaker, Bench(), run(Capability("react")))
    told = [m.parts[0].text for m in speaker.requests[2].messages if m.role == Role.SYSTEM]  # type: ignore[union-attr]
    assert told[0] == "Be good."
    assert told[1].startswith("Work in rounds.")
    assert result.reasoning["calls"] == 2


async def test_an_answer_is_improved_while_the_judge_is_not_sure() -> None:
    speaker = Dialogue(
        "draft", '{"confidence": 0.3, "issues": ["too short"]}', "better", '{"confidence": 0.9, "issues": []}'
    )
    reflection = Capability("self_reflection", {"confidence_threshold": 0.7, "criteria": ["be kind"]})
    result, book = await work(speaker, Bench(), run(reflection))
    assert (book.text, result.answer.text) == ("better", "better")
    assert book.thoughts("draft") == "draftbetter"
    assert result.reasoning["confidence"] == 0.9
    assert [one["issues"] for one in result.reasoning["reflections"]] == [["too short"], []]
    asked = [request.messages[-1].parts[0].text for request in speaker.requests]  # type: ignore[union-attr]
    assert "be kind" in asked[1]
    assert "too short" in asked[2]


async def test_improving_is_bounded_and_the_best_answer_counts() -> None:
    low = '{"confidence": 0.1, "issues": ["no"]}'
    speaker = Dialogue("one", '{"confidence": 0.5, "issues": []}', "two", low, "three", low)
    result, book = await work(speaker, Bench(), run(Capability("self_reflection", {"max_rounds": 2})))
    assert len(speaker.requests) == 6
    assert (book.text, result.reasoning["confidence"]) == ("one", 0.5)


async def test_a_judgement_that_is_none_counts_as_doubt() -> None:
    speaker = Dialogue("one", "fine!", "two", '{"confidence": 1, "issues": []}')
    result, _ = await work(speaker, Bench(), run(Capability("self_reflection")))
    assert result.answer.text == "two"


async def test_capabilities_combine_and_survive_a_crash_anywhere() -> None:
    answers = (
        "- think", ("add", '{"a": 1}'), "draft", '{"confidence": 0.2, "issues": ["x"]}',
        "- think more", "final", '{"confidence": 1, "issues": []}',
    )  # fmt: skip
    combined = run(Capability("self_reflection"), Capability("react"), Capability("chain_of_thought"))
    whole = Book()
    result, _ = await work(Dialogue(*answers), Bench(), combined, whole)
    assert result.answer.text == "final"
    steps = list(whole.steps.items())
    for kept in range(len(steps) + 1):
        done = sum(name.startswith("answer") for name, _ in steps[:kept])
        again, _ = await work(Dialogue(*answers[done:], "never"), Bench(), combined, Book(dict(steps[:kept])))
        assert again.answer.as_dict() == result.answer.as_dict()
        assert again.reasoning == result.reasoning


async def test_an_agents_own_text_is_told() -> None:
    speaker = Dialogue("- a", "b")
    own = run(Capability("chain_of_thought"), templates={"chain_of_thought": "Think in Latin."})
    await work(speaker, Bench(), own)
    assert speaker.requests[0].messages[-1].parts[0].text == "Think in Latin."  # type: ignore[union-attr]

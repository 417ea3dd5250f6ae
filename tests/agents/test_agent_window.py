"""A conversation within what a model can hold: what goes, what stays, and that calls and results stay together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from circuit.agents.window import SHORTEST, excerpt, fit, tokens
from circuit.providers.messages import Message, Role, TextPart, ToolCallPart, ToolResultPart

SYSTEM = Message.text(Role.SYSTEM, "Be good.")
TASK = Message.text(Role.USER, "Find it.")


def turn(number: int, sizes: list[int]) -> list[Message]:
    """An answer that makes calls, and their results of these sizes."""
    calls = tuple(ToolCallPart(f"{number}.{at}", "look", "{}") for at in range(len(sizes)))
    results = tuple(ToolResultPart(f"{number}.{at}", "look", "ä" * size) for at, size in enumerate(sizes))
    return [Message(Role.ASSISTANT, (TextPart("I look."), *calls)), Message(Role.TOOL, results)]


def results(messages: tuple[Message, ...]) -> list[ToolResultPart]:
    return [part for message in messages for part in message.parts if isinstance(part, ToolResultPart)]


@given(
    turns=st.lists(st.lists(st.integers(0, 5_000), min_size=1, max_size=4), max_size=6),
    limit=st.integers(100, 6_000),
    note=st.booleans(),
)
def test_calls_and_results_stay_together_and_what_can_go_goes(turns: list[list[int]], limit: int, note: bool) -> None:
    said = [message for number, sizes in enumerate(turns) for message in turn(number, sizes)]
    last = [Message.text(Role.USER, "Answer again.")] if note else []
    messages = [SYSTEM, TASK, *said, *last]
    fitted = fit(messages, limit, TASK)
    calls = [part.id for message in fitted.messages for part in message.parts if isinstance(part, ToolCallPart)]
    assert calls == [part.call_id for part in results(fitted.messages)]
    assert fitted.messages[:2] == (SYSTEM, TASK) and list(fitted.messages[-1:]) == (last or [fitted.messages[-1]])
    assert len(fitted.dropped) + len(fitted.messages) == len(messages)
    assert fitted.over == max(0, tokens(fitted.messages) - limit)
    if fitted.over:
        assert all(len(part.content.encode()) <= SHORTEST + 60 for part in results(fitted.messages))


def test_the_last_results_are_cut_where_they_alone_are_too_much() -> None:
    fitted = fit([SYSTEM, TASK, *turn(0, [100]), *turn(1, [50_000, 100])], 4_000, TASK)
    assert fitted.over == 0 and tokens(fitted.messages) > 3_900, "as much as there is room for"
    cut, whole = results(fitted.messages)[-2:]
    assert "[left out: " in cut.content and cut.content.startswith("ä") and cut.content.endswith("ä")
    assert whole.content == "ä" * 100
    assert fit([Message.text(Role.SYSTEM, "x" * 4_000), TASK], 500, TASK).over > 500, "what must stay is no result"


def test_an_excerpt_is_the_beginning_and_the_end() -> None:
    assert excerpt("short", 100) == "short"
    assert excerpt("a" * 50 + "ä" * 50 + "b" * 50, 40) == "a" * 20 + "\n[left out: 110 characters]\n" + "b" * 20

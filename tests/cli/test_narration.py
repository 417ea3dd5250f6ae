"""What happens, in words: every event has its line, the marking follows, and no text reaches the terminal raw."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from circuit.cli.display import PlainDisplay
from circuit.cli.narration import Narrator
from circuit.cli.terminal import Terminal, clean, one_line
from circuit.events import (
    CaseEnded,
    CaseStarted,
    FiringBegun,
    FiringCancelled,
    FiringFailed,
    FiringResumed,
    FiringRetried,
    IncidentResolved,
    StreamDelta,
    StreamType,
    TokenImage,
    TokenRef,
    TransitionFired,
    encode_frame,
)

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
EXECUTION = "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11.1"


def image(number: int, place: str, version: int = 1) -> TokenImage:
    return TokenImage(number, version, place, {}, {})


def begun() -> FiringBegun:
    return FiringBegun("review", 1, EXECUTION, (TokenRef(1, 1, "submitted"),))


def texts(narrator: Narrator, *events: object) -> list[str]:
    return [line.text for event in events for line in narrator.event(AT, event)]  # type: ignore[arg-type]


def test_the_marking_follows_the_tokens() -> None:
    narrator = Narrator(["submitted", "left", "right", "done"])
    texts(narrator, CaseStarted("flow", "hash", (image(1, "submitted"),), "local"))
    assert narrator.marking() == {"submitted": 1}
    texts(narrator, TransitionFired("fork", (TokenRef(1, 1, "submitted"),), (image(3, "right"), image(2, "left"))))
    assert list(narrator.marking().items()) == [("left", 1), ("right", 1)]
    texts(
        narrator,
        TransitionFired("join", (TokenRef(2, 1, "left"), TokenRef(3, 1, "right")), (image(4, "done"),)),
    )
    assert narrator.marking_text() == "done: 1"


def test_a_diverted_token_lies_where_it_went() -> None:
    narrator = Narrator()
    texts(narrator, CaseStarted("flow", "hash", (image(1, "submitted"),), "local"), begun())
    lines = texts(
        narrator,
        FiringFailed(
            "review",
            {"code": "timeout", "message": "took long"},
            1,
            EXECUTION,
            (TokenRef(1, 1, "submitted"),),
            (image(1, "failed", 2),),
        ),
    )
    assert lines == ["review failed for good: timeout: took long; submitted -> failed"]
    assert narrator.marking() == {"failed": 1}


def test_every_event_has_its_words() -> None:
    narrator = Narrator()
    lines = texts(
        narrator,
        begun(),
        FiringResumed("review", 1, EXECUTION, 2, "resumed"),
        FiringRetried(
            "review", 1, EXECUTION, 1, {"code": "rate_limit", "message": "slow down"}, AT + timedelta(seconds=3)
        ),
        FiringCancelled("review", 1, EXECUTION),
        FiringFailed("review", {"code": "mapping_error", "message": "no data.x"}, incident=1),
        IncidentResolved(1, "review", "retried"),
        CaseEnded("failed", "a token lies in lost"),
    )
    assert lines == [
        f"review begins (execution {EXECUTION})",
        "review goes on after its process was lost (start 2)",
        "review failed at try 1: rate_limit: slow down; try 2 follows in 3.0 s",
        "review was cancelled",
        "review failed for good: mapping_error: no data.x; its tokens stay where they are, and incident 1 is open",
        "incident 1 is resolved: retried",
        "case failed: a token lies in lost",
    ]


def test_a_new_start_takes_back_what_was_said() -> None:
    narrator = Narrator()
    texts(narrator, begun())
    narrator.frame(EXECUTION, encode_frame(EXECUTION, 1, 1, StreamDelta.content("half an ans"), AT))
    line = narrator.frame(
        EXECUTION, encode_frame(EXECUTION, 2, 1, StreamDelta(StreamType.RESTARTED, {"reason": "retry"}), AT)
    )
    assert line is None, "the event of the case says it"
    narrator.frame(EXECUTION, encode_frame(EXECUTION, 2, 2, StreamDelta.content("the answer"), AT))
    assert narrator.speeches[EXECUTION].text == "the answer"
    # Another model in the same start: no event of the case tells of that.
    another = StreamDelta.restarted("custom:other is asked instead: stream_cut")
    line = narrator.frame(EXECUTION, encode_frame(EXECUTION, 2, 3, another, AT))
    assert line is not None and line.text == "review begins its answer anew: custom:other is asked instead: stream_cut"
    assert narrator.speeches[EXECUTION].text == ""


def test_what_an_agent_thinks_is_shown_apart_from_its_answer(capsys: pytest.CaptureFixture[str]) -> None:
    refused = {"error": {"code": "x", "message": "no"}}
    deltas = [
        StreamDelta.thinking("thought", "1. Re"),
        StreamDelta.thinking("thought", "ad\n2. Add"),
        StreamDelta.thinking("summarising what was said before"),
        StreamDelta.content("The su"),
        StreamDelta.restarted("another model answers"),
        StreamDelta.content("The sum is 7."),
        StreamDelta(StreamType.TOOL_RESULT, {"toolName": "act.pay", "result": refused}),
    ]
    narrator = Narrator()
    narrator.event(AT, begun())
    with PlainDisplay(Terminal(), narrator) as shown:
        for number, delta in enumerate(deltas, 1):
            shown.frame(EXECUTION, encode_frame(EXECUTION, 1, number, delta, AT))
    assert capsys.readouterr().out.splitlines() == [
        "review (thought) | 1. Read",
        "review (thought) | 2. Add",
        "review (summarising what was said before) | ...",
        "review | The su",
        "review begins its answer anew: another model answers",
        "review | The sum is 7.",
        "review has no result of act.pay: x: no",
    ]
    speech = narrator.speeches[EXECUTION]
    assert (speech.text, speech.status) == ("The sum is 7.", "")


def test_two_firings_of_one_transition_are_told_apart() -> None:
    narrator = Narrator()
    texts(narrator, begun(), FiringBegun("review", 2, EXECUTION[:-1] + "2", ()))
    assert [speech.label for speech in narrator.speeches.values()] == ["review", "review#2"]


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert clean("a\x1b[31mred\x9b2J\x7f") == "a\\x1b[31mred\\x9b2J\\x7f"
    assert clean("left\u202eright") == "left\\u202eright"
    assert clean("line\nnext") == "line\nnext"
    assert clean("line\nnext", keep="") == "line\\x0anext"
    assert one_line("a\r\n\tb \x1b]0;title\x07", 0) == "a b \\x1b]0;title\\x07"
    narrator = Narrator()
    (line,) = texts(narrator, FiringFailed("review", {"code": "x", "message": "\x1b[2J\nsecond"}))
    assert "\x1b" not in line and "\n" not in line

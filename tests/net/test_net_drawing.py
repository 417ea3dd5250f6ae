"""Drawings: what they show, and that no name can break out of its label."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from nets import token

from circuit.net.drawing import SharedPlace, dot, mermaid
from circuit.net.marking import Marking
from circuit.net.picture import picture_of_net
from circuit.net.structure import InputArc, Mode, Net, OutputArc, Place, Transition, Trigger
from circuit.net.svg import svg

REVIEW = Net.build(
    "review",
    [
        Place("submitted", initial=True),
        Place("queue", capacity=10),
        Place("approved", terminal=True),
        Place("failed", dead_letter=True),
    ],
    [
        Transition("ai_review", (InputArc("submitted", 2),), (OutputArc("queue"),), acting=True, on_failure="failed"),
        Transition("decide", (InputArc("queue"),), (OutputArc("approved", 3),), trigger=Trigger.MANUAL),
        Transition("note", (InputArc("queue", 1, Mode.READ),), (OutputArc("submitted"),)),
    ],
)
MARKING = Marking([token(1, "submitted"), token(2, "submitted"), *(token(number, "queue") for number in range(3, 10))])


def test_mermaid() -> None:
    assert mermaid(REVIEW, MARKING, notes={"ai_review": ["agent content-reviewer"]}) == (
        "flowchart LR\n"
        '  p0(("submitted<br/>●●"))\n'
        '  p1(("queue<br/>7 of 10"))\n'
        '  p2((("approved")))\n'
        '  p3(("failed"))\n'
        '  t0[["⚙ ai_review<br/>agent content-reviewer"]]\n'
        '  t1["✋ decide"]\n'
        '  t2["note"]\n'
        '  p0 -->|"2"| t0\n'
        "  t0 --> p1\n"
        '  t0 -.->|"on failure"| p3\n'
        "  p1 --> t1\n"
        '  t1 -->|"3"| p2\n'
        "  p1 -.-> t2\n"
        "  t2 --> p0\n"
        "  classDef acting fill:#dbe9ff,stroke-width:2px\n"
        "  class t0 acting\n"
        "  classDef marked fill:#ffe9a8\n"
        "  class p0,p1 marked\n"
        "  classDef bad stroke:#b3261e\n"
        "  class p3 bad\n"
    )


def test_dot() -> None:
    assert dot(REVIEW, MARKING, notes={"ai_review": ["agent content-reviewer"]}) == (
        'digraph "review" {\n'
        "  rankdir=LR;\n"
        '  node [fontname="sans-serif"];\n'
        '  p0 [shape=circle, label="submitted\\n●●", style=filled, fillcolor="#ffe9a8"];\n'
        '  p1 [shape=circle, label="queue\\n7 of 10", style=filled, fillcolor="#ffe9a8"];\n'
        '  p2 [shape=doublecircle, label="approved"];\n'
        '  p3 [shape=circle, label="failed", color="#b3261e"];\n'
        '  t0 [shape=box, label="⚙ ai_review\\nagent content-reviewer", '
        'penwidth=2, style=filled, fillcolor="#dbe9ff"];\n'
        '  t1 [shape=box, label="✋ decide"];\n'
        '  t2 [shape=box, label="note"];\n'
        '  p0 -> t0 [label="2"];\n'
        "  t0 -> p1;\n"
        '  t0 -> p3 [style=dotted, label="on failure"];\n'
        "  p1 -> t1;\n"
        '  t1 -> p2 [label="3"];\n'
        "  p1 -> t2 [style=dashed];\n"
        "  t2 -> p0;\n"
        "}\n"
    )


def test_without_a_marking_a_place_tells_its_capacity() -> None:
    assert '"queue<br/>at most 10"' in mermaid(REVIEW) and "marked" not in mermaid(REVIEW)
    assert 'label="queue\\nat most 10"]' in dot(REVIEW)


def test_many_tokens_are_counted() -> None:
    marking = Marking(token(number, "submitted") for number in range(1, 13))
    assert '"submitted<br/>● × 12"' in mermaid(REVIEW, marking)


NAMES = st.text(
    st.one_of(st.sampled_from("\"\\#&<>`[]{}()|;\n\r\x00'%-*_ end"), st.characters()), min_size=1, max_size=8
)


def named(place: str, transition: str) -> Net:
    target = place + "2"
    part = Transition(transition, (InputArc(place),), (OutputArc(target),), acting=True)
    return Net.build(place, [Place(place), Place(target)], [part])


@settings(max_examples=100, deadline=None, database=None)
@given(NAMES, NAMES)
def test_no_name_breaks_out_of_a_mermaid_label(place: str, transition: str) -> None:
    lines = mermaid(named(place, transition)).splitlines()
    assert lines[0] == "flowchart LR" and len(lines) == 8
    labels = [
        re.fullmatch(r'  [pt]\d(?:\(\(|\[\[)"((?:[^"<>`#&\\;]|#\d+;)*)"(?:\)\)|\]\])', line) for line in lines[1:4]
    ]
    assert all(labels)
    decoded = [re.sub(r"#(\d+);", lambda match: chr(int(match[1])), label[1]) for label in labels if label]
    assert decoded == [" ".join(place.split()), " ".join((place + "2").split()), " ".join(("⚙ " + transition).split())]


@settings(max_examples=100, deadline=None, database=None)
@given(NAMES, NAMES)
def test_no_name_breaks_out_of_a_dot_string(place: str, transition: str) -> None:
    text = dot(named(place, transition))
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', text, re.DOTALL)
    rest = re.sub(r'"(?:[^"\\]|\\.)*"', "S", text, flags=re.DOTALL)
    assert rest == (
        "digraph S {\n  rankdir=LR;\n  node [fontname=S];\n"
        "  p0 [shape=circle, label=S];\n  p1 [shape=circle, label=S];\n"
        "  t0 [shape=box, label=S, penwidth=2, style=filled, fillcolor=S];\n  p0 -> t0;\n  t0 -> p1;\n}\n"
    )
    unescaped = [re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), string) for string in strings]
    clean = [name.replace("\r", "").replace("\x00", "") for name in (place, place, place + "2", "⚙ " + transition)]
    assert [unescaped[0], *unescaped[2:5]] == clean


def test_what_cases_share_is_drawn_with_what_firings_hold_of_it() -> None:
    shared = [SharedPlace("gpu", 2, None, {"ai_review": 2}), SharedPlace("rate", 60, 60.0, {})]
    text = mermaid(REVIEW, shared=shared)
    assert '  s0(["gpu<br/>2 shared"])' in text and "  s0 <-.->|2| t0" in text
    assert '  s1(["rate<br/>60 shared, each for 60 s"])' in text and "s1 <" not in text
    assert '  s0 -> t0 [dir=both, style=dotted, label="2"];' in dot(REVIEW, shared=shared)
    shown = svg(picture_of_net(REVIEW, notes={"ai_review": ["POST https://example.org"]}, shared=shared))
    assert 'class="place shared"' in shown and 'class="arc hold"' in shown and "2 shared" in shown
    assert "POST https://example.org" in shown

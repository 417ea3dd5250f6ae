"""What a file may say of arcs, choices, lists and regions, what is refused, and what is proven of them."""

from __future__ import annotations

from typing import Any

import pytest
from faulty import expect

from circuit.definition import load, load_workflow
from circuit.definition.proof import Proof, prove
from circuit.net.analysis.limits import Limits
from circuit.net.drawing import dot, mermaid
from circuit.net.picture import picture_of_net
from circuit.net.svg import svg

HEAD = """
workflow: w
places: {a: {initial: true}, b: {}, c: {}, full: {capacity: 2}, end: {terminal: true}}
transitions:
"""
TASK = "action: {type: human, title: look}"


@pytest.mark.parametrize(
    ("transition", "message"),
    [
        ('{from_places: [a, {place: b, where: "«data.x > 1"}], to_place: end}', "a filter looks at one token"),
        ('{from_places: [a, {place: b, where: "«1 + 1"}], to_place: end}', "gives int, not true or false"),
        ('{from_places: [a, {place: b, where: "«true"}], to_place: end}', "does not look at the token"),
        (
            "{from_places: [{place: a, correlate: data.id}, {place: b, correlate: «case.id}], to_place: end}",
            "no key of one token",
        ),
        ("{from_places: [a, {place: b, «correlate: data.id}], to_place: end}", "two arcs at least"),
        ("{from_places: [a, {place: b, mode: reset, «correlate: data.id}], to_place: end}", "another arc with a key"),
        ("{from_places: [a, {place: b, mode: reset, «weight: 2}], to_place: end}", "takes all tokens"),
        ("{from_places: [a, «{place: a, mode: inhibit}], to_place: end}", "it never fires"),
        ("{from_places: [a, b, «{place: b, mode: drain}], to_place: end}", "nothing is left"),
        ("{from_places: [a, {place: b, mode: inhibit, «order: newest}], to_place: end}", "an arc that chooses"),
        ("{from_places: [a, {place: b, mode: «refresh}], to_place: end}", "refresh"),
        ("{from_places: [a, {place: b, gather: «nobody}], to_place: end}", "no transition 'nobody'"),
        ("{from_places: [a, {place: b, gather: «t}], to_place: end}", "no tokens of the elements"),
        ("{from_any: [a, «{place: b, mode: read}], to_place: end}", "takes a token of one of its places"),
        ("{from_any: [a, «{place: b, weight: 2}], to_place: end}", "give all of them one weight"),
        ("{from_places: a, to_places: [{place: end, «most: 2}]}", "belongs to an arc with each"),
        ('{from_places: a, to_places: [{place: full, «each: "data.x"}]}', "the list may be longer"),
        ('{from_places: a, to_places: [{place: b, each: "«item"}]}', "undeclared reference to 'item'"),
        ('{from_places: a, to_places: [{place: b, data: {x: "«output.y"}}]}', "undeclared reference to 'output.y'"),
        ('{from_places: a, to_places: [{place: b, each: "data.x", «weight: 2}]}', "one token for each element"),
        ("{from_places: a, to_place: end, cancels: «nowhere}", "there is no region 'nowhere'"),
        ("{from_places: a, to_place: end, cancels: {places: «[nowhere]}}", "there is no place 'nowhere'"),
        ("{from_places: a, to_place: end, cancels: {transitions: «[t]}}", "never a firing of it"),
        (f"{{from_places: [{{place: a, mode: drain}}], to_place: end, on_failure: «full, {TASK}}}", "has a capacity"),
        (
            '{from_places: [{place: a, mode: drain}], to_place: end, conditions: "«data.x > 1"}',
            "as many tokens as there",
        ),
    ],
)
def test_what_is_wrong_with_arcs_is_said_at_its_place(transition: str, message: str) -> None:
    expect(f"{HEAD}  t: {transition}\n", message)


def test_only_a_terminal_place_ends_a_case() -> None:
    expect("workflow: w\nplaces: {a: {initial: true, «ends_case: true}}\ntransitions: {}\n", "terminal place")


def test_every_key_of_an_arc_belongs_to_the_version_and_defaults_do_not() -> None:
    arcs = [
        "{place: a}",
        "{place: a, where: token.data.x > 1}",
        "{place: a, order: newest}",
        "{place: a, mode: drain}",
        "{place: a, weight: 2}",
    ]
    hashes = {load_workflow(f"{HEAD}  t: {{from_places: [{arc}], to_place: end}}\n").hash for arc in arcs}
    assert len(hashes) == len(arcs)
    plain = load_workflow(f"{HEAD}  t: {{from_places: a, to_place: end}}\n").hash
    same = load_workflow(f"{HEAD}  t: {{from_places: [{{place: a, order: oldest, mode: consume}}], to_place: end}}\n")
    assert same.hash == plain and plain in hashes


def test_a_region_and_what_it_names_cancel_the_same() -> None:
    one = load_workflow(f"{HEAD}  t: {{from_places: a, to_place: end, cancels: r}}\nregions: {{r: {{places: [b]}}}}\n")
    other = load_workflow(f"{HEAD}  t: {{from_places: a, to_place: end, cancels: {{places: [b]}}}}\n")
    assert one.net.transitions["t"] == other.net.transitions["t"]


def test_choices_are_transitions_of_one_label_and_a_place_agent_hands_its_token_to_the_right_one() -> None:
    made = load_workflow(
        HEAD
        + """  go: {from_any: [a, b], to_place: end}
agents: {helper: {llm_provider: {type: scripted}}}
place_agents: [{place_id: b, agent_id: helper, auto_transition: go}]
"""
    )
    assert made.net.labels["go"] == ("go@a", "go@b")
    assert made.net.transitions["helper@b"].then == "go@b"
    assert made.net.counting == frozenset()


def test_drawings_show_what_arcs_mean() -> None:
    made = load_workflow(
        HEAD
        + """  t:
    from_places:
      - {place: a, where: token.data.x > 1, correlate: data.id}
      - {place: b, mode: inhibit, correlate: data.id}
      - {place: c, mode: drain}
    to_places: [end, {place: full, each: tokens.c, most: 2}]
    cancels: {places: [full]}
"""
    )
    text = mermaid(made.net)
    assert "--o" in text and "--x" in text and '|"all"|' in text and "each of tokens.c" in text
    assert "arrowhead=odot" in dot(made.net)
    shown = svg(picture_of_net(made.net))
    assert "url(#ring)" in shown and "url(#twice)" in shown and "by data.id" in shown


def proof(transitions: str, places: str = "") -> Proof:
    text = HEAD.replace("full: {capacity: 2}", f"full: {{capacity: 2}}{places}") + transitions
    return prove(load_workflow(text), Limits(lambda: 0.0, 20_000, seconds=5.0))


def answers(found: Proof, *names: str) -> list[str]:
    return [found.verdicts[name].answer.value for name in names]


SPLIT = "  split: {{from_places: a, to_places: [b, {{place: c, each: data.x{most}}}]}}\n"
JOIN = "  join: {from_places: [b, {place: c, gather: split}], to_place: end, merge: last}\n"


def test_a_list_that_cannot_be_long_is_proven_and_another_one_is_not() -> None:
    short = proof(SPLIT.format(most=", most: 3") + JOIN)
    assert answers(short, "soundness", "boundedness", "dead_transitions") == ["proven"] * 3
    long = proof(SPLIT.format(most="") + JOIN)
    assert answers(long, "soundness", "boundedness") == ["unknown"] * 2
    assert "lengths up to 3" in long.verdicts["soundness"].reason


def test_a_list_whose_tokens_nobody_gathers_is_found_whatever_its_length() -> None:
    broken = proof(SPLIT.format(most="") + "  join: {from_places: b, to_place: end}\n")
    verdict = broken.verdicts["soundness"]
    assert verdict.violated and verdict.trace is not None
    assert any(step.startswith("split (") for step in verdict.trace)


def test_of_several_choices_one_is_enough() -> None:
    found = proof("  go: {from_any: [a, b], to_place: end}\n")
    assert answers(found, "soundness", "dead_transitions") == ["proven", "proven"]
    dead = proof("  go: {from_places: a, to_place: end}\n  never: {from_any: [b, c], to_place: end}\n")
    assert dead.verdicts["dead_transitions"].witness["transitions"] == ["never@b", "never@c"]


@pytest.mark.parametrize(
    ("transitions", "expected"),
    [
        # What a drain leaves behind depends on data; what it takes as a whole does not.
        (
            "  f: {from_places: a, to_places: [b, b]}\n  t: {from_places: [{place: b, mode: drain}], to_place: end}\n",
            "proven",
        ),
        (
            "  f: {from_places: a, to_places: [b, b]}\n"
            "  t: {from_places: [{place: b, mode: drain, where: token.data.x > 1}], to_place: end}\n",
            "unknown",
        ),
        # A token that is left lying is found, and one that is swept away is not.
        ("  f: {from_places: a, to_places: [b, c]}\n  t: {from_places: c, to_place: end}\n", "violated"),
        (
            "  f: {from_places: a, to_places: [b, c]}\n  t: {from_places: c, to_place: end, cancels: {places: [b]}}\n",
            "proven",
        ),
        # An agent that may still run when its region is cancelled leaves nothing behind.
        (
            f"  f: {{from_places: a, to_places: [b, c]}}\n  work: {{from_places: b, to_places: [], {TASK}}}\n"
            "  t: {from_places: c, to_place: end, cancels: {transitions: [work], places: [b]}}\n",
            "proven",
        ),
        # What inhibits for ever is a deadlock.
        (
            "  f: {from_places: a, to_places: [b, c]}\n"
            "  t: {from_places: [c, {place: b, mode: inhibit}], to_place: end}\n",
            "violated",
        ),
    ],
)
def test_what_arcs_take_is_proven(transitions: str, expected: str) -> None:
    assert answers(proof(transitions), "soundness") == [expected]


def test_nothing_goes_on_where_a_case_ends() -> None:
    fork = "  f: {{from_places: a, to_places: [b, c]}}\n  t: {{from_places: c, to_place: {end}}}\n"
    over = ", stop: {terminal: true, ends_case: true}, bad: {terminal: true, outcome: failed}"
    assert [answers(proof(fork.format(end=end), over), "soundness")[0] for end in ("end", "stop", "bad")] == [
        "violated",
        "proven",
        "proven",
    ]


def test_permits_of_a_shared_place_bound_what_runs_at_once() -> None:
    text = f"""
workflow: w
places:
  a: {{tokens: [{{}}, {{}}, {{}}]}}
  permits: {{shared: true, capacity: 2}}
  full: {{capacity: 3}}
  end: {{terminal: true}}
transitions:
  work: {{from_places: [a, permits], to_place: full, {TASK}}}
  t: {{from_places: full, to_place: end}}
"""
    found = prove(load_workflow(text), Limits(lambda: 0.0, 20_000, seconds=5.0))
    assert answers(found, "soundness", "k_safeness") == ["proven", "proven"]
    places: dict[str, Any] = dict(found.analysis.net.named(found.analysis.net.initial))
    assert places["permits (free)"] == 2
    assert load(text).plain["places"]["permits"]["capacity"] == 2

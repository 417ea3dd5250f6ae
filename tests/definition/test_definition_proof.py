"""What is proven of workflows: agents as adversaries, worst cases, what is left out, what they are refused for."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit.agents.strategies.direct import MOST_TURNS
from circuit.agents.strategies.self_reflection import ROUNDS as MOST_ROUNDS
from circuit.definition import load_workflow
from circuit.definition.proof import EVERY, OF_WORKFLOWS, Proof, prove
from circuit.definition.tariff import ROUNDS, TURNS
from circuit.errors import InvalidRequest
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.translation import EFFECTS, TRIGGERS
from circuit.net.analysis.verdict import Verdict
from circuit.net.structure import Mode, Trigger
from circuit.providers.tariff import PriceTable

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.yaml"))

REVIEW = """
workflow: review
places:
  in: {{initial: true}}
  judged: {{}}
  good: {{terminal: true}}
  bad: {{terminal: true}}
  lost: {{dead_letter: true}}
agents:
  judge:
    llm_provider: {{type: scripted, model: script}}
    llm_config: {config}
    output_schema:
      type: object
      properties: {{verdict: {{enum: [yes_please, no_thanks, maybe]}}, sure: {{type: boolean}}}}
transitions:
  judge:
    from_places: in
    to_place: judged
    agent_execution:
      agent_id: judge
      output_mapping: {{data.verdict: verdict, data.sure: sure}}
      retry_config: {{max_attempts: 3}}
    {failure}
  accept: {{from_places: judged, to_place: good, conditions: ["data.verdict == 'yes_please'"]}}
  refuse: {{from_places: judged, to_place: bad, conditions: ["data.verdict == 'no_thanks'"]}}
  {more}
"""


class Ticks:
    seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1e-6
        return self.seconds


def proof_of(text: str, *only: str) -> Proof:
    return prove(load_workflow(text), Limits(Ticks(), states=20_000), only)


def review(more: str = "", *, config: str = "{max_tokens: 100}", failure: str = "on_failure: lost") -> str:
    return REVIEW.format(more=more, config=config, failure=failure)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_what_is_shipped_is_proven(file: Path) -> None:
    proof = proof_of(file.read_text())
    assert proof.faults(file.name) == []
    assert proof.warnings() == []


def test_an_answer_without_continuation() -> None:
    verdict = proof_of(review(), "agent_answers").verdicts["agent_answers"]
    assert verdict.violated
    assert verdict.witness["answer"]["data.verdict"] == "maybe"
    assert verdict.witness["place"] == "judged"
    again = "again: {from_places: judged, to_place: in, conditions: [\"data.verdict == 'maybe'\"]}"
    assert proof_of(review(again), "agent_answers").verdicts["agent_answers"].proven


def test_an_answer_whose_continuation_depends_on_more() -> None:
    more = "more: {from_places: judged, to_place: bad, conditions: [\"data.verdict == 'maybe' && data.size > 3\"]}"
    assert proof_of(review(more), "agent_answers").verdicts["agent_answers"].unknown


def test_a_loop_that_its_own_guard_bounds() -> None:
    again = "again: {{from_places: judged, to_place: in, conditions: [\"data.verdict == 'maybe'\"{}]}}"
    free = proof_of(review(again.format("")), *OF_WORKFLOWS).verdicts
    assert free["bounded_cycles"].violated
    assert free["agent_calls"].violated
    assert set(free["agent_calls"].witness["repeated"]) == {"judge", "again"}
    assert free["agent_budget"].violated
    bound = proof_of(review(again.format(", case.fired.again < 2")), *OF_WORKFLOWS).verdicts
    assert bound["bounded_cycles"].proven
    assert bound["agent_calls"].witness == {"runs": 3, "calls": 9}
    assert bound["agent_budget"].witness == {"output_tokens": 1800}, "each answer may have to be mended"
    assert bound["agent_answers"].unknown, "after two rounds nothing takes a `maybe`"
    assert "once transitions have fired 2 times" in bound["agent_answers"].reason


def test_a_loop_that_data_may_end_is_not_decided() -> None:
    again = "again: {from_places: judged, to_place: in, conditions: [\"data.verdict == 'maybe' && data.rounds < 2\"]}"
    verdicts = proof_of(review(again), "bounded_cycles", "agent_calls").verdicts
    assert verdicts["bounded_cycles"].unknown and "looks at data" in verdicts["bounded_cycles"].reason
    assert verdicts["agent_calls"].unknown


def test_an_agent_that_fails_for_good() -> None:
    assert proof_of(review(), "agent_failures").verdicts["agent_failures"].witness == {"on_failure": {"judge": "lost"}}
    stuck = proof_of(review(failure=""), "agent_failures").verdicts["agent_failures"]
    assert stuck.violated
    assert stuck.witness["transitions"] == ["judge"]
    assert proof_of(review(config="{}"), "agent_budget").verdicts["agent_budget"].unknown


COSTLY = """
workflow: costly
BUDGET
places: {open: {initial: true}, done: {terminal: true}, counted: {terminal: true}}
agents:
  writer:
    llm_provider: {type: openai, model: MODEL}
    llm_config: {max_tokens: 500}
    context_tokens: 10000
    MORE
transitions:
  write:
    from_places: open
    to_place: done
    agent_execution: {agent_id: writer, retry_config: {max_attempts: 2}}
  count: {from_places: done, to_place: counted, action: {type: function, name: count}}
"""


def money(model: str = "gpt-4.1-mini", more: str = "", budget: str = "") -> Verdict:
    text = COSTLY.replace("MODEL", model).replace("MORE", more).replace("BUDGET", budget)
    found = prove(load_workflow(text), Limits(Ticks(), states=20_000), ("agent_money",), PriceTable())
    return found.verdicts["agent_money"]


def test_what_a_case_costs_at_worst() -> None:
    # 0.40 and 1.60 dollars a million tokens.
    once = (10_000 * 0.40 + 500 * 1.60) / 1e6
    plain = money()
    assert plain.proven and plain.witness["usd"] == pytest.approx(2 * once)
    assert "genai-prices" in plain.reason and "writer: 1 calls of gpt-4.1-mini a run, prompts of 10,000" in plain.reason
    mended = money(more="output_schema: {type: object}")
    assert mended.witness["usd"] == pytest.approx(4 * once)
    turns = money(more="tools: [fs.list]\n    capabilities: [{react: {max_turns: 3}}, self_reflection]")
    assert turns.witness["usd"] == pytest.approx(2 * once * 2 * (3 + 1) * 3), "three drafts, judged, with summaries"
    fallen = money(more="fallback: [{type: openai, model: gpt-4.1-mini}]")
    assert fallen.witness["usd"] == pytest.approx(4 * once)
    own = money(budget="budget: {usd: 0.001}")
    assert own.proven and own.witness["usd"] == 0.001 and own.method == "the workflow's budget"
    assert money(budget="budget: {usd: 5}").witness["usd"] == pytest.approx(2 * once)
    strange = money("our-own-model")
    assert strange.unknown and "no price is known of our-own-model" in strange.reason
    named = (
        COSTLY.replace("MODEL", "our-own-model, price: {input: 1, output: 0}").replace("MORE", "").replace("BUDGET", "")
    )
    found = prove(load_workflow(named), Limits(Ticks(), states=20_000), ("agent_money",), PriceTable()).verdicts
    assert found["agent_money"].witness["usd"] == pytest.approx(0.02)
    helped = COSTLY.replace("MODEL", "m").replace("BUDGET", "").replace("MORE", "tools: [{agent: helper}]")
    helped = helped.replace(
        "transitions:", "  helper: {description: d, llm_provider: {type: scripted, responses: [x]}}\ntransitions:"
    )
    found = prove(load_workflow(helped), Limits(Ticks(), states=20_000), ("agent_money",), PriceTable()).verdicts
    assert found["agent_money"].unknown and "lets other agents work" in found["agent_money"].reason
    free = prove(load_workflow(review()), Limits(Ticks(), states=20_000), ("agent_money",), PriceTable()).verdicts
    assert free["agent_money"].proven and free["agent_money"].witness["usd"] == 0
    assert proof_of(review(), "agent_money").verdicts["agent_money"].unknown, "nobody said what models cost"


def test_the_turns_that_are_reckoned_with_are_those_that_agents_take() -> None:
    assert (TURNS, ROUNDS) == (MOST_TURNS, MOST_ROUNDS)


def test_dead_letters_are_left_out_and_said() -> None:
    proof = proof_of(review())
    assert proof.verdicts["soundness"].proven
    assert proof.about()["left_out"]["failing"] == ["judge"]
    assert proof.about()["left_out"]["dead_letter_places"] == ["lost"]
    assert "lost" not in proof.analysis.net.places


def test_a_place_that_is_no_end_and_has_no_way_on() -> None:
    text = "workflow: w\nplaces: {a: {initial: true}, b: {}}\ntransitions: {t: {from_places: a, to_place: b}}\n"
    faults = proof_of(text).faults("w.yaml")
    assert {fault.message.split(" is ")[0] for fault in faults} == {"deadlock freedom", "soundness"}
    assert "1. t (then b: 1)" in faults[0].message


def test_a_capacity_beside_an_agent_is_seen_in_two_steps() -> None:
    text = """
workflow: pipe
places:
  a: {initial: true, tokens: [{}, {}]}
  b: {capacity: 1}
  c: {terminal: true}
agents: {x: {llm_provider: {type: scripted, model: s}}}
transitions:
  first: {from_places: a, to_place: b, agent_execution: {agent_id: x}}
  second: {from_places: b, to_place: c}
"""
    proof = proof_of(text)
    assert proof.translated.split == ("first",)
    assert proof.verdicts["soundness"].proven
    net = proof.analysis.net
    assert {step.name for step in net.steps} == {"first (begin)", "first (complete)", "second"}
    begin = next(index for index, step in enumerate(net.steps) if step.name == "first (begin)")
    marking = net.fire(begin, net.initial)
    assert not net.enabled(begin, marking), "the room that the first firing reserved is all there is"


def test_a_capacity_that_blocks_for_ever() -> None:
    text = """
workflow: full
places: {a: {initial: true}, b: {capacity: 1, tokens: [{}]}, c: {terminal: true}}
transitions:
  put: {from_places: a, to_place: b}
  both: {from_places: [{place: b, weight: 2}], to_place: c}
"""
    proof = proof_of(text)
    assert proof.verdicts["deadlock_freedom"].violated
    assert proof.verdicts["deadlock_freedom"].trace == []


def test_the_translation_knows_every_mode_and_trigger() -> None:
    assert {mode.value for mode in Mode} <= EFFECTS.keys()
    assert {trigger.value for trigger in Trigger} <= TRIGGERS


def test_a_property_that_there_is_not() -> None:
    with pytest.raises(InvalidRequest, match="no property 'luck'"):
        proof_of(review(), "luck")
    assert set(proof_of(review()).verdicts) == {*EVERY, *OF_WORKFLOWS}


HANDLED = """
workflow: handled
agents: {{a: {{llm_provider: {{type: scripted, model: s}}}}}}
places: {{in: {{initial: true}}, out: {{terminal: true}}, broken: {{}}, mended: {{}}, given_up: {{terminal: true}}}}
transitions:
  work: {{from_places: in, to_place: out, agent_execution: a, on_failure: broken}}
  mend: {{from_places: broken, to_place: mended, agent_execution: a}}
  end: {{from_places: {ends}, to_place: given_up}}
"""


def test_what_only_failures_lead_to_is_not_dead_and_is_looked_at_apart() -> None:
    proof = proof_of(HANDLED.format(ends="mended"))
    assert proof.faults("w.yaml") == [] and proof.verdicts["dead_transitions"].proven
    assert proof.about()["left_out"]["handling"] == ["end", "mend"]
    assert proof.verdicts["failure_ways"].proven
    assert proof.verdicts["agent_calls"].witness["runs"] == 2, "one that fails, and the one that mends"
    stuck = proof_of(HANDLED.format(ends="[mended, in]")).verdicts
    assert stuck["soundness"].proven and stuck["failure_ways"].violated
    stuck = proof_of(HANDLED.format(ends="[mended, broken]")).verdicts["failure_ways"]
    assert stuck.violated and stuck.trace == ["work (fails)"], "no way leads on from there"


def test_a_loop_of_steps_that_can_be_undone_is_bounded_and_what_undoes_them_counted() -> None:
    text = """
workflow: again
agents: {a: {llm_provider: {type: scripted, model: s}}}
places: {in: {initial: true}, done: {}, out: {terminal: true}}
transitions:
  work:
    from_places: in
    to_place: done
    agent_execution: a
    compensation: {agent_execution: {agent_id: a, retry_config: {max_attempts: 3}}}
  again: {from_places: done, to_place: in, conditions: [case.fired.again < 2]}
  undo: {from_places: done, to_place: out, compensates: all}
"""
    verdicts = proof_of(text).verdicts
    for name in ("boundedness", "soundness", "deadlock_freedom", "dead_transitions", "bounded_cycles"):
        assert verdicts[name].proven, name
    assert (verdicts["agent_calls"].witness["runs"], verdicts["agent_calls"].witness["calls"]) == (6, 12)
    assert verdicts["agent_failures"].witness["transitions"] == ["work"]

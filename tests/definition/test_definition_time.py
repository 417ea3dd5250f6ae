"""What a file says of time and of agents that run on places: what it compiles to, and what is refused."""

from __future__ import annotations

import pytest
from faulty import expect, workflow

from circuit.definition import load_workflow
from circuit.engine.calls import action_config
from circuit.net.structure import Mode, Trigger
from circuit.net.timing import Missed, Rhythm, Timer
from circuit.storage.records import CaseRow, CaseStatus
from tests.engine.world import BEGAN_AT

PLACED = """
workflow: placed
places: {waiting: {initial: true}, sorted: {}, done: {terminal: true}}
agents:
  sorter:
    llm_provider: {type: openai, model: big}
    llm_config: {temperature: 0.7, max_tokens: 800}
    output_schema: {type: object, properties: {kind: {type: string}}}
place_agents:
  - place_id: waiting
    agent_id: sorter
    llm_config: {temperature: 0.1}
    llm_provider: {type: openai, model: small}
    trigger_conditions: [{field_exists: data.text}]
    input_mapping: {text: data.text}
    output_mapping: {data.kind: kind}
    auto_transition: move
    schedule: {initial_delay_seconds: 5s, interval_seconds: 1h, max_executions: 3, missed: all}
    retry_config: {max_attempts: 2}
  - {place_id: waiting, agent_id: sorter, cron: "0 8 * * *"}
transitions:
  move: {from_places: waiting, to_place: sorted}
  finish: {from_places: sorted, to_place: done, trigger: {type: timer, at: data.deadline}}
"""


def test_a_place_agent_becomes_a_transition_that_refreshes_its_place() -> None:
    made = load_workflow(PLACED)
    transition = made.net.transitions["sorter@waiting"]
    assert transition.refresh and transition.acting and transition.trigger is Trigger.AUTO
    assert [(arc.place, arc.mode) for arc in transition.inputs] == [("waiting", Mode.REFRESH)]
    assert transition.timing == Rhythm("sorter@waiting", 5.0, 3600.0, None, 3, Missed.ALL)
    assert transition.then == "move"
    assert made.net.transitions["move"].trigger is Trigger.AGENT
    assert "move" not in made.net.ranks, "it does not fire before the agent is done"
    second = made.net.transitions["sorter@waiting#2"].timing
    assert isinstance(second, Rhythm) and second.cron is not None and second.missed is Missed.ONCE


def test_what_a_place_has_its_agent_use_is_laid_over_the_agents_own() -> None:
    made = load_workflow(PLACED)
    row = CaseRow("placed", made.hash, CaseStatus.RUNNING, 1, 1, 1, 1, BEGAN_AT)
    agent = action_config(made, made.actions["sorter@waiting"], row)["agent"]
    assert agent["parameters"] == {"temperature": 0.1, "max_tokens": 800}
    assert agent["provider"]["model"] == "small"
    other = action_config(made, made.actions["sorter@waiting#2"], row)["agent"]
    assert (other["parameters"]["temperature"], other["provider"]["model"]) == (0.7, "big")
    assert made.requires["models"] == ["openai:big", "openai:small"]


def test_timers() -> None:
    made = load_workflow(PLACED)
    timer = made.net.transitions["finish"].timing
    assert isinstance(timer, Timer) and str(timer.at) == "data.deadline"
    after = load_workflow(workflow(step="trigger: {type: timer, after: 14d}")).net.transitions["go"]
    assert after.timing == Timer(after=14 * 86_400.0) and after.trigger is Trigger.TIMER


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ("«{type: timer}", "a timer needs one of after, at and cron"),
        ("{type: timer, after: 1h, «cron: '@daily'}", "a timer needs one of after, at and cron, not after and cron"),
        ("{type: timer, cron: «'0 0 30 2 *'}", "never comes"),
        ("{type: timer, cron: «'every day'}", "a cron line has five fields"),
        ("{type: timer, at: «'2026-13-01'}", "'2026-13-01' is not an instant"),
        ("{type: timer, at: «deadline.of}", "must begin with"),
        ("{type: auto, «after: 1h}", "'after' belongs to a trigger of type timer, not auto"),
    ],
)
def test_timers_that_are_refused(trigger: str, message: str) -> None:
    expect(workflow(step=f"trigger: {trigger}"), message)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{place_id: «nowhere, agent_id: helper}", "there is no place 'nowhere'"),
        ("{place_id: start, agent_id: «nobody}", "there is no agent 'nobody'"),
        ("{place_id: «end, agent_id: helper}", "end is terminal"),
        ("{place_id: start, agent_id: helper, auto_transition: «gone}", "there is no transition 'gone'"),
        ("{place_id: start, agent_id: helper, cron: «'0 0 30 2 *'}", "never comes"),
        ("{place_id: start, agent_id: helper, schedule: {cron: «'0 0 30 2 *'}}", "never comes"),
        ("{place_id: start, agent_id: helper, schedule: {interval_seconds: «0}}", "at least 1"),
        ("{place_id: start, agent_id: helper, schedule: {«max_executions: 3}}", "needs interval_seconds or cron"),
        ("{place_id: start, agent_id: helper, schedule: {interval_seconds: 5, «cron: '@daily'}}", "exclude each other"),
        ("{place_id: start, agent_id: helper, output_mapping: {data.x: «unknown}}", "has no output 'unknown'"),
        ("{place_id: start, agent_id: helper, trigger_conditions: [{field_exists: «stuff.x}]}", "must begin with"),
    ],
)
def test_place_agents_that_are_refused(entry: str, message: str) -> None:
    expect(workflow(top=f"place_agents:\n  - {entry}"), message)

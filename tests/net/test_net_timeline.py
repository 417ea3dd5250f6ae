"""Cases in virtual time: timers, deadlines that interrupt, agents on places, and what cancels what runs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from nets import NOW

from circuit.definition import load_workflow
from circuit.net.timeline import Ended, Timeline

HUMAN = "action: {type: human, title: look}"


def run(text: str, seconds: Mapping[str, float], *tokens: str, **data: object) -> Ended:
    """One case in which each action and each person takes so many seconds (10, where nothing is said)."""
    workflow = load_workflow(f"workflow: w\n{text}")
    timeline = Timeline(
        workflow.net, NOW, lambda *_: {"form": {}}, lambda transition: (seconds.get(transition.name, 10.0), False)
    )
    for place in tokens:
        timeline.put(place, data)
    return timeline.run()


WAITING = """
places: {a: {initial: true}, b: {}, end: {terminal: true}}
transitions:
  answer: {from_places: a, to_place: end, trigger: {type: manual}}
  late: {from_places: a, to_place: b, trigger: {type: timer, after: 1h}}
  close: {from_places: b, to_place: end, trigger: {type: timer, after: 30m}}
"""


@pytest.mark.parametrize(
    ("answers_after", "route", "ends_after"),
    [(600.0, ("answer",), 600.0), (7_200.0, ("late", "close"), 5_400.0)],
)
def test_time_passes_until_a_timer_is_due_or_somebody_was_faster(
    answers_after: float, route: tuple[str, ...], ends_after: float
) -> None:
    ended = run(WAITING, {"answer": answers_after}, "a")
    assert (ended.status, ended.route, ended.seconds) == ("completed", route, ends_after)


def test_a_deadline_cancels_what_runs() -> None:
    text = f"""
places: {{a: {{initial: true}}, late: {{terminal: true}}, end: {{terminal: true}}}}
transitions:
  work: {{from_places: a, to_place: end, {HUMAN}}}
  give_up: {{from_places: a, to_place: late, trigger: {{type: timer, after: 60, interrupt: true}}}}
"""
    assert run(text, {"work": 50.0}, "a").route == ("work",)
    ended = run(text, {"work": 500.0}, "a")
    assert (ended.route, ended.seconds) == (("work cancelled", "give_up"), 60.0)


def test_what_runs_in_a_region_is_cancelled_and_its_tokens_taken() -> None:
    text = f"""
places: {{a: {{initial: true}}, b: {{}}, end: {{terminal: true}}, never: {{terminal: true}}}}
transitions:
  slow: {{from_places: a, to_place: never, {HUMAN}}}
  stop: {{from_places: b, to_place: end, {HUMAN}, cancels: {{transitions: [slow]}}}}
"""
    ended = run(text, {"slow": 100.0, "stop": 5.0}, "a", "b")
    assert (ended.status, ended.route, ended.seconds) == ("completed", ("slow cancelled", "stop"), 5.0)
    assert ended.fired == {"stop": 1}


PATROL = """
places: {{a: {{initial: true}}, end: {{terminal: true}}}}
agents: {{helper: {{llm_provider: {{type: scripted}}}}}}
transitions:
  {away}
place_agents: [{{place_id: a, agent_id: helper, schedule: {{interval_seconds: 60}}}}]
"""


def test_an_agent_on_a_place_runs_at_its_times_while_the_token_lies_there() -> None:
    away = "leave: {from_places: a, to_place: end, trigger: {type: timer, after: 150}}"
    ended = run(PATROL.format(away=away), {}, "a")
    assert ended.route == ("helper@a", "helper@a", "helper@a", "leave")
    assert ended.seconds == 150.0


def test_a_case_in_which_only_an_agent_on_a_place_goes_on_is_left_waiting() -> None:
    away = "leave: {from_places: a, to_place: end, conditions: has(data.ready)}"
    assert run(PATROL.format(away=away), {}, "a").status == "waiting"


def test_a_place_that_ends_its_case_ends_it_whatever_runs() -> None:
    text = f"""
places: {{a: {{initial: true}}, b: {{}}, end: {{terminal: true, ends_case: true}}}}
transitions:
  slow: {{from_places: a, to_place: end, {HUMAN}}}
  fast: {{from_places: b, to_place: end, {HUMAN}}}
"""
    ended = run(text, {"slow": 100.0, "fast": 5.0}, "a", "b")
    assert (ended.status, ended.route, ended.seconds) == ("completed", ("fast",), 5.0)

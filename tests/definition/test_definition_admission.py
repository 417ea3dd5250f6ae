"""Nothing is published that can deadlock, by whichever door it comes, unless its author insists."""

from __future__ import annotations

import pytest

from circuit.definition import load_workflow
from circuit.definition.admission import admit
from circuit.errors import DefinitionError

STUCK = "workflow: w\nplaces: {a: {initial: true}, b: {}}\ntransitions: {t: {from_places: a, to_place: b}}\n"
GROWS = """workflow: g
places: {a: {initial: true}, b: {}, c: {terminal: true}}
transitions:
  more: {from_places: a, to_places: [a, b]}
  end: {from_places: [a, b], to_place: c}
"""


class Ticks:
    seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1e-6
        return self.seconds


@pytest.mark.parametrize(("text", "what"), [(STUCK, "deadlock freedom"), (GROWS, "boundedness")])
def test_what_is_refused(text: str, what: str) -> None:
    workflow = load_workflow(text)
    with pytest.raises(DefinitionError) as caught:
        admit(workflow, "w.yaml", Ticks())
    assert any(fault.message.startswith(f"{what} is violated") for fault in caught.value.faults)
    assert all(fault.source == "w.yaml" for fault in caught.value.faults)
    warnings = admit(workflow, "w.yaml", Ticks(), unsound=True)
    assert any(what in warning for warning in warnings)


def test_what_the_hidden_counters_hold_is_not_told() -> None:
    text = """workflow: c
places: {a: {initial: true}, b: {capacity: 1}, c: {terminal: true}}
agents: {x: {llm_provider: {type: scripted, model: s}}}
transitions: {t: {from_places: a, to_place: b, agent_execution: {agent_id: x}}}
"""
    with pytest.raises(DefinitionError) as caught:
        admit(load_workflow(text), "c.yaml", Ticks())
    assert "(room)" not in caught.value.message

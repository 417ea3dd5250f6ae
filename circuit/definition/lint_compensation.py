"""Checks of what undoes steps, and of the transitions that have them undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from circuit.definition.compensation import ALL
from circuit.definition.fault_text import suggestion
from circuit.definition.lint_arc import inputs_of
from circuit.definition.lint_transition import check_execution
from circuit.definition.scene import Scene
from circuit.definition.tree import PathTuple

_RECORD: Mapping[str, Any] = {
    "from_places": [{"place": "~undo", "weight": 1, "mode": "consume"}],
    "to_places": [],
}
"""What undoes a step takes its record, and leaves nothing."""


def lint_compensation(scene: Scene) -> None:
    """Report compensations that nothing asks for or that could not run, and transitions that find nothing to undo."""
    transitions = scene.section("transitions")
    steps = tuple(name for name, one in transitions.items() if "compensation" in one)
    asking = [one["compensates"] for one in transitions.values() if "compensates" in one]
    wanted = set(steps) if ALL in asking else {name for names in asking for name in names}
    for name, one in transitions.items():
        path = ("transitions", name)
        if "compensates" in one:
            _compensates(scene, path, one, steps)
        if "compensation" in one:
            _compensation(scene, (*path, "compensation"), one)
            if name not in wanted and scene.report.intact("transitions"):
                message = f"nothing ever undoes {name}: no transition compensates it"
                hint = f"write compensates: {name}, or all, on the transition that begins the undoing"
                scene.report.add((*path, "compensation"), message, hint, key=True)


def _compensates(scene: Scene, path: PathTuple, transition: Mapping[str, Any], steps: tuple[str, ...]) -> None:
    report, named = scene.report, transition["compensates"]
    here = (*path, "compensates")
    if "compensation" in transition:
        message = "a transition that undoes others cannot be undone itself"
        report.add((*path, "compensation"), message, "make two transitions of it", key=True)
    if named == ALL:
        if not steps and report.intact("transitions"):
            report.add(here, "no transition has a compensation: there is nothing to undo", "add compensation: to steps")
        return
    for name in named:
        if scene.known("transition", name, here) and name not in steps and report.intact("transitions", name):
            hint = f"add compensation: to {name}, or name another" if not steps else suggestion(name, steps, "steps")
            report.add(here, f"{name} has no compensation: it cannot be undone", hint)


def _compensation(scene: Scene, path: PathTuple, step: Mapping[str, Any]) -> None:
    report = scene.report
    key = "agent_execution" if "agent_execution" in step["compensation"] else "action"
    execution: Mapping[str, Any] = step["compensation"].get(key) or {}
    node = report.tree.node(path)
    here = (*path, key) if node is not None and node.children else path
    if execution.get("timeout_seconds", 1) <= 0:
        message = "timeout_seconds must be more than 0"
        report.add((*here, "timeout_seconds"), message, "leave it out for 300 seconds")
    if "output_mapping" in execution:
        message = "what undoes a step leaves no token: there is nothing to write to"
        report.add((*here, "output_mapping"), message, "remove output_mapping", key=True)
        execution = {name: value for name, value in execution.items() if name != "output_mapping"}
    inputs = inputs_of(scene, path, _RECORD)
    check_execution(scene, path, here, execution, _RECORD, inputs)
    taken = tuple(arc["place"] for arc in (*step["from_places"], *step.get("from_any", ())))
    places = {"consumed": taken, "produced": tuple(arc["place"] for arc in step["to_places"])}
    for name, segments in _paths(execution):
        where = (*here, "input_mapping", name)
        half = segments[1] if len(segments) > 1 else ""
        if segments[0] != "data":
            continue
        if half not in places:
            message = f"of a step there is data.consumed and data.produced, and no data.{half}"
            report.add(where, message, "write data.consumed.PLACE.NAME or data.produced.PLACE.NAME")
        elif len(segments) > 2 and segments[2] not in places[half]:
            message = f"the step has {half} no token of {segments[2]!r}"
            report.add(where, message, suggestion(segments[2], places[half], "places"))


def _paths(execution: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for name, value in (execution.get("input_mapping") or {}).items():
        yield name, (value if isinstance(value, str) else value["path"]).split(".")

"""Checks of agents that run on the tokens of a place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit.definition.lint_expression import Inputs
from circuit.definition.lint_transition import check_cron, check_execution, check_rules
from circuit.definition.scene import Scene
from circuit.definition.tree import PathTuple

SHORTEST_INTERVAL = 1.0


def lint_place_agents(scene: Scene) -> None:
    """Report what is wrong with the place agents of the file."""
    for index, entry in enumerate(scene.plain.get("place_agents", ())):
        path = ("place_agents", index)
        place = entry["place_id"]
        if scene.known("place", place, (*path, "place_id")):
            _place(scene, path, place)
        inputs = Inputs({place: 1}, 1)
        check_rules(scene, (*path, "trigger_conditions"), entry.get("trigger_conditions", ()), inputs)
        check_execution(scene, path, path, entry, {"to_places": [{"place": place}]}, inputs)
        _schedule(scene, path, entry.get("schedule") or {})
        if "auto_transition" in entry:
            _then(scene, path, entry["auto_transition"], place)


def _place(scene: Scene, path: PathTuple, name: str) -> None:
    place: Mapping[str, Any] = scene.section("places").get(name, {})
    if place.get("shared"):
        scene.report.add((*path, "place_id"), f"{name} is shared: it holds no tokens", "choose another place")
    elif place.get("terminal"):
        message = f"{name} is terminal: the case may be over before the agent has run"
        scene.report.add((*path, "place_id"), message, "let it run on a place before, or in a transition")


def _schedule(scene: Scene, path: PathTuple, schedule: Mapping[str, Any]) -> None:
    report = scene.report
    here = (*path, "schedule")
    if "cron" in schedule:
        written = report.tree.node((*here, "cron"))
        check_cron(scene, (*here, "cron") if written is not None else (*path, "cron"), schedule["cron"])
    if schedule.get("interval_seconds", SHORTEST_INTERVAL) < SHORTEST_INTERVAL:
        message = f"interval_seconds must be at least {SHORTEST_INTERVAL:g}"
        report.add((*here, "interval_seconds"), message, "leave it out for one run a token")
    rhythm = "cron" in schedule or "interval_seconds" in schedule
    for key in ("max_executions", "missed"):
        if key in schedule and not rhythm and schedule[key] != 1:
            message = f"{key} needs interval_seconds or cron: without them the agent runs once"
            report.add((*here, key), message, "add interval_seconds, or remove it", key=True)


def _then(scene: Scene, path: PathTuple, name: str, place: str) -> None:
    where = (*path, "auto_transition")
    if not scene.known("transition", name, where):
        return
    transition: Mapping[str, Any] | None = scene.section("transitions").get(name)
    if transition is None or not scene.report.intact("transitions", name):
        return
    kind = (transition.get("trigger") or {"type": "auto"})["type"]
    if kind != "auto":
        message = f"{name} has a trigger of type {kind}: an agent cannot fire it"
        scene.report.add(where, message, f"remove the trigger of {name}")
    arcs = [*transition["from_places"], *transition.get("from_any", ())]
    if not any(arc["place"] == place and arc["mode"] == "consume" for arc in arcs):
        message = f"{name} does not take from {place}, so it cannot take the token that the agent is done with"
        scene.report.add(where, message, f"add {place} to its from_places")

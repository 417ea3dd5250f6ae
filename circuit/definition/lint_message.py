"""Checks of messages: the keys by which transitions find theirs, and the one that starts cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit.definition.lint_arc import inputs_of
from circuit.definition.lint_transition import check_path
from circuit.definition.scene import Scene


def lint_messages(scene: Scene) -> None:
    """Report what is wrong with the messages that transitions wait for, and with the one that starts cases."""
    for name, transition in scene.section("transitions").items():
        trigger: Mapping[str, Any] = transition.get("trigger") or {}
        if trigger.get("type") != "message":
            continue
        here = ("transitions", name, "trigger", "correlate")
        listed = scene.report.tree.node((*here, 0)) is not None
        inputs = inputs_of(scene, ("transitions", name), transition)
        for index, text in enumerate(trigger.get("correlate", ())):
            check_path(scene, (*here, index) if listed else here, text, inputs, bare=True)
    _start(scene)


def _start(scene: Scene) -> None:
    if "start" not in scene.plain or not scene.report.intact("places"):
        return
    if not any(place.get("initial") for place in scene.section("places").values()):
        message = "a message cannot start a case: no place is initial, and its data needs one"
        scene.report.add(("start", "message"), message, "mark the place where cases begin with initial: true")

"""Checks of actions that are no agents: the texts of a request know every name that they use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from circuit.definition.fault_text import suggestion
from circuit.definition.scene import Scene
from circuit.definition.schemas import check_schema, properties_of
from circuit.definition.tree import PathTuple

TASK_OUTPUTS = ("output", "completed_by", "execution_id", "timestamp")

_HOLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|\{([^\W\d]\w*)\}")


def lint_action(scene: Scene, path: PathTuple, action: Mapping[str, Any]) -> None:
    """Report what is wrong with what stands at `path`, in the keys that its kind alone has."""
    if action.get("heartbeat_seconds", 1) <= 0:
        message = "heartbeat_seconds must be more than 0"
        scene.report.add((*path, "heartbeat_seconds"), message, "leave it out for no limit")
    if action.get("poll_seconds", 1) <= 0:
        scene.report.add((*path, "poll_seconds"), "poll_seconds must be more than 0", "leave it out for 30 seconds")
    if "form" in action:
        check_schema(scene.report, (*path, "form"), action["form"], scene.section("colours"))
    # Without a mapping the inputs are whatever the token holds.
    if action.get("input_mapping") and scene.report.intact(*path, "input_mapping"):
        _templates(scene, path, action, tuple(action["input_mapping"]))


def action_outputs(scene: Scene, action: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of an action's outputs, or None if they are not known."""
    if action.get("type") != "human" or "form" not in action:
        return None
    fields = properties_of(action["form"], scene.section("colours"))
    return None if fields is None else (*fields, *TASK_OUTPUTS)


def _templates(scene: Scene, path: PathTuple, action: Mapping[str, Any], inputs: tuple[str, ...]) -> None:
    for key in ("url", "query", "headers", "body", "title", "instructions", "command"):
        for where, text in _texts(action.get(key), (*path, key)):
            for hole in _HOLE.finditer(text):
                if hole[1] is not None and hole[1] not in inputs:
                    close = suggestion(hole[1], inputs, "inputs")
                    scene.report.add(where, f"unknown template variable {{{hole[1]}}}", close, offset=hole.start())


def _texts(value: Any, path: PathTuple) -> Iterator[tuple[PathTuple, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))

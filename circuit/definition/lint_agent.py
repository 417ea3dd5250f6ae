"""Checks of agents: their prompts know every name that they use, and their schemas are schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from circuit.definition.fault_text import suggestion
from circuit.definition.scene import Scene
from circuit.definition.schemas import check_schema
from circuit.expressions.template import TEMPLATE_VARIABLES, Template

PROMPTS = ("system", "user_template", "context_instructions")


def lint_agents(scene: Scene) -> None:
    """Report what is wrong with the agents of the file."""
    for name, agent in scene.section("agents").items():
        schema = agent.get("output_schema")
        if schema is not None:
            check_schema(scene.report, ("agents", name, "output_schema"), schema, scene.section("colours"))
        if agent["prompts"].get("engine") is None:
            _prompts(scene, name, agent["prompts"])


def _prompts(scene: Scene, agent: str, prompts: Mapping[str, Any]) -> None:
    uses = dict(_uses(scene, agent))
    whole = scene.report.intact("transitions") and scene.report.intact("place_agents")
    if not uses and not whole:
        return
    offered = sorted(set[str]().union(*uses.values()))
    for key in PROMPTS:
        for variable, offset in Template.parse(prompts[key]).names:
            if variable in TEMPLATE_VARIABLES:
                continue
            lacking = [user for user, names in uses.items() if variable not in names]
            if uses and not lacking:
                continue
            message = f"unknown template variable {{{variable}}}"
            if variable in offered:
                message += f": {lacking[0]} does not map it"
            close = suggestion(variable, (*TEMPLATE_VARIABLES, *offered), "variables")
            hint = close if close.startswith("did you mean") and variable not in offered else ""
            hint = (
                hint
                or f"add `{variable}: data....` to the input_mapping, or use one of {', '.join(TEMPLATE_VARIABLES)}"
            )
            scene.report.add(("agents", agent, "prompts", key), message, hint, offset=offset)


def _uses(scene: Scene, agent: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Who runs the agent, and the inputs that each maps for it; only those of which nothing is missing."""
    for name, transition in scene.section("transitions").items():
        execution: Mapping[str, Any] = transition.get("agent_execution") or {}
        if execution.get("agent_id") != agent:
            continue
        if scene.report.intact("transitions", name, "agent_execution", "input_mapping"):
            yield f"transition {name}", frozenset(execution.get("input_mapping", ()))
    for index, entry in enumerate(scene.plain.get("place_agents", ())):
        if entry["agent_id"] == agent:
            yield f"place agent {index + 1}", frozenset(entry.get("input_mapping", ()))

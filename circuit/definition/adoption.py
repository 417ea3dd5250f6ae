"""Agents that a file names and does not define: they are taken from those that are published, as they are then.

What is taken becomes part of the workflow's version: an agent that is published anew later changes nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from circuit.definition.document import ALIASES
from circuit.definition.inclusion import Reader, assemble
from circuit.definition.workflow import COLLEAGUES
from circuit.errors import DefinitionError

Catalogue = Mapping[str, Mapping[str, Any]]
"""Published agents by id, in canonical form."""


def borrowed(text: str, source: str = "workflow", read: Reader | None = None) -> list[str]:
    """The agents that a workflow file, with the fragments that `read` gives, names and does not define; none where it
    cannot be read."""
    try:
        root: Mapping[str, Any] = assemble(text, source, ALIASES, read)[0].root.value
    except DefinitionError:
        return []
    own = _mapping(root.get("agents"))
    named = {*_run(root), *(name for agent in own.values() for name in _tools(agent))}
    return sorted(named - own.keys())


def adopt(plain: dict[str, Any], catalogue: Catalogue) -> None:
    """Give the canonical document `plain` those agents of `catalogue` that it names and lacks, and those that they may
    ask or hand over to."""
    agents: dict[str, Any] = dict(plain.get("agents") or {})
    steps: list[Mapping[str, Any]] = list(plain["transitions"].values())
    runs = [one.get("agent_execution") or {} for one in (*steps, *(one.get("compensation") or {} for one in steps))]
    pending = [str(one["agent_id"]) for one in (*runs, *plain.get("place_agents", ())) if "agent_id" in one]
    pending += [name for agent in agents.values() for name in colleagues(agent)]
    while pending:
        name = pending.pop()
        if name in agents or name not in catalogue:
            continue
        agents[name] = {key: value for key, value in catalogue[name].items() if key != "id"}
        pending += colleagues(agents[name])
    if agents:
        plain["agents"] = agents


def colleagues(document: Mapping[str, Any]) -> list[str]:
    """The agents that this one, in canonical form, may ask as tools or hand over to."""
    return [entry["name"] for entry in document.get("tools") or () if entry["kind"] in COLLEAGUES]


def _run(root: Mapping[str, Any]) -> Iterator[str]:
    """The agents that transitions and places run, as the file writes them."""
    for transition in _mapping(root.get("transitions")).values():
        for runs in (_mapping(transition), _mapping(_mapping(transition).get("compensation"))):
            execution: Any = runs.get("agent_execution")
            name: Any = execution if isinstance(execution, str) else _mapping(execution).get("agent_id")
            if isinstance(name, str):
                yield name
    for entry in _list(root.get("place_agents")):
        name = _mapping(entry).get("agent_id")
        if isinstance(name, str):
            yield name


def _tools(agent: Any) -> Iterator[str]:
    for entry in _list(_mapping(agent).get("tools")):
        for kind in COLLEAGUES:
            name = _mapping(entry).get(kind)
            if isinstance(name, str):
                yield name


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []

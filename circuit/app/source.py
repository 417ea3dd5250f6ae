"""The workflow in a file or a text, as it is published."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuit.agents.toolbox.openapi import api_fault
from circuit.definition import load_workflow
from circuit.definition.admission import admit
from circuit.definition.adoption import Catalogue
from circuit.definition.lint_agent import demands
from circuit.definition.workflow import Workflow
from circuit.errors import InvalidRequest
from circuit.fragments import beside
from circuit.providers.profiles import misfits
from circuit.security.rules import Rule

_TEXT = "<text>"


def read(source: str | Path) -> tuple[str, str]:
    """The text of a workflow, and what faults call it. Raises `InvalidRequest`."""
    text, name = str(source), _TEXT
    if isinstance(source, Path) or "\n" not in source:
        try:
            text, name = Path(source).read_text(encoding="utf-8"), str(source)
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"The workflow file {str(source)!r} cannot be read: {error}") from error
    return text, name


def fragments(name: str) -> Callable[[str], str] | None:
    """What reads the files beside the workflow file of this name; a text has none."""
    return None if name == _TEXT else beside(Path(name))


def loaded(text: str, name: str, unsound: bool, agents: Catalogue, rules: Sequence[Rule] = ()) -> Workflow:
    """The workflow in a text of this name. `agents` are published ones, `rules` those of redaction of the deployment.
    Raises `DefinitionError`."""
    workflow = load_workflow(text, name, misfits, agents, fragments(name), rules, api_fault)
    admit(workflow, name, time.monotonic, unsound=unsound)
    return workflow


def fitting(workflow: Workflow, models: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `InvalidRequest` if a model that stands in the place of an agent's own (by agent id, or `*`) does not take
    what the agent asks of it: what its own was checked for when it was published."""
    for agent in workflow.agents.values():
        chosen = models.get(agent.id) or models.get("*")
        if chosen is None:
            continue
        problems = misfits(str(chosen["model"]), *demands(agent.document), agent.document.get("context_tokens"))
        if problems:
            raise InvalidRequest(
                f"agent {agent.id} cannot be answered by {chosen['type']}:{chosen['model']}: {'; '.join(problems)}."
                " Choose another model, or change the agent"
            )

"""The workflow in a file or a text, as it is published."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from circuit.definition import load_workflow
from circuit.definition.admission import admit
from circuit.definition.adoption import Catalogue
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
    workflow = load_workflow(text, name, misfits, agents, fragments(name), rules)
    admit(workflow, name, time.monotonic, unsound=unsound)
    return workflow

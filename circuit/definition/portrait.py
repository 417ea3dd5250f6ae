"""What a workflow looks like: its net as a case begins, with the agents that act in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from circuit.definition.compiler import compile_document
from circuit.definition.proof import tokens_at_start
from circuit.definition.workflow import Workflow
from circuit.net.drawing import mermaid
from circuit.net.marking import Marking, Token
from circuit.net.picture import Picture, picture_of_net

_BEGUN = datetime(1970, 1, 1, tzinfo=UTC)


def picture_of(
    workflow: Workflow, marking: Mapping[str, int] | None = None, fired: Mapping[str, int] | None = None
) -> Picture:
    """The picture of a workflow as a case begins; or with so many tokens in its places, and with how often each of its
    transitions has fired."""
    lying = tokens_at_start(workflow) if marking is None else marking
    labels = {name: one.label for name, one in workflow.net.transitions.items()}
    heat = {name: float(fired[label]) for name, label in labels.items() if label in fired} if fired else {}
    return picture_of_net(workflow.net, _marking(lying), agents_of(workflow), heat=heat)


def agents_of(workflow: Workflow) -> dict[str, str]:
    """The agent of each transition that has one, and else the kind of its action."""
    return {name: str(action.config.get("agent_id", action.kind)) for name, action in workflow.actions.items()}


def svg_of(document: Mapping[str, Any]) -> str:
    """A canonical document as an SVG picture."""
    from circuit.net.svg import svg

    return svg(picture_of(compile_document(document)))


def mermaid_of(document: Mapping[str, Any]) -> str:
    """A canonical document as a Mermaid flowchart."""
    workflow = compile_document(document)
    return mermaid(workflow.net, agents=agents_of(workflow))


def _marking(tokens: Mapping[str, int]) -> Marking:
    """So many tokens in each place."""
    places = [place for place, count in tokens.items() for _ in range(count)]
    return Marking(Token(number, 1, place, {}, {}, _BEGUN) for number, place in enumerate(places, 1))

"""What a workflow looks like: its net as a case begins, with what acts in it and what all its cases share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from circuit.definition.compensation import hidden, undo_of, unexpanded
from circuit.definition.compiler import compile_document
from circuit.definition.proof import tokens_at_start
from circuit.definition.workflow import ActionSpec, Workflow
from circuit.net.drawing import SharedPlace, mermaid
from circuit.net.marking import Marking, Token
from circuit.net.picture import Picture, picture_of_net

_BEGUN = datetime(1970, 1, 1, tzinfo=UTC)


def picture_of(
    workflow: Workflow,
    marking: Mapping[str, int] | None = None,
    fired: Mapping[str, int] | None = None,
    trace: Sequence[str] = (),
) -> Picture:
    """The picture of a workflow as a case begins; or with so many tokens in its places, and with how often each of its
    transitions has fired. How it undoes things is drawn where it does, or has."""
    lying = tokens_at_start(workflow) if marking is None else marking
    shown = workflow
    if not any(hidden(name) for name in (*lying, *(fired or ()), *trace)):
        shown = without_undoing(workflow)
    labels = {name: one.label for name, one in shown.net.transitions.items()}
    heat = {name: float(fired[label]) for name, label in labels.items() if label in fired} if fired else {}
    known = {place: count for place, count in lying.items() if place in shown.net.places}
    return picture_of_net(
        shown.net, _marking(known), notes_of(workflow), heat=heat, shared=shared_of(workflow), trace=trace
    )


def without_undoing(workflow: Workflow) -> Workflow:
    """The workflow as if nothing in it could be undone, for a picture of what it does when all goes well."""
    if not any(place.record for place in workflow.net.places.values()):
        return workflow
    return compile_document(unexpanded(workflow.document))


def notes_of(workflow: Workflow) -> dict[str, list[str]]:
    """What stands on transitions: what acts, what undoes a firing, and what is undone."""
    notes = {name: [doer(action)] for name, action in workflow.actions.items()}
    for name, one in workflow.net.transitions.items():
        written: Mapping[str, Any] = workflow.document["transitions"].get(one.label) or {}
        if "compensation" in written:
            notes.setdefault(name, []).append(f"↩ {doer(workflow.actions[undo_of(one.label)])}")
        if "compensates" in written:
            names = written["compensates"]
            notes.setdefault(name, []).append(f"↩ undoes {names if isinstance(names, str) else ', '.join(names)}")
    return notes


def doer(action: ActionSpec) -> str:
    """Who or what acts, in a few words."""
    config = action.config
    match action.kind:
        case "http":
            return f"{config['method']} {config['url']}"
        case "job":
            return f"job {' '.join(config['command'])}"
        case "human":
            return f"task {config['title']}"
        case kind:
            return f"{kind} {config.get('agent_id') or config.get('name') or config.get('workflow') or ''}".rstrip()


def shared_of(workflow: Workflow) -> list[SharedPlace]:
    """The shared places, with what firings hold of them while they run."""
    return [
        SharedPlace(
            name,
            resource.capacity,
            resource.interval_seconds,
            {of: action.holds[name] for of, action in workflow.actions.items() if name in action.holds},
        )
        for name, resource in workflow.resources.items()
    ]


def agents_of(workflow: Workflow) -> dict[str, str]:
    """The agent of each transition that has one."""
    return {
        name: str(action.config["agent_id"]) for name, action in workflow.actions.items() if "agent_id" in action.config
    }


def svg_of(document: Mapping[str, Any]) -> str:
    """A canonical document as an SVG picture."""
    from circuit.net.svg import svg

    return svg(picture_of(compile_document(document)))


def mermaid_of(document: Mapping[str, Any]) -> str:
    """A canonical document as a Mermaid flowchart."""
    workflow = compile_document(document)
    return mermaid(without_undoing(workflow).net, notes=notes_of(workflow), shared=shared_of(workflow))


def _marking(tokens: Mapping[str, int]) -> Marking:
    """So many tokens in each place."""
    places = [place for place, count in tokens.items() for _ in range(count)]
    return Marking(Token(number, 1, place, {}, {}, _BEGUN) for number, place in enumerate(places, 1))

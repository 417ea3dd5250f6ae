"""Whether the workflow goes on whatever an agent answers: the model is taken for an adversary.

What an agent may answer is read off its output schema: each value of an enumeration, true and false, the ends of a
range of numbers. For each combination it is tried whether some transition takes the token on, however often transitions
have fired before. Guards that ask for what the agent does not say leave the question open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any

from circuit.definition.workflow import Workflow
from circuit.expressions.path import Path, assign
from circuit.expressions.value import is_object
from circuit.net.analysis.verdict import Verdict, proven, unknown, violated
from circuit.net.guard import Guard
from circuit.net.structure import BINDING, Mode, Transition

_METHOD = "every answer tried"
_MOST_ANSWERS = 512
_PATH = re.compile(r"\b(?:data|metadata|tokens|case)\b(?:\.\w+|\[[^\]]*\])*")
_FIRED = (0, 1, 2, 3, 5, 10, 100, 1_000_000)


def agent_answers(workflow: Workflow) -> Verdict:
    """Whether each value of an agent's output has a continuation."""
    open_: list[str] = []
    count = 0
    for name in workflow.actions:
        transition = workflow.net.transitions[name]
        if transition.refresh:
            continue
        for place in dict.fromkeys(arc.place for arc in transition.makes):
            for answer in islice(_answers(workflow, name, place), _MOST_ANSWERS):
                count += 1
                fired, doubtful = _first_stuck(workflow, place, answer)
                if fired is None:
                    continue
                said = ", ".join(f"{path} = {value!r}" for path, value in answer.items()) or "anything"
                reason = f"if {name} answers {said}, no transition takes the token out of {place}"
                if workflow.net.complete_when is not None:
                    open_.append(f"{reason}, and whether the case is complete then, complete_when says")
                elif doubtful:
                    open_.append(f"guards after {place} ask for more than what {name} answers")
                elif fired:
                    open_.append(f"{reason} once transitions have fired {fired} times")
                else:
                    return violated(_METHOD, reason, transition=name, place=place, answer=dict(answer))
    return unknown(_METHOD, open_[0]) if open_ else proven(_METHOD, answers=count)


def agent_failures(workflow: Workflow) -> Verdict:
    """Whether each agent that fails for good (a refusal, a timeout, an answer that is invalid again and again) has a
    way on: an `on_failure` place, or `required: false`. Else the case waits for a person."""
    # What undoes a step has no other way than to be tried again.
    names = [name for name in workflow.actions if not workflow.net.transitions[name].undoes]
    ways = {name: workflow.net.transitions[name].on_failure for name in names}
    # An agent that runs on a place holds up nobody: where it fails, its token may go another way.
    missing = [
        name
        for name, place in ways.items()
        if place is None and workflow.actions[name].required and not workflow.net.transitions[name].refresh
    ]
    led = {name: place for name, place in ways.items() if place is not None}
    if missing:
        reason = f"if {', '.join(missing)} fails for good, an incident is raised and a person has to act"
        return violated("structure", reason, transitions=missing, on_failure=led)
    return proven("structure", on_failure=led)


def _answers(workflow: Workflow, name: str, place: str) -> Iterator[dict[str, Any]]:
    """What the agent may write into tokens of the place: values by their paths."""
    action = workflow.actions[name]
    agent = workflow.agents.get(str(action.config.get("agent_id", "")))
    label = workflow.net.transitions[name].label
    execution: Mapping[str, Any] = workflow.document["transitions"][label].get("agent_execution") or {}
    schema: Mapping[str, Any] = (agent.output_schema if agent is not None else None) or {}
    found: dict[str, list[Any]] = {}
    for path, source in (execution.get("output_mapping") or {}).items():
        target = _target(path, place)
        key = source["path"] if isinstance(source, dict) else source
        values = _values(schema, str(key), schema)
        if target is not None and values:
            found[target] = values
    for combination in product(*found.values()):
        yield dict(zip(found, combination, strict=True))


def _target(path: str, place: str) -> str | None:
    """The path in the place's token; None where it is another place's."""
    if not path.startswith("to."):
        return path
    prefix = f"to.{place}."
    return path[len(prefix) :] if path.startswith(prefix) else None


def _values(schema: Mapping[str, Any], key: str, root: Mapping[str, Any]) -> list[Any]:
    """Values that stand for all that the schema allows at a dotted key; none where they are not to be counted."""
    for segment in key.split("."):
        below: object = _resolved(schema, root).get("properties", {}).get(segment, {})
        if not is_object(below):
            return []
        schema = below
    schema = _resolved(schema, root)
    if "const" in schema:
        return [schema["const"]]
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return [False, True]
    if kind in ("integer", "number"):
        low, high = schema.get("minimum"), schema.get("maximum")
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low <= high:
            middle = (low + high) // 2 if kind == "integer" else (low + high) / 2
            return list(dict.fromkeys([low, middle, high]))
    return []


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        found: object = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        return found if is_object(found) else {}
    return schema


def _first_stuck(workflow: Workflow, place: str, answer: Mapping[str, Any]) -> tuple[int | None, bool]:
    """After how many firings of each transition nothing takes a token with this answer on, and whether that is
    doubtful, because a guard had no answer or something else has to be there too."""
    definition = workflow.net.places[place]
    takers = [
        one
        for one in workflow.net.transitions.values()
        if any(arc.place == place and arc.mode in BINDING for arc in one.inputs)
    ]
    if definition.terminal or definition.dead_letter:
        return None, False
    if not takers:
        return 0, False
    parts: dict[str, dict[str, Any]] = {"data": {}, "metadata": {}}
    for path, value in answer.items():
        root, _, rest = path.partition(".")
        if root in parts and rest:
            parts[root] = assign(parts[root], Path.parse(rest), value)
    for fired in _FIRED:
        counts = dict.fromkeys(workflow.net.transitions, fired)
        case = {"id": "", "workflow_id": workflow.id, "started_at": "", "fired": counts}
        doubtful = False
        for transition in takers:
            choosy = bool(transition.inhibits) or any(arc.picky for arc in transition.inputs if arc.mode in BINDING)
            if transition.guard is None and not choosy:
                break
            if transition.guard is None or choosy:
                # What a filter, a key or an inhibit arc lets through is not tried.
                doubtful = True
                continue
            alone = _takes_one(transition, place) and _asks_only(transition.guard, answer)
            token = {"id": "", "version": 1, **parts}
            scope: dict[str, Any] = {"case": case, "tokens": {place: token}, **parts}
            verdict = transition.guard.judge(scope)
            if verdict.holds:
                break
            doubtful = doubtful or verdict.faulty or not alone
        else:
            return fired, doubtful
    return None, False


def asked_paths(guard: Guard) -> list[str]:
    """Every path that the guard looks at."""
    paths = [path for rule in guard.rules for path in rule.paths]
    return paths + [path for condition in guard.conditions for path in _PATH.findall(condition.source)]


def answered_paths(workflow: Workflow) -> set[str]:
    """Every path that an agent of the workflow writes."""
    found: set[str] = set()
    labels = {workflow.net.transitions[name].label for name in workflow.actions}
    runs = [workflow.document["transitions"].get(label, {}).get("agent_execution") or {} for label in sorted(labels)]
    for execution in [*runs, *workflow.document.get("place_agents", ())]:
        for path in execution.get("output_mapping") or {}:
            found.add(path.split(".", 2)[2] if path.startswith("to.") and path.count(".") > 1 else path)
    return found


def _asks_only(guard: Guard, answer: Mapping[str, Any]) -> bool:
    """Whether the guard looks at nothing but what the agent answers and how often transitions have fired."""
    return all(path in answer or path.startswith("case.fired.") for path in asked_paths(guard))


def _takes_one(transition: Transition, place: str) -> bool:
    consumed = [arc for arc in transition.inputs if arc.mode is not Mode.READ]
    return len(consumed) == 1 and consumed[0].weight == 1 and consumed[0].place == place

"""What can be proven of a workflow before it is published, and what it is refused for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuit.definition.agent_answers import agent_answers, agent_failures
from circuit.definition.agent_cost import AgentCost
from circuit.definition.tariff import Tariff
from circuit.definition.workflow import Workflow
from circuit.errors import Fault, InvalidRequest
from circuit.net.analysis.failures import with_failures
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.place_net import PlaceNet
from circuit.net.analysis.proofs import EVERY, Analysis, analyse
from circuit.net.analysis.translation import COMPLETE, Translated, begins, transition_of, translate
from circuit.net.analysis.verdict import Verdict, proven, unknown
from circuit.net.structure import Net

DECISIVE = ("boundedness", "deadlock_freedom", "soundness")
"""The properties without which a workflow is not published, unless its author insists."""

FAULTS = (*DECISIVE, "dead_transitions", "reachable_names")
"""The properties whose violation is a mistake in the net. That the others do not hold says what kind of net it is."""

OF_WORKFLOWS = (
    "bounded_cycles",
    "agent_calls",
    "agent_budget",
    "agent_money",
    "agent_answers",
    "agent_failures",
    "failure_ways",
)
WARNINGS = (
    "dead_transitions",
    "reachable_names",
    "bounded_cycles",
    "agent_calls",
    "agent_answers",
    "agent_failures",
    "failure_ways",
)
"""The properties whose violation is worth a warning."""

CARRIES_OVER: Mapping[str, str] = {
    "boundedness": "proven holds for the workflow; violated unless a guard ends the growth",
    "k_safeness": "proven holds for the workflow",
    "dead_transitions": "violated holds for the workflow; proven unless a guard never holds",
    "deadlock_freedom": "holds for the workflow if some guard holds in each marking",
    "soundness": "holds for the workflow if some guard holds in each marking",
    "liveness": "holds for the workflow if guards come to hold again",
    "home_markings": "holds for the workflow if guards leave the way open",
    "failure_ways": "holds for the workflow if some guard holds in each marking",
}
"""What a verdict on the net, which knows no guards, data or time, says about the workflow."""

_DEAD = {"soundness": "dead_transitions", "dead_transitions": "transitions"}
"""Where the witness of a verdict names steps that can never fire."""

_COUNTED = ("bounded_cycles", "agent_calls", "agent_budget", "agent_money")
"""The properties that are read off the markings of the analysed net as well."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdicts on a workflow, and the net that they are about."""

    analysis: Analysis
    translated: Translated

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        return self.analysis.verdicts

    def about(self) -> dict[str, Any]:
        """What the verdicts are about, as JSON: what was left out, and what carries over to the workflow."""
        left_out = {
            "failing": list(self.translated.failing),
            "handling": list(self.translated.handling),
            "dead_letter_places": list(self.translated.letters),
            "guards": "guards, data, time and priorities are not looked at",
        }
        return {
            "left_out": left_out,
            "split": list(self.translated.split),
            "carries_over": {name: text for name, text in CARRIES_OVER.items() if name in self.verdicts},
        }

    def faults(self, source: str) -> list[Fault]:
        """What the workflow is refused for."""
        return [
            Fault(source, 1, 1, "transitions", _sentence(name, self.verdicts[name]), "circuit analyse shows more")
            for name in DECISIVE
            if name in self.verdicts and self.verdicts[name].violated
        ]

    def warnings(self) -> list[str]:
        """What is worth knowing and does not keep the workflow from being published."""
        found = [
            _sentence(name, self.verdicts[name])
            for name in WARNINGS
            if name in self.verdicts and self.verdicts[name].violated
        ]
        found += [
            f"{name.replace('_', ' ')} is not decided: {self.verdicts[name].reason}"
            for name in DECISIVE
            if name in self.verdicts and self.verdicts[name].unknown
        ]
        return found


def tokens_at_start(workflow: Workflow) -> dict[str, int]:
    """How many tokens lie in each place when a case begins."""
    tokens: dict[str, int] = {}
    for token in workflow.initial_tokens:
        tokens[token.place] = tokens.get(token.place, 0) + 1
    first = workflow.net.initial_place
    if first is not None:
        tokens[first.name] = tokens.get(first.name, 0) + 1
    return tokens


def prove(workflow: Workflow, limits: Limits, only: Collection[str] = (), tariff: Tariff | None = None) -> Proof:
    """The verdicts on `workflow`, on those in `only` if any are named; what it costs by `tariff`."""
    strange = [name for name in only if name not in (*EVERY, *OF_WORKFLOWS)]
    if strange:
        raise InvalidRequest(f"There is no property {strange[0]!r}; there are {', '.join((*EVERY, *OF_WORKFLOWS))}.")
    started = limits.now()
    deadline = started + limits.seconds
    translated = _translated(workflow, workflow.net)
    of_net = [name for name in only if name in EVERY]
    verdicts: dict[str, Verdict] = {}
    if of_net or not only:
        translated, verdicts = _analysed(workflow, translated, limits, of_net)
        verdicts = {name: _as_far_as_known(name, verdict, translated) for name, verdict in verdicts.items()}
    failing = _with_failures(workflow)
    cost = AgentCost(workflow, failing.net, limits, tariff)
    ways: dict[str, Callable[[], Verdict]] = {
        "bounded_cycles": cost.bounded_cycles,
        "agent_calls": cost.agent_calls,
        "agent_budget": cost.agent_budget,
        "agent_money": cost.agent_money,
        "agent_answers": lambda: agent_answers(workflow),
        "agent_failures": lambda: agent_failures(workflow),
        "failure_ways": lambda: _failure_ways(workflow, failing, cost.limits),
    }
    for name, way in ways.items():
        if only and name not in only:
            continue
        begun = limits.now()
        if begun >= deadline:
            verdicts[name] = unknown("none", f"the time limit of {limits.seconds:g} s is reached")
            continue
        cost.limits = replace(limits, seconds=deadline - begun)
        verdict = _as_far_as_known(name, way(), failing if name in _COUNTED else translated)
        verdicts[name] = verdict.timed(limits.now() - begun)
    return Proof(Analysis(translated.net, verdicts, limits.now() - started), translated)


def _with_failures(workflow: Workflow) -> Translated:
    """The net to analyse in which actions may fail for good."""
    net = workflow.net
    ways = [
        net.transitions[name]
        for name, action in workflow.actions.items()
        if action.required and net.transitions[name].on_failure is not None
    ]
    open_ = [one.name for one in ways if one.lists]
    found = _translated(workflow, with_failures(net, [one.name for one in ways if not one.lists]))
    if open_ and not found.inexact:
        return replace(found, inexact=f"how many tokens {open_[0]} leaves where it fails shows only then")
    return found


def _failure_ways(workflow: Workflow, translated: Translated, limits: Limits) -> Verdict:
    """Whether a case can always come to an end, or to a dead letter, whichever actions fail for good."""
    if not any(one.on_failure for one in workflow.net.transitions.values()):
        return proven("structure", "no action has a way of failure")
    translated, verdicts = _analysed(workflow, translated, limits, ["soundness"])
    return _as_far_as_known("failure_ways", verdicts["soundness"], translated)


def _translated(workflow: Workflow, net: Net) -> Translated:
    shared = {name: resource.capacity for name, resource in workflow.resources.items()}
    holds = {
        name: workflow.actions[of].holds for name in net.transitions if (of := transition_of(name)) in workflow.actions
    }
    return translate(net, tokens_at_start(workflow), shared, holds)


def _analysed(
    workflow: Workflow, translated: Translated, limits: Limits, only: Collection[str]
) -> tuple[Translated, dict[str, Verdict]]:
    """The verdicts on the analysed net. Of a transition that has become several steps, it is enough that one can fire:
    those that cannot are left out, which changes nothing of what the net does."""
    net = translated.net
    while True:
        verdicts = analyse(net, limits, only).verdicts
        dead = {
            str(name)
            for key, found in _DEAD.items()
            if key in verdicts
            for name in verdicts[key].witness.get(found, ())
        }
        labels = {step.name: _label_of(workflow, step.name) for step in net.steps}
        alive = {labels[step.name] for step in net.steps if step.name not in dead}
        spare = {step.name for step in net.steps if step.name in dead and labels[step.name] in alive}
        if not spare:
            return replace(translated, net=net), verdicts
        net = replace(net, steps=tuple(step for step in net.steps if step.name not in spare))


def _label_of(workflow: Workflow, step: str) -> tuple[str, bool]:
    transition = workflow.net.transitions.get(transition_of(step))
    return (transition.label if transition is not None else transition_of(step), begins(step))


def _as_far_as_known(name: str, verdict: Verdict, translated: Translated) -> Verdict:
    """The verdict on the workflow, where the analysed net does not show all of it."""
    if name not in (*CARRIES_OVER, *_COUNTED) or verdict.unknown:
        return verdict
    if translated.open_end and name in ("soundness", "deadlock_freedom", "failure_ways"):
        return unknown("none", translated.open_end).timed(verdict.seconds)
    if verdict.violated and verdict.trace and _was_complete(translated.net, verdict.trace):
        reason = "the run that would violate it goes on after complete_when holds"
        return unknown(verdict.method, reason).timed(verdict.seconds)
    if translated.inexact:
        return unknown("none", translated.inexact).timed(verdict.seconds)
    if translated.sampled and not (verdict.violated and verdict.trace):
        return unknown(verdict.method, translated.sampled).timed(verdict.seconds)
    return verdict


def _was_complete(net: PlaceNet, trace: Sequence[str]) -> bool:
    """Whether a case would have been complete before the last of these steps."""
    completing = [number for number, step in enumerate(net.steps) if transition_of(step.name) == COMPLETE]
    if not completing:
        return False
    numbers = {step.name: number for number, step in enumerate(net.steps)}
    marking = net.initial
    for name in trace:
        if transition_of(name) != COMPLETE and any(net.enabled(number, marking) for number in completing):
            return True
        marking = net.fire(numbers[name], marking)
    return False


def _sentence(name: str, verdict: Verdict) -> str:
    """A violation in a line, with the run that shows it."""
    steps = list(verdict.trace or ())
    shown = " ".join(f"{index}. {step}" for index, step in enumerate(steps[:12], 1)) + (
        " ..." if len(steps) > 12 else ""
    )
    counted = (" (room)", " (lying)")
    marking = {name: count for name, count in verdict.witness.get("marking", {}).items() if not name.endswith(counted)}
    there = f" (then {', '.join(f'{place}: {count}' for place, count in marking.items())})" if marking else ""
    return f"{name.replace('_', ' ')} is violated: {verdict.reason}" + (f": {shown}{there}" if steps else there)

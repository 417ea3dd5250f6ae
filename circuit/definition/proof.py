"""What can be proven of a workflow before it is published, and what it is refused for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from circuit.definition.agent_answers import agent_answers, agent_failures
from circuit.definition.agent_cost import AgentCost
from circuit.definition.workflow import Workflow
from circuit.errors import Fault, InvalidRequest
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.proofs import EVERY, Analysis, analyse
from circuit.net.analysis.translation import Translated, translate
from circuit.net.analysis.verdict import Verdict, unknown

DECISIVE = ("boundedness", "deadlock_freedom", "soundness")
"""The properties without which a workflow is not published, unless its author insists."""

FAULTS = (*DECISIVE, "dead_transitions", "reachable_names")
"""The properties whose violation is a mistake in the net. That the others do not hold says what kind of net it is."""

OF_WORKFLOWS = ("bounded_cycles", "agent_calls", "agent_budget", "agent_answers", "agent_failures")
WARNINGS = ("dead_transitions", "reachable_names", "bounded_cycles", "agent_calls", "agent_answers", "agent_failures")
"""The properties whose violation is worth a warning."""

CARRIES_OVER: Mapping[str, str] = {
    "boundedness": "proven holds for the workflow; violated unless a guard ends the growth",
    "k_safeness": "proven holds for the workflow",
    "dead_transitions": "violated holds for the workflow; proven unless a guard never holds",
    "deadlock_freedom": "holds for the workflow if some guard holds in each marking",
    "soundness": "holds for the workflow if some guard holds in each marking",
    "liveness": "holds for the workflow if guards come to hold again",
    "home_markings": "holds for the workflow if guards leave the way open",
}
"""What a verdict on the net, which knows no guards, data or time, says about the workflow."""


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


def prove(workflow: Workflow, limits: Limits, only: Collection[str] = ()) -> Proof:
    """The verdicts on `workflow`, on those in `only` if any are named."""
    strange = [name for name in only if name not in (*EVERY, *OF_WORKFLOWS)]
    if strange:
        raise InvalidRequest(f"There is no property {strange[0]!r}; there are {', '.join((*EVERY, *OF_WORKFLOWS))}.")
    started = limits.now()
    deadline = started + limits.seconds
    translated = translate(workflow.net, tokens_at_start(workflow))
    of_net = [name for name in only if name in EVERY]
    verdicts = dict(analyse(translated.net, limits, of_net).verdicts) if of_net or not only else {}
    if translated.inexact:
        verdicts = {
            name: unknown("none", translated.inexact) if name in CARRIES_OVER else verdict
            for name, verdict in verdicts.items()
        }
    cost = AgentCost(workflow, translated.net, limits)
    ways: dict[str, Callable[[], Verdict]] = {
        "bounded_cycles": cost.bounded_cycles,
        "agent_calls": cost.agent_calls,
        "agent_budget": cost.agent_budget,
        "agent_answers": lambda: agent_answers(workflow),
        "agent_failures": lambda: agent_failures(workflow),
    }
    for name, way in ways.items():
        if only and name not in only:
            continue
        begun = limits.now()
        if begun >= deadline:
            verdicts[name] = unknown("none", f"the time limit of {limits.seconds:g} s is reached")
            continue
        cost.limits = replace(limits, seconds=deadline - begun)
        verdict = way()
        verdicts[name] = verdict.timed(limits.now() - begun)
    return Proof(Analysis(translated.net, verdicts, limits.now() - started), translated)


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

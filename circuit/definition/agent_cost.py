"""How often a workflow may call its agents at worst, and which cycles nothing ends.

The bound that a transition sets itself (`case.fired.send_back < 2` on `send_back`) becomes a place that holds so many
tokens, of which each firing takes one. A guard that looks at what agents answer ends nothing, since they may answer so
again and again. A guard that looks at other data may end a cycle, or not: then the answer is unknown. Actions may fail
for good, and go the way of failure that they have. What undoes a step runs no more often than the step did: it counts
with the step, and what leads to it ends by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from circuit.definition.agent_answers import answered_paths, asked_paths
from circuit.definition.tariff import Tariff, Worst, spends, worst_of
from circuit.definition.workflow import Workflow
from circuit.net.analysis.components import components, without
from circuit.net.analysis.exploration import Graph, explore
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.place_net import PlaceNet, arcs
from circuit.net.analysis.translation import begins, transition_of
from circuit.net.analysis.verdict import Verdict, proven, unknown, violated
from circuit.net.guard import Guard
from circuit.spend import MICRO, dollars

_METHOD = "exploration of all markings, with the bounds that transitions set themselves"
_BOUND = re.compile(r"case\.fired(?:\.(\w+)|\[['\"]([^'\"]+)['\"]\])\s*(<=?)\s*(\d{1,9})")


@dataclass(frozen=True, slots=True)
class _Loop:
    trace: list[str]
    cycle: list[str]


def _on_places(workflow: Workflow) -> str:
    """Why the runs of a case cannot be counted: how often an agent runs on a place depends on how long tokens stay."""
    names = [name for name in workflow.actions if workflow.net.transitions[name].refresh]
    return f"how often {', '.join(names)} run depends on how long tokens stay" if names else ""


class AgentCost:
    """The verdicts on the agent calls of one workflow. `net` is what it was translated to; without a `tariff` nothing
    is known of models but what the workflow says."""

    def __init__(self, workflow: Workflow, net: PlaceNet, limits: Limits, tariff: Tariff | None = None) -> None:
        self.workflow = workflow
        self.tariff = tariff
        self._known: dict[str, Worst] = {}
        self.net = _bounded(workflow, net)
        self.limits = limits
        self.placed = _on_places(workflow)
        self.acting: dict[int, str] = {}
        for number, step in enumerate(net.steps):
            name = transition_of(step.name)
            if name in workflow.actions and begins(step.name) and spends(workflow.actions[name]):
                self.acting[number] = name
        self.undone = {one.undoes: one.name for one in workflow.net.transitions.values() if one.undoes}

    @cached_property
    def graph(self) -> Graph:
        records = {place.name for place in self.workflow.net.places.values() if place.record}
        taking = {
            number
            for number, step in enumerate(self.net.steps)
            if (one := self.workflow.net.transitions.get(transition_of(step.name))) is not None
            and any(arc.place in records for arc in one.consumes)
        }
        graph = explore(self.net, self.limits.meter())
        return without(graph, taking) if taking and graph.complete else graph

    @cached_property
    def components(self) -> tuple[Sequence[int], int]:
        return components(self.graph)

    @cached_property
    def unguarded(self) -> Graph:
        """The same states, without the edges of transitions whose guards look at data that no agent answers."""
        answered = answered_paths(self.workflow)
        doubtful: set[int] = set()
        for number, step in enumerate(self.net.steps):
            transition = self.workflow.net.transitions.get(transition_of(step.name))
            if transition is None or not begins(step.name):
                continue
            if any(arc.where is not None for arc in transition.consumes):
                doubtful.add(number)
            if transition.guard is not None:
                own = f"case.fired.{transition.label}"
                if any(path not in answered and path != own for path in asked_paths(transition.guard)):
                    doubtful.add(number)
        return without(self.graph, doubtful)

    def bounded_cycles(self) -> Verdict:
        """Whether every run ends: no marking is ever met again."""
        if not self.graph.complete:
            return self._undecided()
        return self._cycles(lambda _: True, "") or proven(_METHOD)

    def agent_calls(self) -> Verdict:
        """How many agents run at worst in one case, and how many attempts that is."""
        if self.placed:
            return unknown(_METHOD, self.placed)
        if not self.graph.complete:
            return self._undecided()
        endless = self._cycles(lambda number: number in self.acting, ", which runs an agent each time")
        if endless is not None:
            return endless
        agents = [name for name, action in self.workflow.actions.items() if "agent_id" in action.config]
        firings = self._worst(self._with_undoing(dict.fromkeys(agents, 1)))
        calls = self._worst(self._with_undoing({name: self._attempts(name) for name in agents}))
        return proven(
            _METHOD, f"at most {firings} agent runs in a case, {calls} with retries", runs=firings, calls=calls
        )

    def agent_budget(self) -> Verdict:
        """How many tokens the models write at worst in one case."""
        if not self.graph.complete or self.placed:
            return self._undecided()
        names = dict.fromkeys(self.acting.values())
        most = {
            name: tokens * self._attempts(name) for name in names if (tokens := self.worst(name).tokens) is not None
        }
        if len(most) < len(names):
            return unknown(_METHOD, self._open(lambda worst: worst.tokens))
        endless = self._cycles(lambda number: number in self.acting, "")
        if endless is not None:
            return endless
        tokens = self._worst(self._with_undoing(most))
        return proven(_METHOD, f"at most {tokens:,} tokens of output in a case", output_tokens=tokens)

    def agent_money(self) -> Verdict:
        """What the agents cost at worst in one case, or what the workflow's budget lets them cost."""
        if self.tariff is None:
            return unknown("none", "no prices are at hand")
        limit = self.workflow.budget.microdollars
        found = self._money(self.tariff)
        usd = found.witness.get("usd")
        if limit is None or (usd is not None and usd <= limit / MICRO):
            return found
        own = f" (by the longest answers: {usd:g} USD)" if usd is not None else ""
        reason = f"at most {dollars(limit)} USD in a case: its budget lets no call begin that could cost more{own}"
        return proven(
            "the workflow's budget", reason, usd=limit / MICRO, assumed=list(found.witness.get("assumed", ()))
        )

    def _money(self, tariff: Tariff) -> Verdict:
        if not self.graph.complete or self.placed:
            return self._undecided()
        names = dict.fromkeys(self.acting.values())
        known = {name: self.worst(name).microdollars for name in names}
        most = {name: money * self._attempts(name) for name, money in known.items() if money is not None}
        if len(most) < len(names):
            return unknown(_METHOD, self._open(lambda worst: worst.microdollars))
        weights = self._with_undoing(most)
        endless = self._cycles(lambda number: number in weights, ", which asks a model that costs money each time")
        if endless is not None:
            return endless
        usd = self._worst(weights)
        told = {self.worst(name).assumed: None for name in self.acting.values()}
        attempts = "each with all of its attempts"
        assumed = [tariff.source, *told, attempts] if usd else [tariff.source]
        return proven(
            _METHOD, f"at most {dollars(usd)} USD in a case ({'; '.join(assumed)})", usd=usd / MICRO, assumed=assumed
        )

    def worst(self, name: str) -> Worst:
        """The worst attempt of the agent on transition `name`."""
        if name not in self._known:
            self._known[name] = worst_of(self.workflow, name, self.tariff)
        return self._known[name]

    def _open(self, amount: Callable[[Worst], int | None]) -> str:
        """Why the worst of some action is not known."""
        found = (self.worst(name) for name in self.acting.values())
        reasons = {reason: None for worst in found if amount(worst) is None for reason in worst.open}
        return "; ".join(reasons)

    def _undecided(self) -> Verdict:
        if self.placed:
            return unknown(_METHOD, self.placed)
        if self.graph.pump is not None:
            return unknown(_METHOD, "the net has infinitely many markings")
        return unknown(_METHOD, self.graph.stopped)

    def _attempts(self, name: str) -> int:
        return self.workflow.actions[name].retry.max_attempts

    def _with_undoing(self, weights: Mapping[str, int]) -> dict[int, int]:
        """What each step weighs, by what its transition does: with what undoes it, where something may."""
        found: dict[int, int] = {}
        for number, step in enumerate(self.net.steps):
            one = self.workflow.net.transitions.get(transition_of(step.name))
            if one is not None and begins(step.name) and not one.undoes:
                undo = weights.get(self.undone.get(one.label, ""), 0)
                weight = weights.get(one.name, 0) + undo
                found |= {number: weight} if weight else {}
        return found

    def _worst(self, weights: Mapping[int, int]) -> int:
        """The heaviest run, where no cycle has a weight: components come after all that can be reached from them."""
        graph = self.graph
        of, count = self.components
        best = [0] * count
        for state in sorted(range(len(graph)), key=lambda state: of[state]):
            here = best[of[state]]
            for edge in range(graph.offsets[state], graph.offsets[state + 1]):
                target = of[graph.targets[edge]]
                if target != of[state]:
                    here = max(here, best[target] + weights.get(graph.labels[edge], 0))
            best[of[state]] = here
        return best[of[0]]

    def _cycles(self, counts: Callable[[int], bool], what: str) -> Verdict | None:
        """The verdict on cycles with a transition that `counts`; None where there are none."""
        loop = self._loop(self.unguarded, components(self.unguarded)[0], counts)
        if loop is not None:
            reason = f"nothing ends the cycle of {', '.join(loop.cycle)}{what}"
            return violated(_METHOD, reason, loop.trace, repeated=loop.cycle)
        loop = self._loop(self.graph, self.components[0], counts)
        if loop is not None:
            reason = f"whether the cycle of {', '.join(loop.cycle)}{what} ends, depends on a guard that looks at data"
            return unknown(_METHOD, reason)
        return None

    def _loop(self, graph: Graph, of: Sequence[int], counts: Callable[[int], bool]) -> _Loop | None:
        """A cycle of the graph with a transition that `counts`, and a shortest way to it."""
        for state in range(len(graph)):
            for edge in range(graph.offsets[state], graph.offsets[state + 1]):
                target = graph.targets[edge]
                if of[target] == of[state] and counts(graph.labels[edge]):
                    cycle = [graph.labels[edge], *self._way(graph, target, state)]
                    names = [self.net.steps[number].name for number in cycle]
                    return _Loop(self.net.names(graph.trace(state)), names)
        return None

    def _way(self, graph: Graph, source: int, target: int) -> list[int]:
        """A shortest run between two states of one component."""
        came: dict[int, tuple[int, int]] = {source: (-1, -1)}
        layer = [source]
        while target not in came:
            following: list[int] = []
            for state in layer:
                for edge in range(graph.offsets[state], graph.offsets[state + 1]):
                    after = graph.targets[edge]
                    if after not in came:
                        came[after] = (state, graph.labels[edge])
                        following.append(after)
            layer = following
        found: list[int] = []
        while target != source:
            target, label = came[target]
            found.append(label)
        return found[::-1]


def _bounded(workflow: Workflow, net: PlaceNet) -> PlaceNet:
    """The net with a place for each bound that a transition sets itself."""
    places, initial, capacities = list(net.places), list(net.initial), list(net.capacities)
    steps = list(net.steps)
    for number, step in enumerate(steps):
        transition = workflow.net.transitions.get(transition_of(step.name)) if begins(step.name) else None
        if transition is None or transition.guard is None or len(workflow.net.labels[transition.label]) > 1:
            continue
        name = transition.label
        bound = _own_bound(name, transition.guard)
        if bound is not None:
            steps[number] = replace(step, consumes=arcs([*step.consumes, (len(places), 1)]))
            places.append(f"firings left of {name}")
            initial.append(bound)
            capacities.append(None)
    resting = net.resting | set(range(len(net.places), len(places)))
    return replace(
        net,
        places=tuple(places),
        steps=tuple(steps),
        initial=tuple(initial),
        capacities=tuple(capacities),
        resting=frozenset(resting),
    )


def _own_bound(name: str, guard: Guard) -> int | None:
    """How often the transition can fire because it asks how often it has."""
    found = [_BOUND.fullmatch(condition.source.strip()) for condition in guard.conditions]
    own = [match for match in found if match is not None and (match[1] or match[2]) == name]
    bounds = [int(match[4]) + (match[3] == "<=") for match in own]
    bounds += [
        max(rule.value, 0)
        for rule in guard.rules
        if rule.kind == "field_less_than" and rule.paths == (f"case.fired.{name}",) and isinstance(rule.value, int)
    ]
    return min(bounds, default=None)

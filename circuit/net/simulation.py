"""Runs a net in memory until nothing moves: no database, no time passing, actions as plain functions.

For trying a net out and for tests. What fires, in which order and with what result is what the engine would do if
every action ended at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

from circuit.errors import FiringError
from circuit.net.binding import Binding, first_enabled
from circuit.net.firing import Effect, abort, begin, complete, divert, fire
from circuit.net.mapping import map_inputs, merge_inputs, produce
from circuit.net.marking import Marking, Token
from circuit.net.selection import doomed
from circuit.net.structure import Net, Transition

MAX_FIRINGS = 10_000

Act = Callable[[Transition, Mapping[str, Any]], Mapping[str, Any]]
"""Plays an action: from the transition and its inputs to the action's outputs. Raises `FiringError` to fail."""


@dataclass(frozen=True, slots=True)
class Step:
    """One firing: what it took and made; or, where it failed and nothing moved, no effect."""

    transition: str
    binding: Binding
    effect: Effect | None
    error: FiringError | None = None


@dataclass(slots=True)
class Simulation:
    """A net with a marking that `run` moves. `quiet` tells whether it came to rest or was stopped by the limit."""

    net: Net
    now: datetime
    act: Act
    case_id: str = "simulation"
    marking: Marking = field(default_factory=Marking)
    steps: list[Step] = field(default_factory=list[Step])
    fired: dict[str, int] = field(default_factory=dict[str, int])
    quiet: bool = False
    _numbers: count[int] = field(init=False)
    _firings: count[int] = field(default_factory=lambda: count(1))
    _blocked: set[tuple[str, tuple[tuple[int, int], ...]]] = field(default_factory=set[Any])

    def __post_init__(self) -> None:
        self.fired = dict.fromkeys(self.net.labels, 0)
        self._numbers = count(max((token.number for token in self.marking.all()), default=0) + 1)

    def put(self, place: str, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> Token:
        """Lay a new token into a place."""
        token = Token(next(self._numbers), 1, place, data, metadata or {}, self.now)
        self.marking.put(token)
        return token

    def run(self, limit: int = MAX_FIRINGS) -> list[Step]:
        """Fire automatic transitions until none is enabled, or `limit` times; the steps that were made."""
        made: list[Step] = []
        self.quiet = False
        while len(made) < limit:
            binding = first_enabled(self.net, self.marking, self.net.ranks, self.case, self.now, self._blocked)
            if binding is None:
                self.quiet = True
                break
            made.append(self._step(binding))
        self.steps += made
        return made

    @property
    def case(self) -> Mapping[str, Any]:
        """The case as guards and expressions see it."""
        return {
            "id": self.case_id,
            "workflow_id": self.net.name,
            "started_at": self.now.isoformat(),
            "fired": self.fired,
        }

    def _step(self, binding: Binding) -> Step:
        transition = self.net.transitions[binding.transition]
        begun = 0
        try:
            outputs: Mapping[str, Any] = {}
            if transition.acting:
                inputs = self._inputs(transition, binding)
                begun = next(self._firings)
                begin(self.net, self.marking, binding, begun, self.now)
                outputs = self.act(transition, inputs)
            drafts = produce(transition, binding, outputs, self.case)
            removed = doomed(transition, self.marking, binding.consumed, binding.read, self.case)
            if begun:
                effect = complete(self.net, self.marking, binding, drafts, self._numbers, self.now, begun, removed)
            else:
                effect = fire(self.net, self.marking, binding, drafts, self._numbers, self.now, removed)
        except FiringError as error:
            return Step(binding.transition, binding, self._fail(transition, binding, error, begun), error)
        self.fired[transition.label] += 1
        return Step(binding.transition, binding, effect)

    def _inputs(self, transition: Transition, binding: Binding) -> Mapping[str, Any]:
        merged = None
        if transition.input_mapping is None and len(binding.consumed) > 1:
            merged, _ = merge_inputs(binding.consumed, transition.merge)
        return map_inputs(transition.input_mapping, binding.scope(self.case, transition.lists), merged=merged)

    def _fail(self, transition: Transition, binding: Binding, error: FiringError, begun: int) -> Effect | None:
        if begun and transition.on_failure is not None:
            return divert(self.net, self.marking, binding, error.as_dict(), self.now)
        if begun:
            abort(self.net, self.marking, binding, begun, undone=True)
        self._blocked.add((binding.transition, binding.blocks))
        return None

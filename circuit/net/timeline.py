"""Runs one case of a net in virtual time: actions and people take as long as they are told, and nobody waits.

What fires, and in which order, is what the engine would do; several actions run at once. A transition that waits for a
person, a timer or a message fires so long after it was enabled, if it still is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

from circuit.errors import ActionFailed, FiringError
from circuit.net.binding import Binding, first_binding, first_enabled
from circuit.net.firing import abort, begin, complete, divert, fire
from circuit.net.mapping import map_inputs, merge_inputs, produce
from circuit.net.marking import Marking, Token
from circuit.net.structure import Net, Transition, Trigger

MAX_FIRINGS = 10_000

Act = Callable[[Transition, Mapping[str, Any]], Mapping[str, Any]]
"""Plays an action, or the person or message that fires a transition: from the transition and its inputs to what they
say. Raises `FiringError` to fail for good."""

Takes = Callable[[Transition], tuple[float, bool]]
"""How many seconds a transition's action takes, or it waits before it fires; and whether the action then fails for
good."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a case went. `status` is what the engine would say; `endless` where it fired too often to go on."""

    status: str
    seconds: float
    route: tuple[str, ...]
    fired: Mapping[str, int]


@dataclass(slots=True)
class Timeline:
    """One case. `put` its tokens, then `run` it once. Where an action in `optional` fails, its tokens move on without
    what it would have said."""

    net: Net
    begun: datetime
    act: Act
    takes: Takes
    optional: frozenset[str] = frozenset()
    marking: Marking = field(default_factory=Marking)
    _now: datetime = field(init=False)
    _numbers: count[int] = field(default_factory=lambda: count(1))
    _events: list[tuple[datetime, int, str, Binding | None, bool]] = field(default_factory=list[Any])
    _fired: dict[str, int] = field(default_factory=dict[str, int])
    _route: list[str] = field(default_factory=list[str])
    _running: int = 0
    _waiting: set[str] = field(default_factory=set[str])
    _failed: bool = False
    _blocked: set[tuple[str, tuple[tuple[int, int], ...]]] = field(default_factory=set[Any])

    def __post_init__(self) -> None:
        self._now = self.begun
        self._fired = dict.fromkeys(self.net.transitions, 0)

    def put(self, place: str, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
        """Lay a token into a place before the case runs."""
        self.marking.put(Token(next(self._numbers), 1, place, data, metadata or {}, self._now))

    def run(self) -> Ended:
        """Run the case until nothing more will happen."""
        while len(self._route) < MAX_FIRINGS:
            self._settle()
            if (self._ended() and not self._running) or not self._events:
                return self._result(self._status())
            self._now, _, name, binding, fails = heappop(self._events)
            if binding is None:
                self._waiting.discard(name)
                self._awake(name)
            else:
                self._running -= 1
                self._complete(self.net.transitions[name], binding, fails=fails)
        return self._result("endless")

    @property
    def case(self) -> Mapping[str, Any]:
        """The case as guards and expressions see it."""
        return {
            "id": "simulation",
            "workflow_id": self.net.name,
            "started_at": self.begun.isoformat(),
            "fired": self._fired,
        }

    def _settle(self) -> None:
        """Fire what fires at once, begin what acts, and note what waits."""
        while len(self._route) < MAX_FIRINGS:
            binding = first_enabled(self.net, self.marking, self.net.ranks, self.case, self._now, self._blocked)
            if binding is None:
                break
            self._start(self.net.transitions[binding.transition], binding)
        for name, transition in self.net.transitions.items():
            if transition.trigger is Trigger.AUTO or name in self._waiting:
                continue
            if first_binding(self.net, self.marking, name, self.case, self._now, self._blocked) is not None:
                self._waiting.add(name)
                self._schedule(transition, None)

    def _awake(self, name: str) -> None:
        binding = first_binding(self.net, self.marking, name, self.case, self._now, self._blocked)
        if binding is not None:
            self._start(self.net.transitions[name], binding)

    def _start(self, transition: Transition, binding: Binding) -> None:
        if not transition.acting:
            said = {} if transition.trigger is Trigger.AUTO else self.act(transition, {})
            self._finish(transition, binding, said, begun=False)
            return
        # The run of an agent on a place is known by its token alone: no two are on one at once.
        firing = 0 if transition.refresh else len(self._route) + self._running + 1
        begin(self.net, self.marking, binding, firing, self._now)
        self._running += 1
        self._schedule(transition, binding)

    def _schedule(self, transition: Transition, binding: Binding | None) -> None:
        seconds, fails = self.takes(transition)
        due = self._now + timedelta(seconds=seconds)
        heappush(self._events, (due, next(self._numbers), transition.name, binding, fails))

    def _complete(self, transition: Transition, binding: Binding, *, fails: bool) -> None:
        try:
            if fails:
                raise ActionFailed("every attempt failed")
            outputs = self.act(transition, self._inputs(transition, binding))
        except FiringError as error:
            if transition.name in self.optional:
                self._finish(replace(transition, output_mapping=None), binding, {}, begun=True)
            else:
                self._fail(transition, binding, error, begun=True)
            return
        self._finish(transition, binding, outputs, begun=True)

    def _finish(self, transition: Transition, binding: Binding, outputs: Mapping[str, Any], *, begun: bool) -> None:
        try:
            drafts = produce(transition, binding, outputs, self.case)
            rule = complete if begun else fire
            rule(self.net, self.marking, binding, drafts, self._numbers, self._now)
        except FiringError as error:
            self._fail(transition, binding, error, begun=begun)
            return
        self._fired[transition.name] += 1
        self._route.append(transition.name)

    def _fail(self, transition: Transition, binding: Binding, error: FiringError, *, begun: bool) -> None:
        if begun and transition.on_failure is not None:
            divert(self.net, self.marking, binding, error.as_dict(), self._now)
            self._route.append(f"{transition.name} failed")
            return
        if begun:
            abort(self.net, self.marking, binding)
        self._blocked.add((transition.name, binding.blocks))
        self._failed = True

    def _inputs(self, transition: Transition, binding: Binding) -> Mapping[str, Any]:
        merged = None
        if transition.input_mapping is None and len(binding.consumed) > 1:
            merged, _ = merge_inputs(binding.consumed, transition.merge)
        return map_inputs(transition.input_mapping, binding.scope(self.case), merged=merged)

    def _ended(self) -> bool:
        return all(self.net.places[place].terminal for place in self.marking.places())

    def _status(self) -> str:
        held = [self.net.places[place] for place in self.marking.places()]
        if all(place.terminal for place in held):
            return "failed" if any(place.failed for place in held) else "completed"
        if self._failed or any(place.dead_letter for place in held):
            return "attention"
        return "stuck"

    def _result(self, status: str) -> Ended:
        return Ended(status, (self._now - self.begun).total_seconds(), tuple(self._route), dict(self._fired))

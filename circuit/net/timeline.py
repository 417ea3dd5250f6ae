"""Runs one case of a net in virtual time: actions and people take as long as they are told, and nobody waits.

What fires, and in which order, is what the engine would do; several actions run at once. A transition that waits for a
person or a message fires so long after it was enabled, if it still is. Where nothing else happens before, time passes
until a timer is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

from circuit.errors import ActionFailed, FiringError
from circuit.net.binding import Binding, bindings, first_binding, first_enabled, has_room, next_look
from circuit.net.completion import is_complete
from circuit.net.firing import abort, begin, check_drafts, complete, divert, fire
from circuit.net.interruption import Interruption, interruptions
from circuit.net.mapping import map_inputs, merge_inputs, produce
from circuit.net.marking import Marking, Token
from circuit.net.selection import doomed
from circuit.net.structure import Net, Transition, Trigger

MAX_FIRINGS = 10_000
MOST_RUNS = 100
"""Runs of agents on places, one after the other, after which a case that does nothing else is left waiting."""

Act = Callable[[Transition, Mapping[str, Any]], Mapping[str, Any]]
"""Plays an action, or the person or message that fires a transition: from the transition and its inputs to what they
say. Raises `FiringError` to fail for good."""

Takes = Callable[[Transition], tuple[float, bool]]
"""How many seconds a transition's action takes, or it waits before it fires; and whether the action then fails for
good."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a case went. `status` is what the engine would say; `endless` where it fired too often to go on; `faults` are
    what incidents would be raised for, `failures` what failed without one."""

    status: str
    seconds: float
    route: tuple[str, ...]
    fired: Mapping[str, int]
    faults: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


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
    _events: list[tuple[datetime, int, str, int | None, bool]] = field(default_factory=list[Any])
    _fired: dict[str, int] = field(default_factory=dict[str, int])
    _times: dict[str, int] = field(default_factory=dict[str, int])
    _route: list[str] = field(default_factory=list[str])
    _running: dict[int, Binding] = field(default_factory=dict[int, Binding])
    _begun: int = 0
    _idle: int = 0
    _waiting: set[str] = field(default_factory=set[str])
    _faults: list[str] = field(default_factory=list[str])
    _failures: list[str] = field(default_factory=list[str])
    _blocked: set[tuple[str, tuple[tuple[int, int], ...]]] = field(default_factory=set[Any])

    def __post_init__(self) -> None:
        self._now = self.begun
        self._fired = dict.fromkeys(self.net.labels, 0)

    def put(self, place: str, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
        """Lay a token into a place before the case runs."""
        self.marking.put(Token(next(self._numbers), 1, place, data, metadata or {}, self._now))

    def run(self) -> Ended:
        """Run the case until nothing more will happen."""
        while len(self._route) < MAX_FIRINGS:
            self._settle()
            if self._over():
                return self._result(self._status())
            due = self._due()
            if due is not None and (not self._events or due < self._events[0][0]):
                self._now = due
                self._interrupt()
                continue
            if not self._events:
                return self._result(self._status())
            self._now, _, name, firing, fails = heappop(self._events)
            if firing is None:
                self._waiting.discard(name)
                self._awake(name)
            elif firing in self._running:
                # Else it was cancelled meanwhile.
                self._complete(self.net.transitions[name], self._running.pop(firing), firing, fails=fails)
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
            if name in self.net.ranks or transition.trigger is Trigger.AGENT or name in self._waiting:
                continue
            if first_binding(self.net, self.marking, name, self.case, self._now, self._blocked) is not None:
                self._waiting.add(name)
                self._schedule(transition, None)

    def _due(self) -> datetime | None:
        """When time alone makes something happen next."""
        if self._idle >= MOST_RUNS:
            return None
        times = [
            at
            for name in self.net.ranks
            if self.net.transitions[name].timing is not None
            and (at := next_look(self.net, self.marking, name, self.case, self._now, self._blocked)) is not None
        ]
        times += [one.due for one in self._interruptions() if one.due > self._now]
        return min(times, default=None)

    def _interruptions(self) -> list[Interruption]:
        if not self.net.interrupting:
            return []
        return list(interruptions(self.net, self.marking, self._running, self.case, self._now, self._blocked))

    def _interrupt(self) -> None:
        """Timers take what running firings hold: these are cancelled."""
        for due, firing, binding in self._interruptions():
            there = firing in self._running and has_room(self.net, self.marking, binding.transition)
            if due <= self._now and there:
                self._cancel(firing)
                self._start(self.net.transitions[binding.transition], binding)

    def _cancel(self, firing: int) -> Binding:
        binding = self._running.pop(firing)
        abort(self.net, self.marking, binding, self._held_by(binding, firing))
        self._route.append(f"{binding.transition} cancelled")
        return binding

    def _held_by(self, binding: Binding, firing: int) -> int:
        # The run of an agent on a place is known by its token alone: no two are on one at once.
        return 0 if self.net.transitions[binding.transition].refresh else firing

    def _awake(self, name: str) -> None:
        binding = first_binding(self.net, self.marking, name, self.case, self._now, self._blocked)
        if binding is not None:
            self._start(self.net.transitions[name], binding)

    def _start(self, transition: Transition, binding: Binding) -> None:
        if not transition.acting:
            of_itself = transition.name in self.net.ranks or transition.trigger is Trigger.AGENT
            self._finish(transition, binding, {} if of_itself else self.act(transition, {}))
            return
        self._begun += 1
        begin(self.net, self.marking, binding, self._held_by(binding, self._begun), self._now)
        self._running[self._begun] = binding
        self._schedule(transition, self._begun)

    def _schedule(self, transition: Transition, firing: int | None) -> None:
        seconds, fails = self.takes(transition)
        due = self._now + timedelta(seconds=seconds)
        heappush(self._events, (due, next(self._numbers), transition.name, firing, fails))

    def _complete(self, transition: Transition, binding: Binding, firing: int, *, fails: bool) -> None:
        try:
            if fails:
                raise ActionFailed("every attempt failed")
            outputs = self.act(transition, self._inputs(transition, binding))
        except FiringError as error:
            if transition.name in self.optional:
                self._failures.append(f"{transition.name} goes on without its output: {error.message}")
                self._finish(replace(transition, output_mapping=None), binding, {}, firing)
            else:
                self._fail(transition, binding, error, firing)
            return
        self._finish(transition, binding, outputs, firing)

    def _finish(
        self, transition: Transition, binding: Binding, outputs: Mapping[str, Any], firing: int | None = None
    ) -> None:
        try:
            drafts = produce(transition, binding, outputs, self.case)
            check_drafts(self.net, transition, binding, drafts)
        except FiringError as error:
            self._fail(transition, binding, error, firing)
            return
        removed = self._cleared(transition, binding)
        if firing is None:
            fire(self.net, self.marking, binding, drafts, self._numbers, self._now, removed)
        else:
            held = self._held_by(binding, firing)
            complete(self.net, self.marking, binding, drafts, self._numbers, self._now, held, removed)
        self._fired[transition.label] += 1
        self._times[transition.name] = self._times.get(transition.name, 0) + 1
        self._route.append(transition.name)
        self._idle = self._idle + 1 if transition.refresh else 0
        if transition.then is not None and binding.consumed:
            self._fire_next(transition.then, binding.consumed[0].number)

    def _fire_next(self, name: str, number: int) -> None:
        """Fire what an agent names that is done with token `number`, if it is enabled with that token."""
        found = bindings(self.net, self.marking, name, self.case, self._now, blocked=self._blocked)
        binding = next((one for one in found if number in one.numbers), None)
        if binding is not None:
            self._start(self.net.transitions[name], binding)

    def _cleared(self, transition: Transition, binding: Binding) -> list[Token]:
        """What the transition takes without having bound it; the firings that hold some of it are cancelled."""
        if not transition.clears:
            return []
        gone = {token.number for token in doomed(transition, self.marking, binding.consumed, binding.read, self.case)}
        for firing, other in list(self._running.items()):
            inside = other.transition in transition.cancels
            if inside or any(token.number in gone for token in other.consumed):
                self._cancel(firing)
                if inside and not self.net.transitions[other.transition].refresh:
                    gone.update(token.number for token in other.consumed)
        found = (self.marking.get(number) for number in sorted(gone))
        return [token for token in found if token is not None]

    def _fail(self, transition: Transition, binding: Binding, error: FiringError, firing: int | None) -> None:
        if firing is not None and transition.on_failure is not None:
            divert(self.net, self.marking, binding, error.as_dict(), self._now)
            self._route.append(f"{transition.name} failed")
            self._failures.append(f"{transition.name} goes to {transition.on_failure}: {error.message}")
            return
        if firing is not None:
            abort(self.net, self.marking, binding, self._held_by(binding, firing))
        self._blocked.add((transition.name, binding.blocks))
        self._faults.append(f"{transition.name}: {error.message}")

    def _inputs(self, transition: Transition, binding: Binding) -> Mapping[str, Any]:
        merged = None
        if transition.input_mapping is None and len(binding.consumed) > 1:
            merged, _ = merge_inputs(binding.consumed, transition.merge)
        return map_inputs(transition.input_mapping, binding.scope(self.case, transition.lists), merged=merged)

    def _over(self) -> bool:
        """Whether the case ends here, whatever else could happen in it."""
        if any(self.marking.count(place) for place in self.net.ending):
            return True
        holding = any(not self.net.transitions[binding.transition].refresh for binding in self._running.values())
        if holding and self.net.complete_when is None:
            return False
        return is_complete(self.net, self.marking, self.case)

    def _status(self) -> str:
        held = [self.net.places[place] for place in self.marking.places()]
        if any(place.failed for place in held):
            return "failed"
        if any(place.ends_case for place in held) or is_complete(self.net, self.marking, self.case):
            return "completed"
        if self._idle >= MOST_RUNS:
            return "waiting"
        if self._faults or any(place.dead_letter for place in held):
            return "attention"
        return "stuck"

    def _result(self, status: str) -> Ended:
        seconds = (self._now - self.begun).total_seconds()
        return Ended(status, seconds, tuple(self._route), dict(self._times), tuple(self._faults), tuple(self._failures))

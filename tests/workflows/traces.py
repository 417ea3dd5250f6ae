"""Every run of a small net: what people and running actions may do next is tried in every order.

What is immediate fires at once, as the engine has it; actions begin at once and end in any order. A run is told by the
transitions that somebody did: those of people, and those whose action ended. A mark at its end says how it ended: none
where the case is complete, `!` where it is stuck, `...` where it was left.

Messages come at any time. One that nothing waits for is kept; it is told when it comes, and not when it is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

from circuit.definition.workflow import Workflow
from circuit.net.binding import Binding, first_binding, first_enabled
from circuit.net.completion import is_complete
from circuit.net.firing import abort, begin, complete, fire
from circuit.net.mapping import produce
from circuit.net.marking import Marking, Token
from circuit.net.selection import doomed
from circuit.net.structure import Net, Transition, Trigger

NOW = datetime(2030, 1, 1, tzinfo=UTC)

Forms = Mapping[str, Sequence[Mapping[str, Any]]]
"""What people may fill in, by transition."""


@dataclass
class State:
    net: Net
    marking: Marking
    running: dict[int, Binding] = field(default_factory=dict)
    fired: dict[str, int] = field(default_factory=dict)
    number: int = 100
    coming: int = 0
    kept: int = 0

    def copy(self) -> State:
        return replace(self, marking=self.marking.copy(), running=dict(self.running), fired=dict(self.fired))

    @property
    def case(self) -> dict[str, Any]:
        return {"id": "case", "workflow_id": self.net.name, "started_at": NOW.isoformat(), "fired": self.fired}

    @property
    def over(self) -> bool:
        if any(self.marking.count(name) for name in self.net.ending):
            return True
        if self.running and self.net.complete_when is None:
            return False
        return is_complete(self.net, self.marking, self.case)

    def settle(self) -> None:
        """Fire and begin all that does so by itself."""
        while not self.over:
            binding = first_enabled(self.net, self.marking, self.net.ranks, self.case, NOW)
            if binding is None and self.kept:
                waiting = (first_binding(self.net, self.marking, name, self.case, NOW) for name in self.net.receiving)
                binding = next((one for one in waiting if one is not None), None)
                self.kept -= binding is not None
            if binding is None:
                return
            if self.net.transitions[binding.transition].acting:
                self.number += 1
                begin(self.net, self.marking, binding, self.number)
                self.running[self.number] = binding
            else:
                self.fire(binding, {})

    def fire(self, binding: Binding, outputs: Mapping[str, Any], firing: int | None = None) -> None:
        transition = self.net.transitions[binding.transition]
        drafts = produce(transition, binding, outputs, self.case)
        removed, numbers = self.cleared(transition, binding, firing), count(self.number + 1)
        if firing is None:
            fire(self.net, self.marking, binding, drafts, numbers, NOW, removed)
        else:
            del self.running[firing]
            complete(self.net, self.marking, binding, drafts, numbers, NOW, firing, removed)
        self.number += len(drafts) + 1
        self.fired[transition.label] += 1

    def cleared(self, transition: Transition, binding: Binding, firing: int | None) -> list[Token]:
        gone = {token.number for token in doomed(transition, self.marking, binding.consumed, binding.read, self.case)}
        for number, other in list(self.running.items()):
            held = {token.number for token in other.consumed}
            inside = other.transition in transition.cancels
            if number != firing and (inside or held & gone):
                abort(self.net, self.marking, self.running.pop(number), number)
                gone |= held if inside else set()
        return [token for token in self.marking.all() if token.number in gone]

    def next(self, forms: Forms) -> Iterator[tuple[str, State]]:
        """What may be done now, each with the state after it."""
        for number, binding in self.running.items():
            after = self.copy()
            after.fire(binding, {}, number)
            yield self.net.transitions[binding.transition].label, after
        if self.coming:
            yield "signal", replace(self.copy(), coming=self.coming - 1, kept=self.kept + 1)
        for name, transition in self.net.transitions.items():
            if transition.trigger is not Trigger.MANUAL:
                continue
            binding = first_binding(self.net, self.marking, name, self.case, NOW)
            for form in forms.get(transition.label, ({},)) if binding is not None else ():
                after = self.copy()
                after.fire(binding, {"form": form})
                yield transition.label, after


def traces(workflow: Workflow, data: Mapping[str, Any], forms: Forms, most: int = 12, messages: int = 0) -> set[str]:
    """Every run of a case that begins with this token, up to `most` steps, while up to so many messages come."""
    net = workflow.net
    state = State(net, Marking(), fired=dict.fromkeys(net.labels, 0), coming=messages)
    laid = [(token.place, token.data) for token in workflow.initial_tokens]
    first = net.initial_place
    for number, (place, held) in enumerate([*([(first.name, data)] if first else []), *laid], 1):
        state.marking.put(Token(number, 1, place, held, {}, NOW))
    found: set[str] = set()
    pending: list[tuple[tuple[str, ...], State]] = [((), state)]
    while pending:
        done, state = pending.pop()
        state.settle()
        following = [] if state.over else list(state.next(forms))
        if state.over or not following or len(done) == most:
            mark = () if state.over else ("!",) if not following else ("...",)
            found.add(" ".join((*done, *mark)))
            continue
        pending += [((*done, label), after) for label, after in following]
    return found

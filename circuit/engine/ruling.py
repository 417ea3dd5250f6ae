"""What the guards of a workflow say of one token, rule by rule: pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from circuit.engine.memory import Memory
from circuit.net.guard import Guard, Verdict
from circuit.net.marking import Token
from circuit.net.scope import scope_of
from circuit.net.structure import InputArc, Transition


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What one rule or condition says. It is faulty where it has no answer."""

    rule: str
    description: str
    holds: bool
    faulty: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TransitionRuling:
    """What the guard of a transition says. `complete`: enough other tokens lie there for the whole of a binding."""

    transition: str
    complete: bool
    rules: tuple[RuleVerdict, ...]

    @property
    def holds(self) -> bool:
        return all(one.holds for one in self.rules)


def concerned(memory: Memory, place: str) -> list[str]:
    """The transitions that could take or read a token of `place`."""
    return [one.name for one in memory.net.transitions.values() if any(arc.place == place for arc in one.inputs)]


def rulings(memory: Memory, number: int) -> list[TransitionRuling]:
    """What the guard of each transition that could take or read token `number` says of it, together with the first
    other tokens that its arcs ask for."""
    token = memory.marking.get(number)
    if token is None:
        return []
    return [_ruling(memory, memory.net.transitions[name], token) for name in concerned(memory, token.place)]


def _ruling(memory: Memory, transition: Transition, token: Token) -> TransitionRuling:
    taken: set[int] = set()
    placed = False
    bound: dict[bool, list[Token]] = {True: [], False: []}
    complete = True
    for arcs, consuming in ((transition.consumes, True), (transition.reads, False)):
        for arc in arcs:
            found = list(_tokens(memory, arc, taken, None if placed else token))
            placed = placed or token in found
            taken.update(one.number for one in found)
            bound[consuming] += found
            complete = complete and len(found) == arc.weight
    scope = scope_of(bound[True], bound[False], memory.case)
    guard = transition.guard or Guard()
    rules = [_verdict(str(rule), rule.description, Guard((rule,), ()).judge(scope)) for rule in guard.rules] + [
        _verdict(condition.source, "", Guard((), (condition,)).judge(scope)) for condition in guard.conditions
    ]
    return TransitionRuling(transition.name, complete, tuple(rules))


def _tokens(memory: Memory, arc: InputArc, taken: set[int], token: Token | None) -> Iterator[Token]:
    """What an arc would bind: `token` first, where it lies there, then the lowest others."""
    wanted = arc.weight
    if token is not None and token.place == arc.place:
        yield token
        wanted -= 1
    for other in memory.marking.tokens(arc.place):
        if wanted <= 0:
            return
        if other.number not in taken and other != token and memory.marking.reserved_by(other.number) is None:
            yield other
            wanted -= 1


def _verdict(rule: str, description: str, verdict: Verdict) -> RuleVerdict:
    return RuleVerdict(rule, description, verdict.holds, verdict.faulty, verdict.reasons)

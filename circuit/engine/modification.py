"""Changes of a live case by hand, as one: tokens that are put, taken, moved and given other data. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from circuit.engine.draft import Draft
from circuit.engine.memory import LiveFiring, Memory
from circuit.engine.payload import PayloadFault, PayloadOversize, storable
from circuit.engine.persons import require_places
from circuit.engine.repair import patched, refused, settle
from circuit.engine.token_change import TokenChange, by_token
from circuit.errors import ColourMismatch, Conflict, InvalidRequest, NetError, PayloadTooLarge
from circuit.events import TokensChanged
from circuit.net import firing as rule
from circuit.net.marking import Marking, Token
from circuit.security.principal import Principal

MOST_CHANGES = 1_000
LONGEST_REASON = 1_000
REASON = "modified"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to put into a place."""

    place: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Move(NamedTuple):
    """A token, by its number, and the place to put it into."""

    token: int
    place: str


@dataclass(frozen=True, slots=True)
class Modification:
    """What is to change, and why. With `cancel_firings`, firings that hold tokens which change are cancelled."""

    reason: str
    put: Sequence[NewToken] = ()
    take: Sequence[int] = ()
    move: Sequence[Move] = ()
    changes: Sequence[TokenChange] = ()
    cancel_firings: bool = False

    def as_payload(self) -> dict[str, Any]:
        """As a command carries it. Raises `InvalidRequest`, `PayloadTooLarge`."""
        count = len(self.put) + len(self.take) + len(self.move) + len(self.changes)
        if not count:
            raise InvalidRequest("nothing is to change: put, take, move or set at least one token")
        if count > MOST_CHANGES:
            raise InvalidRequest(
                f"a case is modified by {MOST_CHANGES:,} changes at a time, not by {count:,}: ask for them in parts"
            )
        if not self.reason.strip() or len(self.reason) > LONGEST_REASON:
            raise InvalidRequest(f"a modification needs a reason, of {LONGEST_REASON:,} characters at most")
        twice = {n for n in self.take if list(self.take).count(n) > 1 or any(n == move.token for move in self.move)}
        twice |= {move.token for move in self.move if sum(move.token == one.token for one in self.move) > 1}
        if twice:
            raise InvalidRequest(f"token {min(twice)} is taken or moved twice")
        payload = {
            "reason": self.reason,
            "put": [{"place": one.place, "data": dict(one.data), "metadata": dict(one.metadata)} for one in self.put],
            "take": list(self.take),
            "move": [move._asdict() for move in self.move],
            "set": [change.as_dict() for change in self.changes],
            "cancel_firings": self.cancel_firings,
        }
        try:
            return storable(payload)
        except PayloadFault as fault:
            told = {"faults": list(fault.faults)}
            raise InvalidRequest(f"the modification cannot be stored: {fault}", details=told) from None
        except PayloadOversize as oversize:
            raise PayloadTooLarge(f"the modification is too large: {oversize}") from None

    @classmethod
    def of_payload(cls, payload: Mapping[str, Any]) -> Modification:
        """What a command carries. Raises `InvalidRequest` for one that is none."""
        try:
            return cls(
                str(payload["reason"]),
                [NewToken(one["place"], dict(one["data"]), dict(one["metadata"])) for one in payload["put"]],
                [int(number) for number in payload["take"]],
                [Move(int(one["token"]), one["place"]) for one in payload["move"]],
                [TokenChange(one["path"], one["value"], one["token"], one["place"]) for one in payload["set"]],
                bool(payload["cancel_firings"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"a command of the kind modify has no {error}") from None

    def places(self) -> set[str]:
        """The places that it names."""
        named = {one.place for one in self.put} | {move.place for move in self.move}
        return named | {change.place for change in self.changes if change.place is not None}


def modify(
    memory: Memory, wanted: Modification, principal: Principal, draft: Draft, cancel: Callable[[LiveFiring], None]
) -> dict[str, Any]:
    """Change the case, all of it or nothing. `cancel` ends a firing that holds what changes.

    Raises `InvalidRequest`, `TokenRefused`, and `Conflict` where a token is not there, a place is full, or a firing
    holds what would change and may not be cancelled, and `Forbidden` where a place of what changes is for others.
    """
    unknown = sorted(wanted.places() - memory.net.places.keys())
    if unknown:
        raise InvalidRequest(f"workflow {memory.row.workflow_id} has no place {unknown[0]!r}")
    taken = [_present(memory, number) for number in wanted.take]
    changed = _changed(memory, wanted)
    for token in taken:
        if token.number in {one.number for one in changed}:
            raise InvalidRequest(f"token {token.number} is taken: nothing of it can be set")
    before = [_present(memory, token.number).place for token in changed]
    after = [one.place for one in (*taken, *changed, *wanted.put)]
    require_places(memory.net, [*before, *after], principal)
    holding = _holding(memory, [*taken, *changed], wanted)
    first = memory.row.next_token
    put = [Token(first + n, 1, one.place, one.data, one.metadata, draft.now) for n, one in enumerate(wanted.put)]
    trial = memory.marking.copy()
    for live in holding:
        rule.abort(memory.net, trial, live.binding, live.row.number)
    _rearrange(memory, trial, draft, taken, changed, put)
    for live in holding:
        cancel(live)
    effect = _rearrange(memory, memory.marking, draft, taken, changed, put)
    memory.row = replace(memory.row, next_token=first + len(put))
    settle(memory, effect, draft)
    draft.record(TokensChanged(effect.consumed, effect.produced, REASON, principal.subject, note=wanted.reason))
    return {
        "put": [token.number for token in put],
        "taken": [token.number for token in taken],
        "changed": [token.number for token in changed],
        "cancelled": [live.row.number for live in holding],
    }


def _changed(memory: Memory, wanted: Modification) -> list[Token]:
    """The tokens that are moved or get other data, as they will be but for their versions."""
    tokens = {token.number: token for token in memory.marking.all()}
    changed = {move.token: replace(_present(memory, move.token), place=move.place) for move in wanted.move}
    for number, values in by_token(tokens, wanted.changes).items():
        changed[number] = patched(changed.get(number, tokens[number]), values)
    return list(changed.values())


def _holding(memory: Memory, tokens: Sequence[Token], wanted: Modification) -> list[LiveFiring]:
    """The firings that hold some of `tokens`. Raises `Conflict` where they may not be cancelled."""
    held = {
        token.number: firing for token in tokens if (firing := memory.marking.reserved_by(token.number)) is not None
    }
    if held and not wanted.cancel_firings:
        number, firing = next(iter(held.items()))
        live = memory.firings[firing]
        raise Conflict(
            f"case {memory.key}: token {number} is held by firing {firing} of {live.row.transition}, which is"
            f" {live.row.state.value}: wait for its end, or ask for it to be cancelled (`--cancel-firings`)"
        )
    return [memory.firings[firing] for firing in sorted(set(held.values()))]


def _rearrange(
    memory: Memory,
    marking: Marking,
    draft: Draft,
    taken: Sequence[Token],
    changed: Sequence[Token],
    put: Sequence[Token],
) -> rule.Effect:
    try:
        return rule.rearrange(memory.net, marking, draft.now, taken=taken, changed=changed, put=put)
    except (NetError, ColourMismatch) as error:
        raise refused(memory, error) from None


def _present(memory: Memory, number: int) -> Token:
    token = memory.marking.get(number)
    if token is None:
        listed = ", ".join(f"{one.number} in {one.place}" for one in memory.marking.all()[:10])
        raise Conflict(f"case {memory.key} has no token {number}; its tokens are {listed or 'none'}")
    return token

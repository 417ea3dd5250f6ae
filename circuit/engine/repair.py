"""What somebody puts right in a case by hand: the data of tokens that an incident is about, and tokens that lie in a
dead-letter place. Pure, as the owner is; whatever cannot be done is refused, and then nothing has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from circuit.engine.draft import Draft
from circuit.engine.memory import Memory
from circuit.engine.payload import PayloadFault, PayloadOversize, storable
from circuit.engine.persons import require_places
from circuit.errors import (
    CircuitError,
    ColourMismatch,
    Conflict,
    InvalidRequest,
    NetError,
    PayloadTooLarge,
    TokenRefused,
)
from circuit.events import TokensChanged
from circuit.expressions.path import Path, assign
from circuit.net import firing as rule
from circuit.net.marking import Token
from circuit.security.principal import Principal

PARTS = ("data", "metadata")


def patch_incident(
    memory: Memory, number: int, changes: Mapping[str, Any], only: int | None, principal: Principal, draft: Draft
) -> None:
    """Change the tokens that incident `number` is about (or only token `only`): `changes` are values by dotted path.

    Raises `InvalidRequest`, `Conflict` where a token has moved on, `TokenRefused` where its place refuses the data,
    and `Forbidden` where the place is for others.
    """
    incident = memory.incidents[number]
    about = [token for token, _ in incident.blocks if only in (None, token)]
    if not about:
        which = f"not about token {only}" if only is not None else "about no token"
        raise InvalidRequest(f"incident {number} is {which}: there is no data to change")
    tokens = [patched(_present(memory, token), changes) for token in about]
    require_places(memory.net, [token.place for token in tokens], principal)
    _change(memory, tokens, "patched", principal.subject, draft, incident=number)


def put_back(memory: Memory, only: int | None, place: str | None, principal: Principal, draft: Draft) -> list[int]:
    """Put the tokens of dead-letter places (or only token `only`) back to where they were taken from, or to `place`.

    Raises `InvalidRequest`, `Conflict`, `TokenRefused` where the place refuses the data, and `Forbidden` where a place
    is for others. Returns their numbers.
    """
    if place is not None and place not in memory.net.places:
        raise InvalidRequest(f"workflow {memory.row.workflow_id} has no place {place!r}")
    dead = [
        token
        for name in memory.marking.places()
        if memory.net.places[name].dead_letter
        for token in memory.marking.tokens(name)
        if only in (None, token.number) and memory.marking.reserved_by(token.number) is None
    ]
    if not dead:
        which = "no tokens lie" if only is None else f"token {only} does not lie"
        raise Conflict(f"case {memory.key}: {which} in a dead-letter place: there is nothing to put back")
    tokens = [replace(token, place=_origin(memory, token, place), metadata=_forgiven(token)) for token in dead]
    require_places(memory.net, [token.place for token in (*dead, *tokens)], principal)
    _change(memory, tokens, "put_back", principal.subject, draft)
    return [token.number for token in dead]


def _present(memory: Memory, number: int) -> Token:
    token = memory.marking.get(number)
    if token is None:
        raise Conflict(f"token {number} of case {memory.key} is not there any more")
    return token


def patched(token: Token, changes: Mapping[str, Any]) -> Token:
    """The token with other values at these dotted paths. Raises `InvalidRequest`, `PayloadTooLarge`."""
    root: dict[str, Any] = {"data": token.data, "metadata": token.metadata}
    for name, value in changes.items():
        if name.partition(".")[0] not in PARTS or name in PARTS:
            raise InvalidRequest(f"{name!r} cannot be set: a path begins with 'data.' or 'metadata.'")
        try:
            root = assign(root, Path.parse(name), value)
        except ValueError as error:
            raise InvalidRequest(f"{name!r} cannot be set: {error}") from None
    try:
        data, metadata = storable([root["data"], root["metadata"]])
    except PayloadFault as fault:
        raise InvalidRequest(f"the change cannot be stored: {fault}", details={"faults": list(fault.faults)}) from None
    except PayloadOversize as oversize:
        raise PayloadTooLarge(f"token {token.number} would be too large: {oversize}") from None
    return replace(token, data=data, metadata=metadata)


def _origin(memory: Memory, token: Token, place: str | None) -> str:
    failure: Any = token.metadata.get("failure")
    origin = failure.get("place") if place is None and isinstance(failure, dict) else place
    if not isinstance(origin, str) or origin not in memory.net.places:
        raise InvalidRequest(
            f"it is not known where token {token.number} was taken from: name the place to put it into"
        )
    return origin


def _forgiven(token: Token) -> dict[str, Any]:
    return {name: value for name, value in token.metadata.items() if name != "failure"}


def _change(
    memory: Memory, tokens: Sequence[Token], reason: str, principal: str, draft: Draft, *, incident: int | None = None
) -> None:
    """All of them or none."""
    try:
        effect = rule.rearrange(memory.net, memory.marking, draft.now, changed=tokens)
    except (NetError, ColourMismatch) as error:
        raise refused(memory, error) from None
    settle(memory, effect, draft)
    draft.record(TokensChanged(effect.consumed, effect.produced, reason, principal, incident))


def refused(memory: Memory, error: NetError | ColourMismatch) -> CircuitError:
    """Why the net of a case does not take a change by hand, as whoever asked for it is told."""
    if isinstance(error, ColourMismatch):
        return TokenRefused(error.message, details=error.details)
    return Conflict(f"case {memory.key}: {error}")


def settle(memory: Memory, effect: rule.Effect, draft: Draft) -> None:
    """Take what was changed by hand into the draft, and look anew at all that it may have enabled."""
    for number, version in effect.takes:
        draft.touch(number, version)
    for token, from_version in effect.moves:
        draft.touch(token.number, from_version)
    for token in effect.puts:
        draft.touch(token.number, None)
    memory.agenda.everything()

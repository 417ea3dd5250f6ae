"""The firing rule: `begin`, then `complete`, `abort` or `divert`; `fire` where there is nothing in between.

`begin` reserves the tokens of a binding and room in every target, so that `complete` never fails for lack of room.
Every function here either does all that it says or raises and leaves the marking as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from circuit.errors import ColourMismatch, NetError
from circuit.events import TokenImage, TokenRef
from circuit.net import refresh
from circuit.net.binding import Binding, has_room
from circuit.net.mapping import Draft
from circuit.net.marking import Marking, Token
from circuit.net.structure import Net, Place, Transition
from circuit.value import dataclass, replace


@dataclass(frozen=True, slots=True)
class Effect:
    """What a firing did to the marking: for the history (`consumed`, `produced`, `removed`) and for the rows of tokens.

    `moves` holds tokens that kept their number, with the version that they had before; `takes` holds (number, version).
    `removed` are tokens that it took without having bound them. `superseded` is a refresh whose token was not there any
    more as it had been read.
    """

    consumed: tuple[TokenRef, ...]
    produced: tuple[TokenImage, ...]
    puts: tuple[Token, ...] = ()
    moves: tuple[tuple[Token, int], ...] = ()
    takes: tuple[tuple[int, int], ...] = ()
    superseded: bool = False
    removed: tuple[TokenRef, ...] = ()

    @property
    def made(self) -> list[Token]:
        """The tokens that lie there now and did not before, at this version."""
        return [*self.puts, *(token for token, _ in self.moves)]


def begin(
    net: Net, marking: Marking, binding: Binding, firing: int, now: datetime | None = None, *, asked: bool = False
) -> None:
    """Reserve the binding's consumed tokens for the firing, and room in its targets; a refresh only notes that it runs,
    and is due now if somebody `asked` for it. Raises `NetError` where a token is not there any more as it was bound, is
    reserved, or there is no room."""
    _check_free(marking, binding.consumed)
    _check_free(marking, binding.read)
    transition = net.transitions[binding.transition]
    if transition.refresh:
        assert now is not None
        refresh.begin(transition, marking, binding, firing, now, asked=asked)
        return
    if not has_room(net, marking, binding.transition):
        raise NetError(f"{binding.transition} has no room in a target")
    _reserve(net, marking, binding, firing)


def reinstate(net: Net, marking: Marking, binding: Binding, firing: int) -> None:
    """Reserve again what a live firing had reserved before its case was loaded. Nothing but the consumed tokens is
    judged anew: the firing began rightly. Raises `NetError` where a token is not there, or is reserved."""
    if net.transitions[binding.transition].refresh:
        return
    _check_free(marking, binding.consumed)
    _reserve(net, marking, binding, firing)


def complete(
    net: Net,
    marking: Marking,
    binding: Binding,
    drafts: Sequence[Draft],
    numbers: Iterator[int],
    now: datetime,
    firing: int = 0,
    removed: Sequence[Token] = (),
) -> Effect:
    """Consume what `begin` reserved and produce the drafts. Raises `ColourMismatch` for a draft that its place refuses.

    `numbers` gives the numbers of new tokens; a token that goes through one in, one out keeps its own. `removed` are
    free tokens that it takes beside: what `doomed` tells of, once the firings that hold some of them are aborted.
    """
    transition = net.transitions[binding.transition]
    if transition.refresh:
        return _refreshed(net, marking, binding, drafts, firing)
    _check_reserved(marking, binding)
    _check_free(marking, removed)
    check_drafts(net, transition, binding, drafts)
    _release_room(net, marking, binding.transition)
    return _exchange(transition, marking, binding, drafts, numbers, now, removed)


def fire(
    net: Net,
    marking: Marking,
    binding: Binding,
    drafts: Sequence[Draft],
    numbers: Iterator[int],
    now: datetime,
    removed: Sequence[Token] = (),
) -> Effect:
    """Begin and complete at once. Raises what these raise."""
    _check_free(marking, binding.consumed)
    if binding.read:
        _check_free(marking, binding.read)
    if removed:
        _check_free(marking, removed)
    if not has_room(net, marking, binding.transition):
        raise NetError(f"{binding.transition} has no room in a target")
    transition = net.transitions[binding.transition]
    check_drafts(net, transition, binding, drafts)
    return _exchange(transition, marking, binding, drafts, numbers, now, removed)


def abort(net: Net, marking: Marking, binding: Binding, firing: int = 0, *, undone: bool = False) -> tuple[Token, ...]:
    """Undo a `begin`: the tokens are free again and the room is given back. A refresh has run, unless it is `undone`.
    Returns the tokens that changed."""
    transition = net.transitions[binding.transition]
    if transition.refresh:
        changed = refresh.end(transition, marking, binding.consumed[0], firing, undone=undone)
        return () if changed is None else (changed,)
    _check_reserved(marking, binding)
    _release_room(net, marking, binding.transition)
    for token in binding.consumed:
        marking.release(token.number)
    return binding.consumed


def divert(net: Net, marking: Marking, binding: Binding, failure: Mapping[str, Any], now: datetime) -> Effect:
    """Move the tokens of a firing that failed for good to its `on_failure` place.

    Each keeps its number and its data, gets the next version, and tells in `metadata.failure` what went wrong:
    `failure` (its code and message), the transition, and the place that it was taken from. The place's colour is not
    asked: a token that cannot be parked would be worse than one that does not fit. Raises `NetError` where the
    transition has no such place.
    """
    _check_reserved(marking, binding)
    place = net.transitions[binding.transition].on_failure
    if place is None:
        raise NetError(f"{binding.transition} has no on_failure place")
    _release_room(net, marking, binding.transition)
    note = {**failure, "transition": binding.transition}
    moves: list[tuple[Token, int]] = []
    for token in binding.consumed:
        metadata = {**token.metadata, "failure": {**note, "place": token.place}}
        moved = Token(token.number, token.version + 1, place, token.data, metadata, now)
        marking.move(moved)
        moves.append((moved, token.version))
    return Effect(binding.consumed_refs, tuple(_image(moved) for moved, _ in moves), moves=tuple(moves))


def rearrange(
    net: Net,
    marking: Marking,
    now: datetime,
    *,
    taken: Sequence[Token] = (),
    changed: Sequence[Token] = (),
    put: Sequence[Token] = (),
) -> Effect:
    """Change a marking by hand, all of it or nothing: take tokens out, put each of `changed` in the stead of the free
    token of its number and version (with other data, or in another place), as its next version, and lay new ones.

    Raises `NetError` where a token is not there any more, is reserved, or a place would hold too many, and
    `ColourMismatch` where a place refuses the data.
    """
    olds = [_free_token(marking, token) for token in (*taken, *changed)]
    arrived = [*changed, *put]
    _check_places(net, marking, olds, arrived)
    for token in arrived:
        _check_colour(net.places[token.place], token)
    moves: list[tuple[Token, int]] = []
    for token, old in zip(changed, olds[len(taken) :], strict=True):
        stays = token.place == old.place
        new = Token(
            old.number,
            old.version + 1,
            token.place,
            token.data,
            token.metadata,
            old.entered_at if stays else now,
            old.available_at if stays else None,
            old.runs if stays else None,
        )
        moves.append((new, old.version))
    for old in olds:
        marking.take(old.number)
    for token in (*(new for new, _ in moves), *put):
        marking.put(token)
    return Effect(
        tuple(TokenRef(old.number, old.version, old.place) for old in olds),
        (*(_image(new) for new, _ in moves), *(_image(token) for token in put)),
        puts=tuple(put),
        moves=tuple(moves),
        takes=tuple((token.number, token.version) for token in olds[: len(taken)]),
    )


def _free_token(marking: Marking, token: Token) -> Token:
    found = marking.get(token.number)
    if found is None or found.version != token.version:
        raise NetError(f"token {token.number} is not there at version {token.version} any more")
    firing = marking.reserved_by(token.number)
    if firing is not None:
        raise NetError(f"token {token.number} is reserved by firing {firing}")
    return found


def _check_places(net: Net, marking: Marking, leaving: Sequence[Token], coming: Sequence[Token]) -> None:
    more = Counter(token.place for token in coming)
    more.subtract(token.place for token in leaving)
    for name, count in more.items():
        capacity = net.places[name].capacity
        if capacity is None or count <= 0:
            continue
        if marking.count(name) + marking.room_reserved(name) + count > capacity:
            raise NetError(f"{name} takes {capacity}, and that many lie there or are on their way")


def _check_colour(place: Place, token: Token) -> None:
    faults = place.colour.faults(token.data) if place.colour is not None else ()
    if place.colour is not None and faults:
        raise ColourMismatch(
            f"token {token.number} would be no {place.colour.name} in {place.name}: {'; '.join(faults)}",
            details={"place": place.name, "colour": place.colour.name, "faults": list(faults)},
        )


def _refreshed(net: Net, marking: Marking, binding: Binding, drafts: Sequence[Draft], firing: int) -> Effect:
    transition = net.transitions[binding.transition]
    token = refresh.lying(transition, marking, binding)
    if token is None:
        changed = refresh.end(transition, marking, binding.consumed[0], firing)
        moves = () if changed is None else ((changed, changed.version),)
        return Effect((), (), moves=moves, superseded=True)
    check_drafts(net, transition, binding, drafts)
    patched = refresh.patch(transition, marking, token, drafts[0], firing)
    return Effect(binding.consumed_refs, (_image(patched),), moves=((patched, token.version),))


def _exchange(
    transition: Transition,
    marking: Marking,
    binding: Binding,
    drafts: Sequence[Draft],
    numbers: Iterator[int],
    now: datetime,
    removed: Sequence[Token],
) -> Effect:
    consumed = binding.consumed
    if removed:
        gone = tuple([TokenRef(token.number, token.version, token.place) for token in removed])
        for token in removed:
            marking.take(token.number)
        effect = _exchange(transition, marking, binding, drafts, numbers, now, ())
        takes = (*effect.takes, *((ref.number, ref.version) for ref in gone))
        return replace(effect, takes=takes, removed=gone)
    if transition.keeps_identity:
        old, draft = consumed[0], drafts[0]
        token = Token(old.number, old.version + 1, draft.place, draft.data, draft.metadata, now)
        more = [Token(next(numbers), 1, draft.place, draft.data, draft.metadata, now) for draft in drafts[1:]]
        marking.move(token)
        for record in more:
            marking.put(record)
        images = (_image(token), *(_image(record, (old.number,)) for record in more))
        return Effect(binding.consumed_refs, images, puts=tuple(more), moves=((token, old.version),))
    # The numbers are drawn before the marking is touched: drawing may raise.
    made = [Token(next(numbers), 1, draft.place, draft.data, draft.metadata, now) for draft in drafts]
    for token in made:
        if token.number in marking:
            raise NetError(f"there is already a token {token.number}")
    for token in consumed:
        marking.take(token.number)
    for token in made:
        marking.put(token)
    parents = tuple([token.number for token in consumed])
    return Effect(
        binding.consumed_refs,
        tuple([_image(token, parents) for token in made]),
        puts=tuple(made),
        takes=binding.blocks,
    )


def _image(token: Token, parents: tuple[int, ...] = ()) -> TokenImage:
    return TokenImage(token.number, token.version, token.place, token.data, token.metadata, parents)


def _reserve(net: Net, marking: Marking, binding: Binding, firing: int) -> None:
    for token in binding.consumed:
        marking.reserve(token.number, firing)
    for room in net.rooms[binding.transition]:
        marking.reserve_room(room.place, room.extra)


def _release_room(net: Net, marking: Marking, transition: str) -> None:
    for room in net.rooms[transition]:
        marking.release_room(room.place, room.extra)


def _check_free(marking: Marking, tokens: Sequence[Token]) -> None:
    for token in tokens:
        present = marking.get(token.number)
        if present is None or present.version != token.version or present.place != token.place:
            raise NetError(f"token {token.number} does not lie in {token.place} at version {token.version} any more")
        firing = marking.reserved_by(token.number)
        if firing is not None:
            raise NetError(f"token {token.number} is reserved by firing {firing}")


def _check_reserved(marking: Marking, binding: Binding) -> None:
    firings: set[int | None] = set()
    for token in binding.consumed:
        present = marking.get(token.number)
        if present is None or present.version != token.version:
            raise NetError(f"token {token.number} is not there at version {token.version}")
        firings.add(marking.reserved_by(token.number))
    if None in firings or len(firings) > 1:
        raise NetError(f"the tokens of {binding.transition} are not reserved by one firing")


def check_drafts(net: Net, transition: Transition, binding: Binding, drafts: Sequence[Draft]) -> None:
    """Raises `ColourMismatch` for a draft that its place refuses, and `NetError` for too few or too many of them."""
    consumed = binding.consumed
    least = transition.produced
    if not least <= len(drafts) <= least + (transition.record is not None) and not transition.fans_out:
        raise NetError(f"{transition.name} was given {len(drafts)} tokens to produce")
    for draft in drafts:
        colour = net.places[draft.place].colour
        if colour is None:
            continue
        # Data that is passed on as it was, between places of one colour, has been checked when it came.
        if any(token.data is draft.data and net.places[token.place].colour is colour for token in consumed):
            continue
        faults = colour.faults(draft.data)
        if faults:
            raise ColourMismatch(
                f"{transition.name} would put a token into {draft.place} that is no {colour.name}: {'; '.join(faults)}",
                details={"place": draft.place, "colour": colour.name, "faults": list(faults)},
            )

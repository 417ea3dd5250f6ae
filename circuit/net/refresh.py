"""Refreshing: an agent runs on a token that stays where it lies.

Nothing is reserved: other transitions may take the token meanwhile. What the agent did is noted on the token itself
(`Token.runs`), in the commit that begins the run, so that whatever dies, each time of a stay has one run. A token that
is still there as it was read is patched, and keeps its number, place and time of arrival; of any other, the result is
superseded.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from circuit.errors import NetError
from circuit.net.binding import Binding
from circuit.net.mapping import Draft
from circuit.net.marking import Marking, Run, Token
from circuit.net.structure import Transition


def begin(
    transition: Transition, marking: Marking, binding: Binding, firing: int, now: datetime, *, asked: bool = False
) -> None:
    """Note that the run begins; one that somebody asked for is due now. Raises `NetError` where it is not due."""
    token = binding.consumed[0]
    assert transition.timing is not None
    due = now if asked else transition.timing.due((token,), (), {}, now)
    if due is None or due > now:
        raise NetError(f"{transition.name} is not due on token {token.number}")
    run = (token.runs or {}).get(transition.name)
    _note(marking, token, transition.name, Run(run.count + 1 if run is not None else 1, due, firing))


def lying(transition: Transition, marking: Marking, binding: Binding) -> Token | None:
    """The token if it still lies there as it was read."""
    read = binding.consumed[0]
    token = marking.get(read.number)
    if token is None or (token.version, token.place) != (read.version, read.place):
        return None
    return token if marking.reserved_by(token.number) is None else None


def patch(transition: Transition, marking: Marking, token: Token, draft: Draft, firing: int) -> Token:
    """Put what the agent made of a token into its stead, and note that the run is over."""
    patched = replace(token, version=token.version + 1, data=draft.data, metadata=draft.metadata)
    marking.replace(patched)
    end(transition, marking, patched, firing)
    found = marking.get(token.number)
    assert found is not None
    return found


def end(transition: Transition, marking: Marking, read: Token, firing: int, *, undone: bool = False) -> Token | None:
    """Note that a run is over, on a token that still has it; `undone` has it tried again. The token that changed."""
    token = marking.get(read.number)
    run = None if token is None else (token.runs or {}).get(transition.name)
    if token is None or run is None or run.firing != firing:
        return None
    return _note(marking, token, transition.name, None if undone else replace(run, firing=None))


def _note(marking: Marking, token: Token, name: str, run: Run | None) -> Token:
    runs = {one: known for one, known in (token.runs or {}).items() if one != name}
    if run is not None:
        runs[name] = run
    # Empty, and not None: the row has something to take back.
    noted = replace(token, runs=runs)
    marking.replace(noted)
    return noted

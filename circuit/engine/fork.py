"""What a fork begins with: the tokens that its origin had after one of its events, with what is changed of them. Pure.

A fork is a case of its own. Whatever was under way in its origin lets go of its tokens, so that it begins anew;
whatever had ended has left its tokens and is not done again. Time goes on from where it stood: what had waited for ten
minutes has waited for ten minutes, whenever the fork is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from circuit.definition.workflow import Workflow
from circuit.engine.audit.replay import Replay
from circuit.engine.repair import patched
from circuit.engine.token_change import TokenChange, by_token
from circuit.errors import TokenRefused
from circuit.events import Origin
from circuit.ids import CaseKey
from circuit.net.marking import Run, Token
from circuit.storage.records import FiringRow


def fork_tokens(
    workflow: Workflow,
    replay: Replay,
    firings: Iterable[FiringRow],
    changes: Sequence[TokenChange],
    at: datetime,
    now: datetime,
) -> list[Token]:
    """The tokens that the case of `replay` had at `at`, as a fork has them `now`: each keeps its number, and begins at
    version 1. `firings` are the rows of its firings.

    Raises `InvalidRequest`, `PayloadTooLarge`, and `TokenRefused` where a place refuses what is changed.
    """
    shift = now - at
    runs = _runs(replay, firings, shift)
    tokens = {
        token.number: replace(token, version=1, entered_at=token.entered_at + shift, runs=runs.get(token.number))
        for token in sorted(replay.marking.all(), key=lambda token: token.number)
    }
    for number, values in by_token(tokens, changes).items():
        tokens[number] = _changed(workflow, tokens[number], values)
    return list(tokens.values())


def origin_of(key: CaseKey, seq: int, tokens: Sequence[Token], fired: Mapping[str, int]) -> Origin:
    """What the first event of a fork says of its origin, where it begins with these tokens."""
    runs = {
        str(token.number): {name: run.as_json() for name, run in token.runs.items()} for token in tokens if token.runs
    }
    return Origin(str(key.case), seq, tuple(token.entered_at for token in tokens), fired, runs)


def _changed(workflow: Workflow, token: Token, values: Mapping[str, Any]) -> Token:
    changed = patched(token, values)
    colour = workflow.net.places[token.place].colour
    if colour is not None and (faults := colour.faults(changed.data)):
        raise TokenRefused(
            f"token {token.number} would not fit place {token.place} (colour {colour.name}): {'; '.join(faults)}",
            details={"faults": list(faults)},
        )
    return changed


def _runs(replay: Replay, firings: Iterable[FiringRow], shift: timedelta) -> dict[int, dict[str, Run]]:
    """What the agents of places had done by then on the stays of the tokens that were there."""
    found: dict[int, dict[str, Run]] = {}
    started = replay.started
    for number, runs in (started.origin.runs if started is not None and started.origin is not None else {}).items():
        token = replay.marking.get(int(number))
        if started is not None and token is not None and replay.arrivals[token.number] == 1:
            # It lies where it lay when this case, a fork itself, began.
            begun = next(image for image in started.produced if image.number == token.number)
            found[token.number] = {_named(name, begun.place, token): Run.of_json(run) for name, run in runs.items()}
    for row in sorted(firings, key=lambda row: row.number):
        told = replay.firings.get(row.number)
        if told is None or told.live or not row.request.get("refreshed"):
            continue
        (image,) = row.request["refreshed"]
        token = replay.marking.get(image["number"])
        if token is None or image["version"] < replay.arrivals[token.number]:
            continue
        runs, name = found.setdefault(token.number, {}), _named(row.transition, image["place"], token)
        if told.incident:
            # What raised an incident is tried again.
            runs.pop(name, None)
            continue
        before = runs.get(name)
        runs[name] = Run(1 if before is None else before.count + 1, datetime.fromisoformat(row.request["due"]))
    return {
        number: {name: replace(run, due=run.due + shift) for name, run in runs.items()}
        for number, runs in found.items()
        if runs
    }


def _named(transition: str, place: str, token: Token) -> str:
    """An agent of a place, by the name that the place has now: the case may have been migrated meanwhile."""
    return transition if place == token.place else transition.replace(f"@{place}", f"@{token.place}")

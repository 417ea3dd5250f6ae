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
    for row in sorted(firings, key=lambda row: row.number):
        told = replay.firings.get(row.number)
        if told is None or told.live or not row.request.get("refreshed"):
            continue
        (image,) = row.request["refreshed"]
        token = replay.marking.get(image["number"])
        stays = token is not None and token.place == image["place"]
        if token is None or not stays or token.entered_at != datetime.fromisoformat(image["entered_at"]):
            continue
        runs = found.setdefault(token.number, {})
        if told.incident:
            # What raised an incident is tried again.
            runs.pop(row.transition, None)
            continue
        before = runs.get(row.transition)
        due = datetime.fromisoformat(row.request["due"]) + shift
        runs[row.transition] = Run(1 if before is None else before.count + 1, due)
    return {number: runs for number, runs in found.items() if runs}

"""How much of a pool one worker takes: a pure decision about its own share, from what it needs and what others hold.

While nobody else wants more, a worker takes what it needs of what is free. Where others do, it keeps to an equal part,
and what it has above that it gives back as its executions end; so two busy workers come to halves, and an idle one
costs the others nothing. Where there are more workers than there is to share, they have turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circuit.storage.shares import Share

HEADROOM = 10
"""Of what is kept without need, one part in so many is left free, so that a worker that comes can begin at once."""


@dataclass(frozen=True, slots=True)
class Need:
    """What runs in a worker, what runs and waits there, how many it may run now, and how many it would like to keep in
    hand although it has no need of them yet."""

    running: int
    demand: int
    ceiling: int
    spare: int = 0


def apportion(limit: int, need: Need, others: Sequence[Share]) -> tuple[int, Share]:
    """How many executions of the pool this worker may run from now on, and the share that it says it has."""
    free = max(0, limit - sum(share.amount for share in others))
    contended = any(share.wanted for share in others)
    if not contended:
        ceiling = min(max(need.demand, min(need.spare, limit - max(1, limit // HEADROOM))), free)
    else:
        sharing = 1 + sum(1 for share in others if share.amount or share.wanted)
        taking_turns = limit < sharing and need.ceiling > 0
        part = max(1, limit // sharing)
        # What does not go into equal parts is for who asks when the others have theirs.
        served = all(share.amount >= min(part, share.amount + share.wanted) for share in others)
        ceiling = 0 if taking_turns else min(need.demand, part + served, free)
    return ceiling, Share(max(need.running, ceiling), max(0, need.demand - ceiling))

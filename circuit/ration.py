"""What one process may send of what is limited in any minute over all processes: its part, and how that changes.

All that the processes say of one limit is a document, by process: its *claim*. What a process sent in the last minute
is never more than its claim holds, and the claims together never hold more than the limit; so what all of them send in
any minute is never more than the limit. A ration shrinks here before its claim does, and grows after that has grown. It
lasts some seconds unless it is renewed, and its claim a minute longer than that: nobody has to be told that a process
is gone. Pure: the document is read and put by others (`circuit.engine.rations`), one version after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from circuit.level import Want, level
from circuit.minute import MINUTE, Minute, Sent

LASTS = 10.0
"""Seconds that a ration may be used without being renewed."""
RENEWED = 4.0
"""After so many seconds it is renewed."""
MARGIN = 1.0
"""Seconds that a claim lasts beyond that: clocks do not all run alike."""
HEADROOM = 10
"""Of what is kept without need, one part in so many is left free, so that a process that comes can begin at once."""
UNSURE = 5.0
"""Seconds after which one looks again who does not know when there will be more."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a process holds of one limit and how much more it wants; of that, what the first that waits needs."""

    held: int = 0
    wanted: int = 0
    first: int = 0

    @classmethod
    def of(cls, claim: Mapping[str, Any], unit: str, at: float) -> Part:
        """That of a claim as it is stored. One that was not renewed in time wants nothing more; what was sent before it
        counts for a minute, and then it holds no more than may be sent since."""
        held, wanted, first, ceiling, *_ = claim.get(unit, (0, 0, 0, 0))
        held = held if claim.get("sent", at + 1) > at else ceiling
        return cls(held, wanted, first) if claim["until"] - at > MINUTE + MARGIN else cls(held)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a process would have from now on. `claims` is the document that says so, None where it does already."""

    claims: Mapping[str, Any] | None
    ceilings: Mapping[str, int]
    until: float


@dataclass(slots=True)
class Queue:
    """What waits to be sent, and of it the first with since when it waits."""

    requests: int = 0
    tokens: int = 0
    first: int | None = None
    first_at: float = 0.0


class Ration:
    """What may be sent within limits of so many `requests` and `tokens` a minute, of which None is none. One that is
    not `shared` is the whole of it. `now` counts seconds that only ever grow."""

    def __init__(
        self, now: Callable[[], float], requests: int | None = None, tokens: int | None = None, *, shared: bool = False
    ) -> None:
        self._now = now
        self._limits = {
            unit: limit for unit, limit in (("requests", requests), ("tokens", tokens)) if limit is not None
        }
        self.shared = shared
        self.minute = Minute()
        self.queue = Queue()
        self.changed: Callable[[], None] = lambda: None
        """Called when more may be sent than before."""
        self.wanting: Callable[[], None] = lambda: None
        """Called when something must wait for more, or others are to hear something."""
        self.closed_until = 0.0
        """Until when the provider takes no more, as it said to this process."""
        self.told_until = 0.0
        """The same, as others heard it."""
        self.contended = False
        """Whether others want more."""
        self.short = False
        """Whether something waited here for what others hold when it was last looked."""
        self._ceilings = dict.fromkeys(self._limits, 0) if shared else dict(self._limits)
        self._until = 0.0 if shared else float("inf")
        self._since = (0.0, 0.0)

    # For who sends

    def delay(self, size: int) -> float:
        """0 where a request of so many tokens may be sent now, or after how many seconds to look again."""
        now = self._now()
        if self.lasting and all(self._fits(unit, now, size) for unit in self._limits):
            return 0.0
        own = self.full(size)
        return own if own or not self.shared else UNSURE

    def full(self, size: int = 0) -> float:
        """For how many seconds what this process has sent itself leaves no room within the limits."""
        return self.minute.delay(self._now(), self._limits.get("requests"), self._limits.get("tokens"), size)

    def send(self, size: int) -> Sent:
        """A request of about so many tokens is sent."""
        return self.minute.send(self._now(), size)

    def correct(self, sent: Sent, tokens: int) -> None:
        """It took so many."""
        self.minute.correct(self._now(), sent, tokens)

    def close(self, until: float) -> None:
        """The provider said that it takes no more until then, or with the past that it does."""
        news = abs(until - self.closed_until) > MARGIN and max(until, self.closed_until) > self._now()
        self.closed_until = until
        if news:
            self.wanting()

    # For who shares

    @property
    def lasting(self) -> bool:
        """Whether it was renewed of late."""
        return self._now() < self._until

    @property
    def idle(self) -> bool:
        """Whether it is of no use: nothing that was sent counts, nothing waits, and nobody is to hear anything."""
        now = self._now()
        return not (self._sent(now) or self.queue.requests or self.closed_until > now)

    @property
    def lacking(self) -> bool:
        """Whether something waits here for what others hold."""
        now = self._now()
        return self.queue.requests > 0 and any(self._ceilings[unit] < self._demand(unit, now) for unit in self._limits)

    def decide(self, claims: Mapping[str, Any], me: str, at: float, asked: float, *, over: bool = False) -> Decision:
        """What to have from now on, where these are the claims of all at the instant `at` of who keeps them, asked for
        at the instant `asked` of here. What there is to be less of is less already. `over`: this process ends."""
        now = self._now()
        over = over or self.idle
        others = {name: claim for name, claim in claims.items() if name != me and claim["until"] > at}
        self.told_until = now + max((claim.get("closed", 0.0) for claim in others.values()), default=0.0) - at
        self.contended = False
        claim: dict[str, Any] = {} if over else {"since": self._waits_since(at, now)}
        ceilings: dict[str, int] = {}
        for unit, limit in self._limits.items():
            ceiling = 0 if over else self._ceiling(unit, limit, others, me, claim["since"], at)
            ceilings[unit] = ceiling
            self._ceilings[unit] = min(self._ceilings[unit], ceiling)
            held = max(self._used(unit, now), ceiling)
            waits = self.queue.requests > 0 and not over
            wanted, first = max(0, self._demand(unit, now) - held), min(limit, self._first(unit))
            claim[unit] = [held, wanted, first, ceiling] if waits else [held, 0, 0, ceiling]
        before, newest = claims.get(me), self.minute.newest(now)
        sent = 0.0 if newest is None else at + newest + MINUTE - now + MARGIN
        if over:
            self._until = 0.0
            if newest is None:
                return Decision(None if before is None else others, ceilings, 0.0)
            return Decision(others | {me: claim | {"until": sent}}, ceilings, 0.0)
        if any(claim[unit][0] > ceilings[unit] for unit in ceilings):
            claim["sent"] = sent
            if before is not None and abs(before.get("sent", 0.0) - sent) < MARGIN / 2:
                claim["sent"] = max(before["sent"], sent)
        if self.closed_until > now:
            claim["closed"] = at + self.closed_until - now
            if before is not None and abs(before.get("closed", 0.0) - claim["closed"]) < MARGIN:
                claim["closed"] = before["closed"]
        if before == claim | {"until": (before or {}).get("until")} and self._until - now > LASTS - RENEWED:
            return Decision(None, ceilings, self._until)
        return Decision(others | {me: claim | {"until": at + LASTS + MINUTE + MARGIN}}, ceilings, asked + LASTS)

    def take(self, decided: Decision) -> None:
        """The claims are now as was decided."""
        more = not self.lasting or any(self._ceilings[unit] < most for unit, most in decided.ceilings.items())
        self._ceilings = dict(decided.ceilings)
        self._until = decided.until
        self.short = self.lacking
        if more:
            self.changed()

    def _ceiling(self, unit: str, limit: int, others: Mapping[str, Any], me: str, since: float, at: float) -> int:
        now = self._now()
        parts = {name: Part.of(claim, unit, at) for name, claim in others.items()}
        free = max(0, limit - sum(part.held for part in parts.values()))
        demand = self._demand(unit, now)
        if not any(part.wanted for part in parts.values()):
            spare = limit - max(1, limit // HEADROOM)
            return min(free, limit if demand > spare else max(spare, self._ceilings[unit]))
        self.contended = True
        wants = {
            name: Want(min(limit, part.held + part.wanted), part.first, others[name].get("since", 0.0))
            for name, part in parts.items()
        }
        # A little more than is needed, so that who only goes on as before need not ask each time.
        mine = Want(min(limit, demand + self._used(unit, now) // HEADROOM), min(limit, self._first(unit)), since)
        return min(free, level(limit, wants | {me: mine})[me])

    def _waits_since(self, at: float, now: float) -> float:
        """Since when what is first here waits, by the clock of who keeps the claims: reckoned once."""
        if self.queue.first is None:
            return 0.0
        if self._since[0] != self.queue.first_at:
            self._since = (self.queue.first_at, at - (now - self.queue.first_at))
        return self._since[1]

    def _fits(self, unit: str, now: float, size: int) -> bool:
        used, needed = self._used(unit, now), size if unit == "tokens" else 1
        return used + needed <= self._ceilings[unit] or (not used and self._ceilings[unit] >= self._limits[unit])

    def _sent(self, now: float) -> bool:
        return self.minute.newest(now) is not None

    def _used(self, unit: str, now: float) -> int:
        return self.minute.tokens(now) if unit == "tokens" else self.minute.requests(now)

    def _demand(self, unit: str, now: float) -> int:
        waiting = self.queue.tokens if unit == "tokens" else self.queue.requests
        return min(self._limits[unit], self._used(unit, now) + waiting)

    def _first(self, unit: str) -> int:
        if self.queue.first is None:
            return 0
        return self.queue.first if unit == "tokens" else 1

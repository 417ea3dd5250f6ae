"""Spreads requests over several keys and endpoints of one provider.

Requests go round. An endpoint that fails in a way that another one may not share is taken out for a while: as long as
the provider asked, else by what failed. It comes back by itself; where all are out, the one that comes back first is
tried. A request moves on to the next endpoint only while nothing of its answer was said.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from circuit.errors import (
    AuthenticationRefused,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
)
from circuit.providers.provider import ModelChunk, ModelRequest, Provider

_REST_SECONDS: dict[type[ProviderError], float] = {
    AuthenticationRefused: 600.0,
    QuotaExceeded: 600.0,
    RateLimited: 20.0,
    ProviderUnavailable: 10.0,
    ProviderTimeout: 10.0,
}


LONGEST_PRESSURE = 60.0
"""After so many seconds somebody should try again, whatever the provider asked for."""


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint among several. `identity` stays the same while its address and key do."""

    identity: str
    provider: Provider


@dataclass(slots=True)
class Health:
    """Which endpoints rest, and until when. Shared by all providers of a process."""

    now: Callable[[], float] = time.monotonic
    _until: dict[str, float] = field(default_factory=dict[str, float])
    _pressed: dict[str, float] = field(default_factory=dict[str, float])
    _turn: int = 0

    def order(self, members: Sequence[Member]) -> list[Member]:
        """The members in the order in which to try them: those at work, beginning with the next in turn; if all
        rest, the one that comes back first."""
        now = self.now()
        begin = self._turn % len(members)
        self._turn += 1
        round_ = [*members[begin:], *members[:begin]]
        working = [member for member in round_ if self._until.get(member.identity, 0.0) <= now]
        return working or [min(round_, key=lambda member: self._until[member.identity])]

    def fail(self, member: Member, error: ProviderError) -> bool:
        """Take `member` out if `error` is its own; whether it is."""
        seconds = next((rest for kind, rest in _REST_SECONDS.items() if isinstance(error, kind)), None)
        if seconds is None:
            return False
        seconds = seconds if error.retry_after is None else error.retry_after
        self._until[member.identity] = self.now() + seconds
        if error.retryable:
            self._pressed[member.identity] = self.now() + min(seconds, LONGEST_PRESSURE)
        return True

    def pressed(self, identity: str) -> bool:
        """Whether an endpoint rests because it has too much to do, and not for what somebody must mend."""
        return self._pressed.get(identity, 0.0) > self.now()

    def work(self, member: Member) -> None:
        """`member` gave an answer: it is at work."""
        self._until.pop(member.identity, None)
        self._pressed.pop(member.identity, None)


class BalancedProvider:
    """Streams from the members that `members` names at each request; it may raise `ProviderMisconfigured`."""

    def __init__(self, members: Callable[[], Sequence[Member]], health: Health) -> None:
        self._members = members
        self._health = health

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        order = self._health.order(self._members())
        for member in order:
            said = False
            try:
                async with aclosing(member.provider.stream(request)) as chunks:
                    async for chunk in chunks:
                        said = True
                        yield chunk
            except ProviderError as error:
                own = self._health.fail(member, error)
                if said or not own or member is order[-1]:
                    raise
            else:
                self._health.work(member)
                return

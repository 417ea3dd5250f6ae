"""What was sent in the last minute, to the instant: how many requests, and how many tokens with them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MINUTE = 60.0


@dataclass(slots=True, eq=False)
class Sent:
    """A request that was sent, with as many tokens as are known of it."""

    at: float
    tokens: int


class Minute:
    """Counts each request until a minute has passed since it was sent. The present instant is handed in, in seconds
    that only ever grow."""

    def __init__(self) -> None:
        self._begun: deque[float] = deque()
        self._spent: deque[Sent] = deque()
        self._tokens = 0

    def requests(self, now: float) -> int:
        """How many requests count now."""
        self._forget(now)
        return len(self._begun)

    def tokens(self, now: float) -> int:
        """How many tokens count now."""
        self._forget(now)
        return self._tokens

    def newest(self, now: float) -> float | None:
        """When the last was sent that counts, if any does."""
        self._forget(now)
        return self._spent[-1].at if self._spent else None

    def send(self, now: float, tokens: int) -> Sent:
        """A request is sent."""
        self._begun.append(now)
        return self._add(now, tokens)

    def correct(self, now: float, sent: Sent, tokens: int) -> None:
        """A request took so many tokens. Fewer than was thought never counted; more count from now on, for what an
        answer has was said since."""
        self._forget(now)
        more = tokens - sent.tokens
        if more > 0:
            self._add(now, more)
        elif sent.at > now - MINUTE:
            sent.tokens = tokens
            self._tokens += more

    def delay(self, now: float, requests: int | None, tokens: int | None, size: int) -> float:
        """After how many seconds one more request of `size` may fit into limits of so many `requests` and `tokens`, of
        which None is none. One that is larger than the limit fits alone."""
        self._forget(now)
        delay = 0.0
        if requests is not None and len(self._begun) >= requests:
            delay = self._begun[-requests] + MINUTE - now
        if tokens is not None and self._tokens > 0 and self._tokens + size > tokens:
            delay = max(delay, self._spent[0].at + MINUTE - now)
        return delay

    def _add(self, now: float, tokens: int) -> Sent:
        sent = Sent(now, tokens)
        self._spent.append(sent)
        self._tokens += tokens
        return sent

    def _forget(self, now: float) -> None:
        while self._begun and self._begun[0] <= now - MINUTE:
            self._begun.popleft()
        while self._spent and self._spent[0].at <= now - MINUTE:
            self._tokens -= self._spent.popleft().tokens

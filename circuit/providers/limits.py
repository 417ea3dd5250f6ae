"""Keeps requests to one endpoint within its limits: how many at once, how many and how many tokens a minute.

The limits are those that a workflow names, and those that the provider itself tells in the headers of its answers:
what it says that remains is shared out, and requests that it does not reach for wait until it says that there is more.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, nullcontext
from dataclasses import field
from datetime import UTC, datetime
from typing import Any

from circuit.errors import RateLimited
from circuit.providers.messages import ImagePart
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, Provider
from circuit.value import dataclass

MINUTE = 60.0
LONGEST_WAIT = 600.0
"""Seconds that a request waits at most; one that would wait longer fails as `rate_limit`."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KINDS = ("requests", "tokens", "input-tokens", "output-tokens")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a workflow allows of one endpoint; None is no limit."""

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Limits:
        """The limits in the canonical form of a workflow file."""
        return cls(given.get("concurrency"), given.get("requests_per_minute"), given.get("tokens_per_minute"))


@dataclass(slots=True)
class Allowance:
    """What one endpoint still allows, shared by all requests to it. `now` counts seconds that only ever grow."""

    limits: Limits = field(default_factory=Limits)
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _slots: asyncio.Semaphore | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _begun: deque[float] = field(default_factory=deque[float])
    _spent: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _used: int = 0
    _left: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """What the provider said that remains, by kind, less what was sent since; and until when that counts."""

    def __post_init__(self) -> None:
        if self.limits.concurrency is not None:
            self._slots = asyncio.Semaphore(self.limits.concurrency)

    def slot(self) -> Any:
        """A place among those that run at once."""
        return self._slots or nullcontext()

    async def admit(self, prompt: int, answer: int = 0) -> None:
        """Return when a request of about so many tokens, with an answer of so many, may be sent; requests are admitted
        in their order.

        Raises `RateLimited` where that would take too long.
        """
        async with self._turn:
            waited = 0.0
            while (delay := self._delay(prompt, answer)) > 0:
                waited += delay
                if waited > LONGEST_WAIT:
                    raise RateLimited(
                        f"the limits of this provider allow no request for {delay:.0f} s", retry_after=delay
                    )
                await self.sleep(delay)
            self._begun.append(self.now())
            self._spend(prompt + answer)
            for kind, (left, end) in self._left.items():
                self._left[kind] = (left - _share(kind, prompt, answer), end)

    @property
    def closed(self) -> bool:
        """Whether a request that is made now would have to wait."""
        return self._delay() > 0 or (self._slots is not None and self._slots.locked())

    def spend(self, tokens: int) -> None:
        """So many more tokens were used than `admit` was told; less than none gives some back."""
        self._spend(tokens)

    def learn(self, headers: Mapping[str, str], at: datetime | None = None) -> None:
        """What the provider says in the headers of an answer: OpenAI's names and Anthropic's."""
        for kind in _KINDS:
            for remaining, reset in (
                (f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}"),
                (f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset"),
            ):
                left = headers.get(remaining, "").strip()
                seconds = until(headers.get(reset, ""), at or datetime.now(UTC))
                if left.isascii() and left.isdigit() and seconds is not None:
                    self._left[kind] = (int(left), self.now() + min(seconds, LONGEST_WAIT))

    def _spend(self, tokens: int) -> None:
        self._spent.append((self.now(), tokens))
        self._used += tokens

    def _delay(self, prompt: int = 0, answer: int = 0) -> float:
        now, tokens = self.now(), prompt + answer
        while self._begun and self._begun[0] <= now - MINUTE:
            self._begun.popleft()
        while self._spent and self._spent[0][0] <= now - MINUTE:
            self._used -= self._spent.popleft()[1]
        self._left = {kind: (left, end) for kind, (left, end) in self._left.items() if end > now}
        short = [end for kind, (left, end) in self._left.items() if left < max(_share(kind, prompt, answer), 1)]
        delay = max(short, default=now) - now
        most = self.limits.requests_per_minute
        if most is not None and len(self._begun) >= most:
            delay = max(delay, self._begun[-most] + MINUTE - now)
        budget = self.limits.tokens_per_minute
        if budget is not None and self._used > 0 and self._used + tokens > budget:
            delay = max(delay, self._spent[0][0] + MINUTE - now)
        return delay


class LimitedProvider:
    """Sends the requests of `inner` within `allowance`."""

    def __init__(self, inner: Provider, allowance: Allowance) -> None:
        self._inner = inner
        self._allowance = allowance

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        prompt, answer = estimate(request), int(request.parameters.get("max_tokens") or 0)
        async with self._allowance.slot():
            await self._allowance.admit(prompt, answer)
            async with aclosing(self._inner.stream(request)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, Finished) and chunk.usage:
                        used = chunk.usage.get("input_tokens", 0) + chunk.usage.get("output_tokens", 0)
                        self._allowance.spend(used - prompt - answer)
                    yield chunk


def estimate(request: ModelRequest) -> int:
    """About how many tokens a request is, four characters to one."""
    return sum(
        1_000 if isinstance(part, ImagePart) else len(str(part)) // 4
        for message in request.messages
        for part in message.parts
    )


def _share(kind: str, prompt: int, answer: int) -> int:
    """What a request takes of a limit of this kind. Anthropic counts the tokens of answers as they come."""
    return {"requests": 1, "tokens": prompt + answer, "input-tokens": prompt}.get(kind, 0)


def until(text: str, now: datetime) -> float | None:
    """Seconds until a limit is reset: a duration as Go writes it (`6m0s`, `12ms`), an instant (RFC 3339), or a number
    of seconds; None where it is none of these."""
    text = text.strip()
    if text and _DURATION.sub("", text) == "":
        return sum(float(count) * _UNITS[unit] for count, unit in _DURATION.findall(text))
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(0.0, (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() - now.timestamp())

"""Keeps requests to one endpoint within its limits: how many at once, how many and how many tokens a minute.

The limits are those that a workflow names, and those that the provider itself tells in the headers of its answers:
what it says that remains is shared out, and requests that it does not reach for wait until it says that there is more.
What a workflow allows in a minute is shared with other processes where there are `Rations`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, nullcontext, suppress
from dataclasses import field
from datetime import UTC, datetime
from typing import Any, Protocol

from circuit.errors import RateLimited
from circuit.minute import Sent
from circuit.providers.messages import ImagePart
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, Provider
from circuit.ration import Ration
from circuit.value import dataclass

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

    def __str__(self) -> str:
        """What they are, in a form that every process and release writes alike."""
        return f"{self.concurrency or '-'}/{self.requests_per_minute or '-'}/{self.tokens_per_minute or '-'}"


class Rations(Protocol):
    """Where limits are shared with other processes. `circuit.engine.rations` supplies it."""

    def ration(self, name: str, requests: int | None, tokens: int | None) -> Ration:
        """What this process may send of so many requests and tokens a minute, by the name of the limit."""
        ...


@dataclass(slots=True)
class Allowance:
    """What one endpoint still allows, shared by all requests to it, and the minute's limits by `ration` with other
    processes too. `now` counts seconds that only ever grow."""

    limits: Limits = field(default_factory=Limits)
    ration: Ration | None = None
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _own: Ration = field(init=False)
    _slots: asyncio.Semaphore | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _left: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """What the provider said that remains, by kind, less what was sent since; and until when that counts."""

    def __post_init__(self) -> None:
        if self.limits.concurrency is not None:
            self._slots = asyncio.Semaphore(self.limits.concurrency)
        limits = self.limits
        self._own = self.ration or Ration(self.now, limits.requests_per_minute, limits.tokens_per_minute)
        self._own.changed = self._more.set

    def slot(self) -> Any:
        """A place among those that run at once."""
        return self._slots or nullcontext()

    async def admit(self, prompt: int, answer: int = 0) -> Sent:
        """Return when a request of about so many tokens, with an answer of so many, may be sent; requests are admitted
        in their order.

        Raises `RateLimited` where that would take too long.
        """
        size, queue = max(1, prompt + answer), self._own.queue
        queue.requests += 1
        queue.tokens += size
        try:
            async with self._turn:
                queue.first, queue.first_at = size, self.now()
                try:
                    await self._room(size, prompt, answer)
                finally:
                    queue.first = None
                for kind, (left, end) in self._left.items():
                    self._left[kind] = (left - _share(kind, prompt, answer), end)
                return self._own.send(size)
        finally:
            queue.requests -= 1
            queue.tokens -= size

    @property
    def closed(self) -> bool:
        """Whether a request that is made now would have to wait."""
        own = self._own
        busy = own.full() > 0 or (own.short and own.lacking) or (self._slots is not None and self._slots.locked())
        return busy or self._said() > 0

    def used(self, sent: Sent, tokens: int) -> None:
        """A request that was admitted took so many tokens."""
        self._own.correct(sent, tokens)

    def learn(self, headers: Mapping[str, str], at: datetime | None = None) -> None:
        """What the provider says in the headers of an answer: OpenAI's names and Anthropic's."""
        told: list[float] = []
        for kind in _KINDS:
            for remaining, reset in (
                (f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}"),
                (f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset"),
            ):
                left = headers.get(remaining, "").strip()
                seconds = until(headers.get(reset, ""), at or datetime.now(UTC))
                if left.isascii() and left.isdigit() and seconds is not None:
                    end = self.now() + min(seconds, LONGEST_WAIT)
                    self._left[kind] = (int(left), end)
                    told.append(0.0 if int(left) else end)
        if told and self._own.shared:
            self._own.close(max(told))

    async def _room(self, size: int, prompt: int, answer: int) -> None:
        """Wait until there is room for a request."""
        waited = 0.0
        while True:
            self._more.clear()
            delay = max(self._said(prompt, answer), self._own.delay(size))
            if delay <= 0:
                return
            if waited + delay > LONGEST_WAIT:
                lost = " (they are counted in the database, which does not answer)" if not self._own.lasting else ""
                raise RateLimited(
                    f"the limits of this provider allow no request for {delay:.0f} s{lost}", retry_after=delay
                )
            waited += await self._wait(delay)

    async def _wait(self, seconds: float) -> float:
        """Wait so long, or until there may be more; returns how long that was."""
        if not self._own.shared:
            await self.sleep(seconds)
            return seconds
        begin = self.now()
        self._own.wanting()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._more.wait()
        return self.now() - begin

    def _said(self, prompt: int = 0, answer: int = 0) -> float:
        """For how many seconds what the provider says forbids such a request, here or to another process."""
        now = self.now()
        self._left = {kind: (left, end) for kind, (left, end) in self._left.items() if end > now}
        short = [end for kind, (left, end) in self._left.items() if left < max(_share(kind, prompt, answer), 1)]
        return max([*short, self._own.told_until, now]) - now


class LimitedProvider:
    """Sends the requests of `inner` within `allowance`."""

    def __init__(self, inner: Provider, allowance: Allowance) -> None:
        self._inner = inner
        self._allowance = allowance

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        prompt, answer = estimate(request), int(request.parameters.get("max_tokens") or 0)
        async with self._allowance.slot():
            sent = await self._allowance.admit(prompt, answer)
            async with aclosing(self._inner.stream(request)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, Finished) and chunk.usage:
                        used = chunk.usage.get("input_tokens", 0) + chunk.usage.get("output_tokens", 0)
                        self._allowance.used(sent, used)
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

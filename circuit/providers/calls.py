"""What the calls of models of this process come to, added up: how many, how long, how many tokens, how much money."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Any

from circuit.errors import ProviderError
from circuit.providers.pricing import Price, cost_of

BOUNDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""In seconds, as OpenTelemetry's conventions have them."""
MOST_MODELS = 200
"""Models that are told apart: who asks may make names up, and each has dozens of figures."""
OTHERS = "(others)"
"""What those count as that are more."""
LONGEST_MODEL = 100
OK = "ok"
CANCELLED = "cancelled"
FAILED = "failed"


class Times:
    """How often something took how long."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self.counts = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        self.total += seconds
        self.counts[bisect_left(BOUNDS, seconds)] += 1


class Tally:
    """The calls of one model of one provider. `outcomes` counts them by what came of them: `ok`, or a code."""

    __slots__ = ("dollars", "first", "outcomes", "tokens", "whole")

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.whole = Times()
        self.first = Times()
        self.tokens: Counter[str] = Counter()
        self.dollars = 0.0

    def answered(
        self,
        usage: Mapping[str, Any],
        model: str,
        provider: str,
        price: Price | None,
        account: Mapping[str, Any] | None = None,
    ) -> None:
        """An answer came with this usage, which the provider's own `account` tells."""
        for name in ("input_tokens", "output_tokens"):
            count = usage.get(name)
            if isinstance(count, int):
                self.tokens[name.removesuffix("_tokens")] += count
        self.dollars += cost_of(model, usage, provider, price, account) or 0.0

    def ended(self, seconds: float, error: BaseException | None) -> None:
        """A call is over."""
        self.whole.add(seconds)
        if error is None:
            outcome = OK
        elif isinstance(error, ProviderError):
            outcome = error.code
        else:
            outcome = FAILED if isinstance(error, Exception) else CANCELLED
        self.outcomes[outcome] += 1


class Calls:
    """All calls, by the type of the provider and the model."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}

    def of(self, provider: str, model: str) -> Tally:
        """The tally of a model."""
        name = (provider, model[:LONGEST_MODEL])
        if name not in self._tallies and len(self._tallies) >= MOST_MODELS:
            name = (provider, OTHERS)
        return self._tallies.setdefault(name, Tally())

    def all(self) -> Mapping[tuple[str, str], Tally]:
        """Every tally there is."""
        return self._tallies

"""What an answer costs: what the provider itself says that it took, or what a table of prices says that comes with the
package `genai-prices`. No server is asked.

The table takes a third of a second to load. Whoever asks for a price on an event loop has waited for `ready` before.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from circuit.threads import apart

_PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "google": "google"}
FREE = ("scripted", "ollama", "vllm")
"""Types of providers that take no money, unless a workflow names a price."""
_MILLION = 1_000_000
_MOST_TOLD = 1_000_000.0
"""US dollars. What says that one answer took more is no account of it."""
_loaded = threading.Event()


@dataclass(frozen=True, slots=True)
class Price:
    """What a workflow says that a model costs: US dollars for a million tokens of prompts, and of answers."""

    input: float
    output: float


async def ready(provider: str, price: Price | None = None) -> None:
    """Return when what a model of this provider costs can be told at once: the table is loaded beside the event loop,
    and not at all for who needs none."""
    if price is None and provider not in FREE and not _loaded.is_set():
        await apart(_load)


def most_of(
    model: str, input_tokens: int, output_tokens: int, provider: str = "", price: Price | None = None
) -> float | None:
    """US dollars that so many tokens cost at most, however much of them goes into a cache or comes out of one; None
    where no price is known."""
    if price is None and provider in FREE:
        return 0.0
    usage = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    plain = cost_of(model, usage, provider, price)
    if plain is None or price is not None:
        return plain
    return max(plain, cost_of(model, {**usage, "cache_write_tokens": input_tokens}, provider) or 0.0)


def cost_of(
    model: str,
    usage: Mapping[str, Any],
    provider: str = "",
    price: Price | None = None,
    account: Mapping[str, Any] | None = None,
) -> float | None:
    """US dollars for `usage` of `model`; None where no price is known. `provider` is the type in the workflow file; a
    provider of another type is priced by the name of the model alone. A `price` counts before what the provider's own
    `account` says, and this before the table."""
    if price is None and (told := told_in(account or {})) is not None:
        return told
    known = {name: count for name, count in usage.items() if isinstance(count, int)}
    if not known.get("input_tokens") and not known.get("output_tokens"):
        return None
    if price is not None:
        spent = known.get("input_tokens", 0) * price.input + known.get("output_tokens", 0) * price.output
        return spent / _MILLION
    if provider in FREE or not _priced(model, _PROVIDERS.get(provider)):
        return None
    from genai_prices import Usage, calc_price

    counted = Usage(
        input_tokens=known.get("input_tokens"),
        output_tokens=known.get("output_tokens"),
        cache_read_tokens=known.get("cached_input_tokens"),
        cache_write_tokens=known.get("cache_write_tokens"),
    )
    try:
        return float(calc_price(counted, model, provider_id=_PROVIDERS.get(provider)).total_price)
    except (LookupError, ValueError):
        return None


def told_in(account: Mapping[str, Any]) -> float | None:
    """US dollars that a provider's own account of an answer says it took; None where it says nothing of that.

    OpenRouter tells it in credits, of a dollar each: what it took itself, and beside it what the provider behind it
    takes from who asks with a key of his own there."""
    details = account.get("cost_details")
    if not isinstance(details, Mapping):
        return None
    taken = _amount(account.get("cost"))
    if taken is None or account.get("is_byok") is not True:
        return taken
    behind = _amount(cast("Mapping[str, Any]", details).get("upstream_inference_cost"))
    return None if behind is None else taken + behind


def _amount(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) and 0 <= value <= _MOST_TOLD else None


@lru_cache(maxsize=1000)
def _priced(model: str, provider: str | None) -> bool:
    """Whether there is a price: most local models have none, and to look is slow."""
    from genai_prices import Usage, calc_price

    try:
        calc_price(Usage(input_tokens=1), model, provider_id=provider)
    except (LookupError, ValueError):
        return False
    return True


def _load() -> None:
    """The first price that is looked up brings the table in."""
    _priced("gpt-4.1-mini", "openai")
    _loaded.set()

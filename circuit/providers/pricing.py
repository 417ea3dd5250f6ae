"""What an answer costs, from a table of prices that comes with the package `genai-prices`: no server is asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "google": "google"}


def cost_of(model: str, usage: Mapping[str, Any], provider: str = "") -> float | None:
    """US dollars for `usage` of `model`; None where no price is known. `provider` is the type in the workflow file; a
    provider of another type is priced by the name of the model alone."""
    known = {name: count for name, count in usage.items() if isinstance(count, int)}
    if not known.get("input_tokens") and not known.get("output_tokens"):
        return None
    if provider in ("scripted", "ollama", "vllm") or not _priced(model, _PROVIDERS.get(provider)):
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


@lru_cache(maxsize=1000)
def _priced(model: str, provider: str | None) -> bool:
    """Whether there is a price: most local models have none, and to look is slow."""
    from genai_prices import Usage, calc_price

    try:
        calc_price(Usage(input_tokens=1), model, provider_id=provider)
    except (LookupError, ValueError):
        return False
    return True

"""What an answer costs: from the table that comes along, or from a price of the workflow's own."""

from __future__ import annotations

import pytest

from circuit.providers.pricing import Price, cost_of, most_of

MILLION = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}


def test_a_known_model_costs_what_the_table_says() -> None:
    whole = cost_of("gpt-4.1-mini", MILLION, "openai")
    assert whole == pytest.approx(0.4 + 1.6)
    part = cost_of("gpt-4.1-mini", {"input_tokens": 1_000, "output_tokens": 500}, "openai")
    assert part == pytest.approx(0.0004 + 0.0008)


def test_what_was_read_from_a_cache_costs_less() -> None:
    read = cost_of("gpt-4.1-mini", {**MILLION, "cached_input_tokens": 1_000_000}, "openai")
    assert read == pytest.approx(0.1 + 1.6)


@pytest.mark.parametrize("provider", ["anthropic", "google", "custom", ""])
def test_each_provider_has_prices_and_others_go_by_the_name(provider: str) -> None:
    model = {"anthropic": "claude-sonnet-4-5", "google": "gemini-2.5-flash"}.get(provider, "gpt-4.1-mini")
    assert (cost_of(model, MILLION, provider) or 0) > 0


def test_where_no_price_is_known_none_is_said() -> None:
    assert cost_of("my-own-model", MILLION, "custom") is None
    assert cost_of("gpt-4.1-mini", {}, "openai") is None
    assert cost_of("anything", MILLION, "ollama") is None


def test_a_price_of_ones_own_counts_first() -> None:
    price = Price(2.0, 3.0)
    assert cost_of("gpt-4.1-mini", MILLION, "openai", price) == pytest.approx(5.0)
    assert most_of("my-own-model", 1_000_000, 1_000_000, "custom", price) == pytest.approx(5.0)


def test_the_most_is_never_less_than_what_it_costs() -> None:
    for usage in (MILLION, {**MILLION, "cached_input_tokens": 500_000}, {**MILLION, "cache_write_tokens": 1_000_000}):
        most = most_of("claude-sonnet-4-5", 1_000_000, 1_000_000, "anthropic")
        assert most is not None
        assert most >= (cost_of("claude-sonnet-4-5", usage, "anthropic") or 0)

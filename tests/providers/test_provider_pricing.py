"""What an answer costs: from the table that comes along, or from a price of the workflow's own."""

from __future__ import annotations

import json
import math
from typing import Any, cast

import pytest
from replay import finished_of, parse

from circuit.agents.answer import Answer
from circuit.agents.meter import Meter
from circuit.agents.run import AgentRun, Choice
from circuit.providers.calls import Calls
from circuit.providers.pricing import Price, cost_of, most_of, told_in

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


DETAILS = {"upstream_inference_cost": None, "upstream_inference_prompt_cost": 0.000129}


@pytest.mark.parametrize(
    ("account", "dollars"),
    [
        ({"cost": 0.000669, "is_byok": False, "cost_details": DETAILS}, 0.000669),
        # A tool of OpenRouter's own is in the cost, and what the provider behind it took too.
        ({"cost": 0.0145476, "cost_details": {"upstream_inference_cost": 0.0001776}}, 0.0145476),
        ({"cost": 0, "is_byok": False, "cost_details": DETAILS}, 0.0),
        ({"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 1}}, 1.05),
        ({"cost": 0.05, "is_byok": True, "cost_details": DETAILS}, None),
        # What others call so is not known to be dollars.
        ({"cost": {"total_cost": 0.006}}, None),
        ({"cost": 0.5}, None),
        *(({"cost": cost, "cost_details": {}}, None) for cost in (-1, True, "0.5", None, math.nan, math.inf, 1e300)),
        ({}, None),
    ],
)
def test_what_openrouter_says_that_an_answer_took(account: dict[str, Any], dollars: float | None) -> None:
    assert told_in(account) == (None if dollars is None else pytest.approx(dollars))


def test_what_a_provider_says_counts_before_the_table_and_after_the_workflow() -> None:
    account = {"prompt_tokens": 43, "completion_tokens": 36, "cost": 0.25, "is_byok": False, "cost_details": DETAILS}
    heard = {"model": "openai/gpt-4.1-mini", "choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}
    lines = [f"data: {json.dumps(one)}\n\n".encode() for one in (heard, {**heard, "choices": [], "usage": account})]
    end = finished_of(parse([*lines, b"data: [DONE]\n\n"], "chat"))
    calls, journal = Calls(), cast("Any", None)
    for price, dollars in ((None, 0.25), (Price(0.0, 1e6), 36.0)):
        run = AgentRun("m", (), choices=(Choice("custom", "gpt-4.1-mini", price),))
        answer = Answer("x", end.reason, end.usage, end.model, "", raw_usage=end.raw_usage)
        assert Meter(run, journal).cost(answer) == pytest.approx(dollars)
        tally = calls.of("custom", str(price))
        tally.answered(end.usage, end.model, "custom", price, end.raw_usage)
        assert tally.dollars == pytest.approx(dollars)

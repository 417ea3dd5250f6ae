"""What a call of a model may cost at most, before there is one: for who holds money, and who analyses a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from circuit.providers.pricing import Price, cost_of, most_of
from circuit.providers.profiles import profile_of
from circuit.providers.wire import THINKING_BUDGETS


def longest_answer(kind: str, model: str, parameters: Mapping[str, Any]) -> int | None:
    """The most tokens that a model of a type of provider may answer, reasoning included; None where nobody knows."""
    limit = parameters.get("max_tokens") or profile_of(model).max_output
    if limit is None:
        return None
    effort = parameters.get("reasoning_effort")
    thinking = THINKING_BUDGETS.get(str(effort), THINKING_BUDGETS["medium"]) if effort else 0
    return int(limit) + (thinking if kind in ("anthropic", "google") else 0)


class PriceTable:
    """The prices that come with Circuit, and those that workflows name. `circuit.definition.tariff` asks for it."""

    @property
    def source(self) -> str:
        return f"prices of genai-prices {version('genai-prices')}, or of the workflow"

    def answer(self, kind: str, model: str, parameters: Mapping[str, Any]) -> int | None:
        return longest_answer(kind, model, parameters)

    def prompt(self, model: str) -> int | None:
        return profile_of(model).context

    def most(self, kind: str, model: str, options: Mapping[str, Any], prompt: int, answer: int) -> float | None:
        return most_of(model, prompt, answer, kind, _price(options))

    def usual(self, kind: str, model: str, options: Mapping[str, Any], prompt: int, answer: int) -> float | None:
        price = _price(options)
        if price is None and most_of(model, 1, 1, kind) == 0.0:
            return 0.0
        return cost_of(model, {"input_tokens": prompt, "output_tokens": answer}, kind, price)


def _price(options: Mapping[str, Any]) -> Price | None:
    given: Mapping[str, float] | None = options.get("price")
    return None if given is None else Price(given.get("input", 0.0), given.get("output", 0.0))

"""What the calls of one run may cost at most, and what they did cost: told to the budgets, call by call."""

from __future__ import annotations

import orjson

from circuit.agents.answer import Answer
from circuit.agents.ports import Journal
from circuit.agents.run import AgentRun, Choice
from circuit.errors import (
    AuthenticationRefused,
    ContextTooLong,
    ModelNotFound,
    ModelRequestRefused,
    ProviderError,
    ProviderMisconfigured,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
)
from circuit.providers.messages import ImagePart, Message, message_json
from circuit.providers.pricing import FREE, cost_of, most_of, ready
from circuit.providers.provider import ModelRequest
from circuit.providers.tariff import longest_answer
from circuit.spend import Spend, bounded, microdollars

BYTES_PER_TOKEN = 3
"""Of a prompt. Text has four and more, so that this is on the safe side."""
_AROUND_A_MESSAGE = 10
_IMAGE_TOKENS = 2_000
_UNANSWERED = (
    AuthenticationRefused,
    ContextTooLong,
    ModelNotFound,
    ModelRequestRefused,
    ProviderMisconfigured,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
)
"""What a provider says in the place of an answer, and takes nothing for."""


class Meter:
    """Holds before each call of a run what it may cost, and says after it what it did."""

    def __init__(self, run: AgentRun, journal: Journal) -> None:
        self._run = run
        self._journal = journal

    async def hold(self, request: ModelRequest) -> int | None:
        """The charge of a call that is about to be made; None where no budget applies. Raises `BudgetExhausted`."""
        for choice in self._run.choices:
            await ready(choice.provider, choice.price)
        return await self._journal.hold(self.most(request))

    def most(self, request: ModelRequest) -> Spend:
        """What the call may cost at most: the prompt as it is, and the longest answer. Where other models may be asked
        too, each of them may have answered in part."""
        prompt = prompt_tokens(request)
        tokens, money = 0, 0
        known = priced = True
        for choice in self._run.choices:
            longest = longest_answer(choice.provider, choice.model, request.parameters)
            if longest is None:
                known = priced = False
                continue
            tokens += prompt + longest
            price = most_of(choice.model, prompt, longest, choice.provider, choice.price)
            priced = priced and price is not None
            money += microdollars(price or 0.0)
        return Spend(1, bounded(tokens) if known else None, bounded(money) if priced else None)

    def cost(self, answer: Answer) -> float | None:
        """What an answer did cost, in US dollars; None where no price is known."""
        choice = self.choice(answer)
        if answer.cached or (choice.price is None and choice.provider in FREE):
            return 0.0
        cost = cost_of(answer.model, answer.usage, choice.provider, choice.price, answer.raw_usage)
        # A server may have a name of its own for what it was asked for.
        return cost if cost is not None else cost_of(choice.model, answer.usage, choice.provider, choice.price)

    def choice(self, answer: Answer) -> Choice:
        """The one of the run's models that answered."""
        return self._run.choices[answer.choice]

    def answered(self, charge: int | None, answer: Answer) -> None:
        """The call came to `answer`. What nobody told the usage of counts with the most that it could be."""
        if charge is None:
            return
        tokens = sum(int(answer.usage.get(name) or 0) for name in ("input_tokens", "output_tokens"))
        if answer.restarts or not (tokens or answer.cached):
            self._journal.settle(charge, Spend(1, None, None))
            return
        cost = self.cost(answer)
        self._journal.settle(charge, Spend(1, bounded(tokens), None if cost is None else bounded(microdollars(cost))))

    def failed(self, charge: int | None, error: ProviderError) -> None:
        """The call came to nothing."""
        if charge is not None:
            self._journal.settle(charge, refused(error))


def refused(error: ProviderError) -> Spend:
    """What a call came to that has no answer. One that was refused before it was answered costs no more than the call;
    of others nobody knows."""
    return Spend(1) if isinstance(error, _UNANSWERED) else Spend(1, None, None)


def prompt_tokens(request: ModelRequest) -> int:
    """About how many tokens a request is; rather too many than too few."""
    size = sum(_size(message) for message in request.messages)
    size += sum(len(orjson.dumps(tool.parameters)) + len(tool.description) + len(tool.name) for tool in request.tools)
    if request.output_schema is not None:
        size += len(orjson.dumps(request.output_schema))
    around = _AROUND_A_MESSAGE * (len(request.messages) + len(request.tools) + 1)
    images = sum(isinstance(part, ImagePart) for message in request.messages for part in message.parts)
    return -(-size // BYTES_PER_TOKEN) + around + _IMAGE_TOKENS * images


def _size(message: Message) -> int:
    shown = Message(message.role, tuple(part for part in message.parts if not isinstance(part, ImagePart)))
    return len(orjson.dumps(message_json(shown)))

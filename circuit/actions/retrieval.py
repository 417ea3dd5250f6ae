"""Vectors of texts, and texts in the order of how well they answer a question, for functions: asked once for each name
in a firing, held in the budgets and charged as calls of models are, and kept in the journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from circuit.agents.meter import BYTES_PER_TOKEN, refused
from circuit.engine.action import ActionContext, charged_step
from circuit.errors import ActionFailed, ProviderError
from circuit.providers.pricing import FREE, Price, cost_of, most_of, ready
from circuit.providers.registry import ProviderRegistry
from circuit.providers.retrieval import MOST_TEXTS, EmbeddingRequest, Embeddings, Ranked, RerankRequest
from circuit.security.redactor import NOTHING, Redaction, lengthy
from circuit.spend import Spend, bounded, microdollars
from circuit.threads import apart
from circuit.value import dataclass

Model = str | Mapping[str, Any]
"""`TYPE:MODEL`, or what `llm_provider` of a workflow says: `type`, `model`, perhaps `price`, and the options."""
LARGEST_KEPT = 1024 * 1024
"""Vectors of so many bytes of JSON are kept for later starts; more are asked for again, and paid again."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A model by its provider, and what of it is charged."""

    spec: Mapping[str, Any]
    kind: str
    model: str
    price: Price | None

    @classmethod
    def of(cls, given: Model) -> _Asked:
        if isinstance(given, str):
            kind, colon, model = given.partition(":")
            if not (kind and colon):
                raise ActionFailed(f"a model is TYPE:MODEL, such as openai:text-embedding-3-small, not {given!r}")
            return cls({"type": kind, "model": model, "options": {}}, kind, model, None)
        options = {name: value for name, value in given.items() if name not in ("type", "model")}
        kind, model, price = str(given.get("type") or ""), str(given.get("model") or ""), options.get("price")
        charged = None if price is None else Price(float(price.get("input", 0.0)), float(price.get("output", 0.0)))
        return cls({"type": kind, "model": model, "options": options}, kind, model, charged)

    def most(self, texts: Sequence[str]) -> Spend:
        """What it may cost at most to have the model read these texts."""
        tokens = sum(-(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN) + 1 for text in texts)
        money = most_of(self.model, tokens, 0, self.kind, self.price)
        return Spend(1, bounded(tokens), None if money is None else bounded(microdollars(money)))

    def cost(self, usage: Mapping[str, Any]) -> float | None:
        """What it did cost; None where no price is known, or nobody told the usage."""
        if self.price is None and self.kind in FREE:
            return 0.0
        return cost_of(self.model, usage, self.kind, self.price)


class Retrieval:
    """What one call of a function asks of such models, which are told nothing that `redaction` takes out."""

    def __init__(
        self,
        registry: ProviderRegistry,
        recorded: Mapping[str, Any],
        context: ActionContext,
        redaction: Redaction = NOTHING,
    ) -> None:
        self._redaction = redaction
        self._registry = registry
        self._recorded = recorded
        self._context = context

    async def embed(self, name: str, model: Model, texts: Sequence[str], dimensions: int | None) -> list[list[float]]:
        """One vector for each text. Raises `ProviderError`, `BudgetExhausted` and `BudgetUnbounded`."""
        asked = _Asked.of(model)
        if len(texts) > MOST_TEXTS:
            raise ActionFailed(f"vectors of {MOST_TEXTS:,} texts are asked for at once, not of {len(texts):,}")
        step = charged_step("embedding", name)
        kept = self._recorded.get(step)
        if kept is not None and kept.get("vectors") is not None:
            return kept["vectors"]

        texts = await self._redacted(texts)

        async def ask() -> Embeddings:
            request = EmbeddingRequest(asked.model, tuple(texts), dimensions)
            return await self._registry.embedder(asked.spec).embed(request)

        made, charge = await self._charged(asked, texts, ask)
        vectors = [list(vector) for vector in made.vectors]
        keeps = len(orjson.dumps(vectors)) <= LARGEST_KEPT
        await self._keep(step, asked, made.model, made.usage, charge, {"vectors": vectors if keeps else None})
        return vectors

    async def rerank(self, name: str, model: Model, query: str, texts: Sequence[str], top: int | None) -> list[Ranked]:
        """The best first. Raises as `embed` does."""
        asked = _Asked.of(model)
        step = charged_step("ranking", name)
        kept = self._recorded.get(step)
        if kept is not None:
            return [Ranked(index, score) for index, score in kept["order"]]

        query, *texts = await self._redacted([query, *texts])

        async def ask() -> Sequence[Ranked]:
            request = RerankRequest(asked.model, query, tuple(texts), top)
            return await self._registry.reranker(asked.spec).rerank(request)

        # The question is read beside each of the texts.
        found, charge = await self._charged(asked, [f"{query} {text}" for text in texts], ask)
        order = [[one.index, one.score] for one in found]
        await self._keep(step, asked, asked.model, {}, charge, {"order": order})
        return list(found)

    async def _redacted(self, texts: Sequence[str]) -> list[str]:
        def told() -> list[str]:
            return [self._redaction.text(text) for text in texts]

        return await apart(told) if self._redaction and lengthy(list(texts)) else told()

    async def _charged(
        self, asked: _Asked, texts: Sequence[str], ask: Callable[[], Awaitable[_Answer]]
    ) -> tuple[_Answer, int | None]:
        await ready(asked.kind, asked.price)
        charge = await self._context.hold(asked.most(texts))
        try:
            return await ask(), charge
        except ProviderError as error:
            if charge is not None:
                self._context.settle(charge, refused(error))
            raise

    async def _keep(
        self,
        step: str,
        asked: _Asked,
        model: str,
        usage: Mapping[str, Any],
        charge: int | None,
        answer: Mapping[str, Any],
    ) -> None:
        """Settle the call in the commit that keeps its answer. Where nobody told the usage, it stands at the most."""
        cost, tokens = asked.cost(usage), usage.get("input_tokens")
        if charge is not None:
            told = bounded(tokens) if isinstance(tokens, int) else None
            self._context.settle(charge, Spend(1, told, None if cost is None else bounded(microdollars(cost))))
        said = {"provider": asked.kind, "asked": asked.model, "model": model, "usage": dict(usage)}
        await self._context.record(step, {**said, **({} if cost is None else {"cost": cost}), **answer})

"""What functions have models read, redacted by the rules for prompts."""

from __future__ import annotations

from typing import Any

from calling import Remembering, call

from circuit.actions.context import Context
from circuit.actions.function import FunctionAction
from circuit.actions.functions import action, collect
from circuit.providers.registry import ProviderRegistry
from circuit.security.redactor import Redactor
from circuit.security.rules import Rule

MODEL = "scripted:vectors"


@action
async def find(*, ctx: Context) -> dict[str, Any]:
    """Made-up vectors are the same for the same text."""
    vectors = await ctx.embed("texts", MODEL, ["of ada@example.com, KD-1", "of [email], [customer]"])
    best = await ctx.rerank("order", MODEL, "bob@example.com", ["[email]", "other"])
    shown = await ctx.rerank("as shown", MODEL, "[email]", ["bob@example.com", "other"])
    return {
        "same": vectors[0] == vectors[1],
        "order": [(one.index, one.score) for one in best],
        "shown": [(one.index, one.score) for one in shown],
    }


async def test_embeddings_and_orders_are_asked_for_redacted_texts() -> None:
    registry = ProviderRegistry({})
    redactor = Redactor([Rule("email", "email", places=("prompts",))])
    own = (Rule("customer", None, "KD-1", places=("prompts", "events")),)
    functions = FunctionAction(collect([find]), 1, registry, redactor)
    done = await functions.perform(call("function", {"name": "find"}, redaction=own), Remembering())
    assert done.output["same"] and done.output["order"] == done.output["shown"]
    plain = await FunctionAction(collect([find]), 1, registry).perform(
        call("function", {"name": "find"}), Remembering()
    )
    assert not plain.output["same"]
    assert redactor.counts == {("prompts", "email"): 3, ("prompts", "customer"): 1}
    await registry.aclose()

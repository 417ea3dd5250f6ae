"""The figures of a process: those of its engine, and those of the models that it holds itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from circuit.engine.engine import Engine
from circuit.errors import StorageError
from circuit.observability.metrics import Figure, Kind
from circuit.providers.calls import BOUNDS, Tally, Times
from circuit.providers.registry import ProviderRegistry
from circuit.providers.vllm.model import ModelState, ModelView
from circuit.settings import Settings

DATABASE_SECONDS = 3.0
"""So long the figures of the database are waited for: whoever asks for all of them waits ten seconds, as a rule."""

_GAUGES = {
    "vllm:num_requests_running": ("circuit_model_running_requests", "Requests that the engine answers now."),
    "vllm:num_requests_waiting": ("circuit_model_waiting_requests", "Requests that wait in the engine."),
    "vllm:kv_cache_usage_perc": ("circuit_model_cache_usage_ratio", "How full the cache of keys and values is."),
}
_COUNTERS = {
    "vllm:prompt_tokens_total": ("circuit_model_prompt_tokens", "Tokens of prompts that were read."),
    "vllm:generation_tokens_total": ("circuit_model_generated_tokens", "Tokens that were generated."),
    "vllm:prefix_cache_queries_total": ("circuit_model_prefix_queries", "Tokens looked up in the prefix cache."),
    "vllm:prefix_cache_hits_total": ("circuit_model_prefix_hits", "Tokens that were found there."),
    "vllm:num_preemptions_total": ("circuit_model_preemptions", "Requests put back for want of cache."),
    "vllm:time_to_first_token_seconds_sum": ("circuit_model_first_token_seconds", "Time to the first token, added up."),
    "vllm:time_to_first_token_seconds_count": ("circuit_model_first_tokens", "First tokens that this time is of."),
}


async def figures(engine: Engine, registry: ProviderRegistry, settings: Settings) -> Sequence[Figure]:
    """All figures: those of the database where it answers."""
    found: Sequence[Figure] = ()
    up = True
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            found = await engine.figures()
    except (StorageError, TimeoutError):
        up = False
    about = "Whether the database answers this process: 1 or 0."
    return [Figure("circuit_database_up", about, up), *found, *await process_figures(engine, registry, settings)]


async def process_figures(engine: Engine, registry: ProviderRegistry, settings: Settings) -> Sequence[Figure]:
    """Those of this process alone: no database is asked."""
    found = list(engine.process_figures())
    for (where, rule), count in settings.redactor.counts.items():
        about = "What rules of redaction took out, each time."
        found.append(Figure("circuit_redactions", about, count, Kind.COUNTER, {"rule": rule, "where": where}))
    for (kind, action), count in settings.screener.counts.items():
        about = "What screening found in what agents are told, and what was done about it."
        labels = {"kind": kind, "action": action}
        found.append(Figure("circuit_screened", about, count, Kind.COUNTER, labels))
    for (provider, model), tally in registry.calls.all().items():
        found += _of_calls({"provider": provider, "model": model}, tally)
    for view, counts in await registry.counts():
        found += _of_model(view, counts)
    return found


def _of_calls(labels: Mapping[str, str], tally: Tally) -> Iterator[Figure]:
    for outcome, count in tally.outcomes.items():
        about = "Calls of models, by what came of them."
        yield Figure("circuit_provider_calls", about, count, Kind.COUNTER, {**labels, "outcome": outcome})
    yield _of_times("circuit_provider_seconds", "How long calls of models took.", labels, tally.whole)
    yield _of_times("circuit_provider_first_seconds", "How long the first piece of answers took.", labels, tally.first)
    for kind, count in tally.tokens.items():
        yield Figure("circuit_tokens", "Tokens of prompts and answers.", count, Kind.COUNTER, {**labels, "type": kind})
    about = "What calls of models did cost, as far as prices are known."
    yield Figure("circuit_cost_dollars", about, tally.dollars, Kind.COUNTER, labels)


def _of_times(name: str, about: str, labels: Mapping[str, str], times: Times) -> Figure:
    counts = list(accumulate(times.counts))
    bounds = [*map(str, BOUNDS), "+Inf"]
    return Figure(name, about, times.total, Kind.HISTOGRAM, labels, list(zip(bounds, counts, strict=True)))


def _of_model(view: ModelView, counts: Mapping[str, float]) -> list[Figure]:
    labels = {"model": view.model, "id": view.id}
    ready = view.state in (ModelState.READY, ModelState.ASLEEP)
    found = [
        Figure("circuit_model_ready", "Whether the model is loaded, asleep or not.", float(ready), labels=labels),
        Figure("circuit_model_crashes", "Ends of the model's process.", view.crashes, Kind.COUNTER, labels),
    ]
    for kind, table in ((Kind.GAUGE, _GAUGES), (Kind.COUNTER, _COUNTERS)):
        for theirs, (ours, about) in table.items():
            if theirs in counts:
                found.append(Figure(ours, about, counts[theirs], kind, labels))
    return found

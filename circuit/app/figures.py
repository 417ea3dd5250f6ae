"""The figures of a process: those of its engine, and those of the models that it holds itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circuit.engine.engine import Engine
from circuit.observability.metrics import Figure, Kind
from circuit.providers.registry import ProviderRegistry
from circuit.providers.vllm.model import ModelState, ModelView

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


async def figures(engine: Engine, registry: ProviderRegistry) -> Sequence[Figure]:
    """All figures. Raises `StorageError`."""
    found = list(await engine.figures())
    for view, counts in await registry.counts():
        found += _of_model(view, counts)
    return found


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

"""The models that are made for `benchmarks.vllm`: Llamas of random weights, in the shapes of models that people run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIZES: Mapping[str, Mapping[str, Any]] = {
    "toy": {},
    "135M": {
        "hidden": 576, "layers": 30, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
        "words": 49_040, "tie_word_embeddings": True,
    },
    "0.5B": {
        "hidden": 896, "layers": 24, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2,
        "words": 151_824, "tie_word_embeddings": True,
    },
    "1.5B": {
        "hidden": 1536, "layers": 28, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
        "words": 151_824, "tie_word_embeddings": True,
    },
    "8B": {
        "hidden": 4096, "layers": 32, "intermediate_size": 14_336, "num_attention_heads": 32, "num_key_value_heads": 8,
        "words": 128_144,
    },
}  # fmt: skip
"""The toy's step costs an engine about as much as a call of a Python function; the others are the shapes of
SmolLM2-135M, Qwen2.5-0.5B, Qwen2.5-1.5B and Llama-3.1-8B."""
ON_CPU = ("toy", "135M", "0.5B")
ON_GPU = ("0.5B", "1.5B", "8B")


def make(folder: Path, name: str, *, weights: bool) -> str:
    """The model of this size, in `folder`. Without `weights` it has none: an engine that is told so makes them up as it
    loads."""
    from tests.vllm.tiny_model import make_model

    return str(make_model(folder, weights=weights, **SIZES[name]))

"""What the tests of vLLM's own engine use: a model that they make, and how it is loaded on a small machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_model

SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
"""One process of the engine instead of two, and a cache that fits beside the tests."""
OPTIONS: dict[str, Any] = {
    "max_model_len": 512,
    "enforce_eager": True,
    "distributed_executor_backend": "uni",
    "max_num_seqs": 64,
}
if not any(one.name == "vllm-cpu" for one in distributions()):
    # Several are loaded at once: each takes its share of the device.
    OPTIONS["gpu_memory_utilization"] = 0.1


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return {**os.environ, **SMALL}


def spec_of(model: Path | str, options: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A provider with `model`, loaded as these tests load."""
    return {"type": "vllm", "model": str(model), "options": {"options": {**OPTIONS, **(options or {})}, **more}}

"""How vLLM's own engine starts, fails to, and is left behind by nobody."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import OPTIONS, spec_of
from tiny_model import make_model, quantised

from circuit.errors import ModelNotFound, ModelOptionsRefused, ModelOutOfMemory, ModelUnsupported, ProviderError
from circuit.providers.messages import Message, Role
from circuit.providers.provider import ModelRequest, TextChunk
from circuit.providers.registry import ProviderRegistry
from circuit.providers.retrieval import EmbeddingRequest, RerankRequest

REPOSITORY = Path(__file__).resolve().parents[2]
ASKED = ModelRequest("tiny", (Message.text(Role.USER, "hi"),))
WORKFLOW = """
workflow: inside
places: {{begin: {{initial: true}}, end: {{terminal: true}}}}
agents:
  writer:
    llm_provider: {{type: vllm, model: {model}, options: {options}, request: {{ignore_eos: true}}}}
    llm_config: {{max_tokens: 400}}
transitions:
  write:
    from_places: begin
    to_place: end
    agent_execution: {{agent_id: writer, output_mapping: {{data.text: text}}}}
"""
PROGRAM = """
import asyncio, sys
from pathlib import Path
from circuit.app import Circuit

async def main():
    async with Circuit.open(sys.argv[1]) as circuit:
        workflow = await circuit.load(Path(sys.argv[2]))
        case = await circuit.start(workflow.id, {})
        view = await circuit.wait(case)
        print(view.status.value, len(view.tokens[0].data["text"]), flush=True)
        (model,) = circuit.registry.models.views()
        print(model.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def fails(environment: dict[str, str], spec: dict[str, Any]) -> ProviderError:
    """How a request to the provider that `spec` says fails."""
    registry = ProviderRegistry(environment)
    try:
        with pytest.raises(ProviderError) as caught:
            async for _ in registry.provider(spec).stream(ASKED):
                pass
        return caught.value
    finally:
        await registry.aclose()


async def test_a_load_that_cannot_be_says_why(tiny: Path, environment: dict[str, str]) -> None:
    """All at once: most of the time goes into importing vLLM."""
    option, hub, quantised_so, memory = await asyncio.gather(
        fails(environment, spec_of(tiny, {"max_model_length": 9})),
        fails(environment, spec_of("nobody/no-such-model")),
        fails(environment, spec_of(tiny, {"quantization": "gptq"})),
        # More room for keys and values than any machine of a test has; a GPU has never all of its memory to give.
        fails({**environment, "VLLM_CPU_KVCACHE_SPACE": "4000"}, spec_of(tiny, {"gpu_memory_utilization": 1.0})),
    )
    assert isinstance(option, ModelOptionsRefused), option
    assert "no engine argument 'max_model_length' (did you mean max_model_len?)" in str(option)
    assert isinstance(hub, ModelNotFound), hub
    assert "nobody/no-such-model" in str(hub)
    assert isinstance(quantised_so, ModelOptionsRefused), quantised_so
    assert "gptq" in str(quantised_so)
    assert isinstance(memory, ModelOutOfMemory), memory
    assert "gpu_memory_utilization" in str(memory)


async def test_a_model_for_vectors_gives_vectors_and_order_and_no_answers(
    environment: dict[str, str], tmp_path: Path
) -> None:
    spec = spec_of(make_model(tmp_path / "vectors"), {"runner": "pooling", "convert": "embed"})
    registry = ProviderRegistry(environment)
    try:
        texts = ("the same words", "entirely different!", "the same words")
        made = await registry.embedder(spec).embed(EmbeddingRequest("vectors", texts))
        assert len(made.vectors) == 3
        assert {len(vector) for vector in made.vectors} == {64}
        assert made.vectors[0] == pytest.approx(made.vectors[2], abs=1e-3)
        assert made.usage["input_tokens"] == sum(map(len, texts))
        ranked = await registry.reranker(spec).rerank(RerankRequest("vectors", texts[0], texts[1:]))
        assert [one.index for one in ranked] == [1, 0]
        with pytest.raises(ModelUnsupported, match="does not converse"):
            async for _ in registry.provider(spec).stream(ASKED):
                pass
    finally:
        await registry.aclose()


async def test_models_of_other_kinds_are_loaded_as_their_options_say(
    tiny: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """A cross-encoder, and a model of quantised weights, side by side."""
    judge = spec_of(make_model(tmp_path / "judge", num_labels=1))
    small = spec_of(quantised(tmp_path / "small", tiny), {"quantization": "compressed-tensors"})
    registry = ProviderRegistry(environment)
    query, texts = "which one?", ("this one", "that other one", "this one", "none")

    async def ranked() -> dict[int, float]:
        found = await registry.reranker(judge).rerank(RerankRequest("judge", query, texts))
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        return {one.index: one.score for one in found}

    async def said() -> str:
        asked = replace(ASKED, parameters={"max_tokens": 20, "temperature": 0.0})
        pieces = [piece async for piece in registry.provider(small).stream(asked)]
        return "".join(piece.text for piece in pieces if isinstance(piece, TextChunk))

    try:
        scores, text = await asyncio.gather(ranked(), said())
        assert scores.keys() == {0, 1, 2, 3}
        assert scores[0] == pytest.approx(scores[2], abs=1e-3) and len({round(one, 6) for one in scores.values()}) == 3
        assert all(0 < one < 1 for one in scores.values())
        assert text
        with pytest.raises(ModelUnsupported, match="makes no vectors"):
            await registry.embedder(judge).embed(EmbeddingRequest("judge", texts))
    finally:
        await registry.aclose()


def test_a_case_runs_to_its_end_and_no_process_outlives_circuit_and_its_model(
    tiny: Path, environment: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    """Through the whole of Circuit; then it and the model's process are killed at the same time."""
    file = tmp_path / "inside.yaml"
    file.write_text(WORKFLOW.format(model=tiny, options=str(OPTIONS).replace("True", "true")))
    program = [sys.executable, "-c", PROGRAM, database_url, str(file)]
    with subprocess.Popen(program, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as circuit:
        try:
            assert circuit.stdout is not None
            assert re.fullmatch(r"completed [1-9]\d\d\n", circuit.stdout.readline())
            host = psutil.Process(int(circuit.stdout.readline()))
            family = [host, *host.children(recursive=True)]
            assert any("EngineCore" in " ".join(one.cmdline()) for one in family)
            # Stopped, it cannot end what is left of the other.
            os.kill(circuit.pid, signal.SIGSTOP)
            host.kill()
        finally:
            circuit.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive

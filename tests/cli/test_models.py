"""`circuit models` on a worker whose models are scripted: real processes, whose engine says what it is told."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circuit.api.graphql.schema import create_schema
from circuit.app import Circuit
from circuit.app.figures import figures
from circuit.observability.metrics import Kind
from circuit.providers.vllm.process import Launch
from circuit.providers.vllm.spec import ModelSpec
from circuit.settings import Settings
from tests.cli.commanding import Command, environment

HOST = (sys.executable, str(Path(__file__).parents[1] / "providers" / "vllm_host.py"))
WORKFLOW = """\
workflow: inside
places: {submitted: {initial: true}, done: {terminal: true}}
agents:
  writer:
    llm_provider: {type: vllm, model: tiny, options: {enable_sleep_mode: true, max_model_len: 512}}
transitions:
  write: {from_places: submitted, to_place: done, agent_execution: {agent_id: writer}}
"""


@pytest.fixture
def worker(database_url: str) -> Iterator[None]:
    """A worker in a thread of its own, whose models are scripted."""
    ready, over = threading.Event(), threading.Event()

    async def work() -> None:
        settings = Settings.from_environment(environment({"CIRCUIT_DATABASE_URL": database_url}))
        async with Circuit.open(settings=settings) as circuit:
            circuit.registry._launch = Launch(settings.environment, HOST)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    assert ready.wait(60)
    yield
    over.set()
    thread.join(60)
    assert not thread.is_alive()


async def over_graphql(url: str) -> Any:
    """What a server of the same deployment answers, which holds no model itself."""
    async with Circuit.open(url, worker=False) as other:
        services = SimpleNamespace(held_models=other.models.held)
        context = SimpleNamespace(principal=other.principal, services=services, explorable=True)
        query = "{ heldModels { worker model state contextTokens } }"
        answer = await create_schema().execute(query, context_value=context)
    assert not answer.errors
    return answer.data


async def test_a_model_shows_its_counts_among_the_figures(database_url: str) -> None:
    async with Circuit.open(database_url, worker=False) as circuit:
        circuit.registry._launch = Launch(environment({}), HOST)
        await circuit.registry.models.model(ModelSpec.of({"type": "vllm", "model": "tiny"})).loaded()
        found = [
            one for one in await figures(circuit.engine, circuit.registry, circuit.settings) if "model" in one.labels
        ]
        assert ("circuit_model_ready", 1.0) in [(one.name, one.value) for one in found]
        assert {one.labels["model"] for one in found} == {"tiny"}
        assert {"circuit_model_generated_tokens", "circuit_model_running_requests"} <= {one.name for one in found}
        page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
        for one in found:
            assert f"`{one.name}{'_total' if one.kind is Kind.COUNTER else ''}`" in page


def test_models_are_listed_loaded_put_to_sleep_and_unloaded(
    circuit: Command, worker: None, database_url: str, tmp_path: Path
) -> None:
    assert circuit("models", "list").out.startswith("no models inside")
    file = tmp_path / "inside.yaml"
    file.write_text(WORKFLOW)
    assert circuit("load", file).code == 0
    assert circuit("models", "list", "--json").json == {"held": [], "not_loaded": ["tiny"]}
    assert "not loaded" in circuit("models", "list").out
    loaded = circuit("models", "load", "tiny", "--json")
    assert loaded.code == 0, loaded.err
    [held] = loaded.json
    assert (held["model"], held["state"], held["context_tokens"]) == ("tiny", "ready", 4096)
    told = asyncio.run(over_graphql(database_url))
    assert told == {
        "heldModels": [{"worker": held["worker"], "model": "tiny", "state": "ready", "contextTokens": 4096}]
    }
    assert circuit("models", "sleep", held["id"], "--json").json[0]["state"] == "asleep"
    assert circuit("models", "wake", "tiny", "--json").json[0]["state"] == "ready"
    listed = circuit("models", "list", "--worker", held["worker"][:18])
    assert listed.code == 0 and "ready" in listed.out
    assert circuit("models", "unload", "tiny", "--json").json == []
    again = circuit("models", "unload", "tiny")
    assert again.code == 1
    assert "holds no model 'tiny'" in again.out
    failed = circuit("models", "load", "/no/such/folder", "--option", "max_model_len=9", "--json")
    assert (failed.code, failed.json[0]["state"]) == (1, "refused")
    assert "there is no folder '/no/such/folder'" in failed.json[0]["detail"]


def test_a_model_is_tried_without_a_database(bare: Command) -> None:
    outcome = bare("models", "try", "scripted:any", "hello", "--json")
    assert outcome.code == 0
    assert outcome.json["finish"] == "stop"
    assert outcome.json["usage"]["output_tokens"] > 0
    assert outcome.json["load_seconds"] is None
    missing = bare("models", "try", "vllm:/no/such/folder", "hello", "--json")
    assert missing.code != 0
    assert missing.json["error"]["code"] in ("extra_missing", "model_not_found")
    assert "NAME=VALUE" in bare("models", "try", "vllm:x", "hello", "--option", "max").err
    assert "with vllm:NAME only" in bare("models", "try", "openai:x", "hello", "--option", "a=1").err


def test_the_models_of_a_provider_are_listed_with_what_could_not_be_asked(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "asks.yaml"
    file.write_text(WORKFLOW.replace("vllm, model: tiny, options: {enable_sleep_mode: true, max_model_len: 512}",
                                     "ollama, model: 'qwen3:8b'").replace("inside", "asks"))  # fmt: skip
    assert circuit("load", file).code == 0
    nowhere = {"OLLAMA_BASE_URL": "http://127.0.0.1:9"}
    told = circuit("models", "list", "--provider", "ollama", "--json", **nowhere)
    assert told.code == 1
    [model] = told.json["models"]
    assert (model["id"], model["named"], model["servers"]) == ("ollama:qwen3:8b", True, [])
    [fault] = told.json["unanswered"]
    assert (fault["server"], fault["code"]) == ("http://127.0.0.1:9", "unavailable")
    shown = circuit("models", "list", "--provider", "ollama", **nowhere)
    assert (shown.code, "ollama:qwen3:8b" in shown.out) == (1, True)
    assert "cannot connect to http://127.0.0.1:9" in shown.err
    lacking = circuit("models", "list", "--provider", "anthropic", ANTHROPIC_API_KEY="")
    assert (lacking.code, "ANTHROPIC_API_KEY is not set" in lacking.err) == (0, True)
    assert lacking.out.startswith("no models of anthropic")
    for wrong in (["--provider", "odd"], ["--provider", "ollama", "--worker", "x"]):
        assert circuit("models", "list", *wrong).code == 2


def test_without_a_worker_it_is_said_who_could_load_a_model(circuit: Command) -> None:
    nobody = circuit("models", "load", "tiny")
    assert (nobody.code, "no worker is running that could load it" in nobody.err) == (1, True)
    assert "no worker that is running holds tiny" in circuit("models", "unload", "tiny").err

"""What a run without a remote provider does not pay for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest
from replay import ASKED

from circuit.actions.retrieval import Retrieval
from circuit.agents.meter import Meter
from circuit.agents.run import AgentRun, Choice
from circuit.providers import pricing
from circuit.providers.calls import Calls
from circuit.providers.observed import ObservedEmbedder, ObservedProvider
from circuit.providers.provider import Finished, ModelChunk, ModelRequest
from circuit.providers.retrieval import Embeddings

MODEL = "gpt-4.1-mini"
SPEC: dict[str, Any] = {"type": "openai", "model": MODEL, "options": {}}
USAGE = {"input_tokens": 1_000, "output_tokens": 0}


class Known:
    """Stands for OpenAI, for the registry and for what is observed."""

    def embedder(self, spec: Any) -> Known:
        return self

    async def embed(self, request: Any) -> Embeddings:
        return Embeddings(((1.0,),), MODEL, USAGE)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        yield Finished("stop", MODEL, USAGE)


class Notes:
    """Stands for the journal of a run and the context of a function."""

    async def hold(self, most: Any) -> int | None:
        assert most.microdollars
        return None

    async def record(self, step: str, value: Any) -> Any:
        return value


async def hear(calls: Calls) -> None:
    async with aclosing(ObservedProvider(Known(), SPEC, calls).stream(ASKED)) as chunks:
        assert [chunk async for chunk in chunks]
    assert calls.of("openai", ASKED.model).dollars > 0


async def embed(calls: Calls) -> None:
    asked: Any = SimpleNamespace(model=MODEL)
    await ObservedEmbedder(Known(), SPEC, calls).embed(asked)
    assert calls.of("openai", MODEL).dollars > 0


async def meter(calls: Calls) -> None:
    notes: Any = Notes()
    run = AgentRun(MODEL, (), choices=(Choice("openai", MODEL),))
    assert await Meter(run, notes).hold(ASKED) is None


async def retrieve(calls: Calls) -> None:
    known: Any = Known()
    notes: Any = Notes()
    assert await Retrieval(known, {}, notes).embed("one", "openai:gpt-4.1-mini", ["text"], None) == [[1.0]]


def test_scripted_answers_need_no_http_library() -> None:
    code = (
        "import sys\n"
        "from circuit.actions.agent import AgentAction\n"
        "from circuit.providers.registry import ProviderRegistry\n"
        "ProviderRegistry({}).provider({'type': 'scripted', 'options': {}})\n"
        "print([name for name in ('httpx', 'httpcore', 'ssl') if name in sys.modules])\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "httpx" not in shown.stdout


@pytest.mark.parametrize("asked", [hear, embed, meter, retrieve])
async def test_prices_are_loaded_beside_the_event_loop_before_one_is_asked_for(
    asked: Callable[[Calls], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    look = pricing._priced  # pyright: ignore[reportPrivateUsage]

    def loaded(model: str, provider: str | None) -> bool:
        threads.append(threading.current_thread())
        return look(model, provider)

    monkeypatch.setattr(pricing, "_loaded", threading.Event())
    monkeypatch.setattr(pricing, "_priced", loaded)
    await asked(Calls())
    # The first that looks is beside the loop; once it has looked, the loop looks for itself.
    assert threads[0] is not threading.current_thread() and threads[-1] is threading.current_thread()
    many = len(threads)
    await asyncio.gather(*(pricing.ready("openai") for _ in range(5)))
    assert len(threads) == many, "what is there is not loaded again"


def test_the_table_of_prices_is_imported_by_no_event_loop() -> None:
    code = (
        "import asyncio, sys, threading\n"
        "from circuit.providers import pricing\n"
        "class Watched:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'genai_prices':\n"
        "            print('imported by', threading.current_thread() is threading.main_thread())\n"
        "sys.meta_path.insert(0, Watched())\n"
        "async def ask():\n"
        "    await pricing.ready('scripted')\n"
        "    await pricing.ready('openai', pricing.Price(1.0, 1.0))\n"
        "    print('needed', 'genai_prices' in sys.modules)\n"
        "    await asyncio.gather(pricing.ready('openai'), pricing.ready('anthropic'))\n"
        "    print('cost', pricing.cost_of('gpt-4.1-mini', {'input_tokens': 1_000_000}, 'openai'))\n"
        "asyncio.run(ask())\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == ["needed False", "imported by False", "cost 0.4"]

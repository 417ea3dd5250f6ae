"""`python -m benchmarks.agents` (or `make bench-agents`): what the firing of an agent costs beside its model.

A case for each prompt, started, fired, streamed to a reader and stored, as in `benchmarks.vllm`; in the place of vLLM
stands a process that gives a token to each of its batch every `--step` seconds (`benchmarks.paced_host`). So the CPU of
Circuit's process and of Postgres for a case is measured at the pace of a GPU, on a machine that has none; and, in turns
with it, how long the same process takes for the same number of answers when nobody stands before it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from statistics import median

import psutil
import yaml
from rich.console import Console

from benchmarks import results
from benchmarks.gauge import Gauge
from benchmarks.postgres import postgres
from benchmarks.results import Row, figure, rate
from circuit.app import Circuit, assembly
from circuit.providers.registry import SUPPORTED
from circuit.providers.vllm.process import Launch
from circuit.providers.vllm.spec import ModelSpec
from circuit.settings import Settings
from circuit.storage import schema

HOST = (sys.executable, str(Path(__file__).with_name("paced_host.py")))
console = Console(width=160)


def workflow(options: argparse.Namespace) -> str:
    """One agent on one transition."""
    provider = {"type": "vllm", "model": "paced", "options": {"step": options.step, "batch": options.batch}}
    agent = {
        "llm_provider": provider,
        "llm_config": {"max_tokens": options.tokens},
        "prompts": {"user_template": "{text}"},
    }
    execution = {"agent_id": "writer", "input_mapping": {"text": "data.text"}, "output_mapping": {"data.said": "text"}}
    return yaml.safe_dump(
        {
            "workflow": "paced",
            "places": {"begin": {"initial": True}, "end": {"terminal": True}},
            "agents": {"writer": agent},
            "transitions": {"write": {"from_places": "begin", "to_place": "end", "agent_execution": execution}},
        }
    )


@asynccontextmanager
async def alone(options: argparse.Namespace) -> AsyncGenerator[Callable[[], Awaitable[float]]]:
    """The process of the model with nothing before it: what has it do a round, and tells the seconds."""
    told = json.dumps({name: getattr(options, name) for name in ("step", "batch", "requests", "tokens")})
    program = (sys.executable, "-m", "benchmarks.paced_host", "--alone", told)
    process = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE)
    asked, answers = process.stdin, process.stdout
    assert asked is not None and answers is not None

    async def seconds() -> float:
        asked.write(b"\n")
        return float(await answers.readline())

    try:
        yield seconds
    finally:
        process.kill()
        await process.wait()


async def measure(options: argparse.Namespace, home: Path, url: str) -> list[Row]:
    """The rounds; the best one of each side counts."""
    gauge = await Gauge.open(url)
    address = await gauge.fresh("paced")
    await schema.upgrade(address)
    limit = {"MAX_CONCURRENT_EXECUTIONS": str(options.requests), "CIRCUIT_DATABASE_URL": address}
    settings = Settings.from_environment({**os.environ, "CIRCUIT_HOME": str(home), **limit})
    rounds: list[dict[str, float]] = []
    assembly.usable = lambda: SUPPORTED  # cases of models inside are taken here, though vLLM is not
    async with Circuit.open(settings=settings) as opened, alone(options) as seconds_alone:
        opened.registry._launch = Launch(os.environ, HOST)  # pyright: ignore[reportPrivateUsage]
        provider = (await opened.load(workflow(options))).agents["writer"].provider
        spec = {"type": provider.type, "model": provider.model, "options": provider.options}
        model = opened.registry.models.model(ModelSpec.of(spec))
        await model.loaded()
        starting = asyncio.Semaphore(options.starts)

        async def one(number: int) -> None:
            async with starting:
                case = await opened.start("paced", {"text": f"What is case {number} about?"})
            async with aclosing(opened.stream(case)) as happenings:
                async for _ in happenings:
                    pass

        def spent() -> dict[str, float]:
            host = sum(psutil.Process(model.view().pid).cpu_times()[:2])
            return {"circuit": time.process_time(), "postgres": gauge.cpu(), "host": host}

        async def steps() -> float:
            return (await model.counts())["vllm:iteration_tokens_total_count"]

        async def inside() -> dict[str, float]:
            before, stepped, began = spent(), await steps(), time.perf_counter()
            await asyncio.gather(*map(one, range(options.requests)))
            took = time.perf_counter() - began
            cost = {part: round((now - before[part]) * 1000 / options.requests, 2) for part, now in spent().items()}
            batch = options.requests * options.tokens / (await steps() - stepped)
            return {"cases_a_second": round(options.requests / took, 1), "mean_batch": round(batch, 1), **cost}

        # Round 0 warms both up.
        for number in range(options.rounds + 1):
            by_itself = round(options.requests / await seconds_alone(), 1)
            told = {"alone_a_second": by_itself, **await inside()}
            console.print(f"round {number}: {told}")
            if number:
                rounds.append(told)
    await gauge.close()
    asked = {"requests": options.requests, "tokens": options.tokens, "batch": options.batch, "step_s": options.step}
    ours, theirs = ([told[side] * options.tokens for told in rounds] for side in ("cases_a_second", "alone_a_second"))
    middle = round(median(mine / its for mine, its in zip(ours, theirs, strict=True)), 3)
    return [
        figure("agent_cpu_ms_a_case", min(told["circuit"] for told in rounds), "ms", **asked, rounds=rounds),
        rate("agent_at_a_pace", max(ours), max(theirs), "tokens/s", **asked, median_of_ratios=middle),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.agents", description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="cases a round (default 1000)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer (default 128)")
    parser.add_argument("--batch", type=int, default=256, help="answers at once (default 256)")
    parser.add_argument("--step", type=float, default=0.01, help="seconds a token (default 0.01)")
    parser.add_argument("--starts", type=int, default=64, help="cases that are being started at once (default 64)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, after one that warms up (default 3)")
    parser.add_argument("--output", type=Path, default=results.LATEST, help="where the results go")
    options = parser.parse_args()
    with postgres() as (url, folder):
        rows = asyncio.run(measure(options, folder / "home", url))
    results.write(rows, options.output)
    cost, pace = rows
    console.print(f"{cost['value']} ms of Circuit's CPU a case; {pace['ratio']:.1%} of the pace of the process alone")
    console.print(f"written to {options.output}")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.vllm` (or `make bench-vllm`): agents fired through the whole of Circuit beside vLLM alone.

Both sides load the same model with the same options and answer the same prompts, in turns: vLLM by `LLM.generate`, all
prompts at once as tokens that were made before; Circuit by as many cases, each started, fired, streamed to a reader and
stored in Postgres. There are several times as many prompts as fit into a batch, so that it is full but for the end.
The rate is tokens generated a second, of the best round of each side; beside it is the median of the rounds' ratios.

Without `--model` Llamas of random weights are made, in the shapes of `benchmarks.shapes`. On a GPU: `--sizes 1.5B,8B
--batch 512 --tokens 128` makes up the weights in the engine (`--dummy`, the rule there, so that nothing large is
written); a real model: `--model /models/Qwen3-8B`. Both sides are loaded at once, each with a share of the device.

On a CPU the engine and what stands before it share the cores, so that a very fast model has each of Circuit's
milliseconds taken from it. `--engine-core 0` gives it one for itself, on either side, as a GPU would be.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import yaml
from rich.console import Console

from benchmarks import results, shapes
from benchmarks.gauge import Gauge
from benchmarks.postgres import postgres
from benchmarks.results import Row, rate
from circuit.app import Circuit
from circuit.providers.vllm.model import HostedModel
from circuit.providers.vllm.spec import ModelSpec
from circuit.settings import Settings
from circuit.storage import schema

WORDS = ("a", "agent", "case", "clear", "draft", "fires", "its", "net", "of", "paper", "place", "reads", "the", "token")
ON_CPU: Mapping[str, Any] = {"enforce_eager": True, "distributed_executor_backend": "uni", "max_model_len": 1024}
ON_GPU: Mapping[str, Any] = {"gpu_memory_utilization": 0.4, "max_model_len": 1024, "max_num_batched_tokens": 8192}
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1"}

_TOLD = """
SELECT count(*), coalesce(sum((usage ->> 'output_tokens')::int), 0) FROM circuit.execution
WHERE case_id = ANY ($1::uuid[]) AND status = 'completed'
"""

console = Console(width=200)


def prompts(options: argparse.Namespace, number: int) -> list[str]:
    """The prompts of one round, the same for both sides and others than those of all other rounds."""
    source = random.Random(number)
    return [" ".join(source.choices(WORDS, k=options.words)) for _ in range(options.requests)]


@dataclass(frozen=True, slots=True)
class Round:
    """What one side did with the prompts of a round: tokens generated, steps of the engine, seconds, and the seconds of
    CPU of its parts."""

    tokens: int
    steps: int
    seconds: float
    cpu: Mapping[str, float]

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds

    def told(self) -> dict[str, Any]:
        spent = {part: round(seconds * 1000 / self.tokens, 3) for part, seconds in self.cpu.items()}
        return {"tokens_a_second": round(self.speed, 1), "steps": self.steps, "cpu_s_a_1000_tokens": spent}


class Offline:
    """vLLM alone, in a process of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self.about: Mapping[str, str] = {}
        """The device that it runs on, and the versions of what runs there."""

    async def launch(self) -> None:
        """Start the process, which imports what it needs: nothing is loaded yet."""
        told = {"model": self._options.model, "engine": self._options.engine, "tokens": self._options.tokens}
        program = [sys.executable, "-m", "benchmarks.vllm", "--offline", json.dumps(told)]
        self._process = await asyncio.create_subprocess_exec(
            *program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def load(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self.about = await self._answer()

    async def round(self, texts: Sequence[str]) -> Round:
        assert self._process is not None and self._process.stdin is not None
        before = _cpu(self._process.pid)
        self._process.stdin.write(json.dumps(texts).encode() + b"\n")
        tokens, steps, took = await self._answer()
        return Round(tokens, steps, took, {"vllm": _cpu(self._process.pid) - before})

    async def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    async def _answer(self) -> Any:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.startswith(b"ANSWER "):
                return json.loads(line.removeprefix(b"ANSWER "))
        raise RuntimeError("vLLM ended before it answered; its error output says why")


def offline(told: Mapping[str, Any]) -> None:
    """Be the other side: load when the first line comes, read prompts, a line each round, and answer with tokens and
    seconds."""
    import vllm
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.platforms import current_platform

    if not sys.stdin.readline():
        return
    llm = LLM(model=told["model"], **told["engine"])
    tokenizer = llm.get_tokenizer()
    parameters = SamplingParams(max_tokens=told["tokens"], temperature=0.7, ignore_eos=True)
    stepped, steps = llm.llm_engine.step, 0

    def step() -> Any:
        nonlocal steps
        steps += 1
        return stepped()

    llm.llm_engine.step = step
    # vLLM sets a few things before PyTorch is imported.
    import torch

    about = {"card": current_platform.get_device_name(), "vllm": vllm.__version__, "torch": str(torch.__version__)}
    print("ANSWER", json.dumps(about), flush=True)
    for line in sys.stdin:
        given = [
            TokensPrompt(
                prompt_token_ids=tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
                )
            )
            for text in json.loads(line)
        ]
        steps = 0
        began = time.perf_counter()
        outputs = llm.generate(given, parameters, use_tqdm=False)
        took = time.perf_counter() - began
        print("ANSWER", json.dumps([sum(len(one.outputs[0].token_ids) for one in outputs), steps, took]), flush=True)


def workflow(options: argparse.Namespace) -> str:
    """One agent on one transition."""
    provider = {
        "type": "vllm",
        "model": options.model,
        "options": options.engine,
        "request": {"ignore_eos": True},
    }
    agent = {
        "llm_provider": provider,
        "llm_config": {"max_tokens": options.tokens, "temperature": 0.7},
        "prompts": {"user_template": "{text}"},
    }
    execution = {
        "agent_id": "writer",
        "input_mapping": {"text": "data.text"},
        "output_mapping": {"data.answer": "text"},
        "timeout_seconds": 3600,
    }
    return yaml.safe_dump(
        {
            "workflow": "throughput",
            "places": {"begin": {"initial": True}, "end": {"terminal": True}},
            "agents": {"writer": agent},
            "transitions": {"write": {"from_places": "begin", "to_place": "end", "agent_execution": execution}},
        }
    )


class Inside:
    """The same through Circuit: a case for each prompt and a reader of each case; `starts` of them are being started
    at once. The clock stops when every reader has heard the end of its case; what the answers came to is read back from
    the database after that."""

    def __init__(self, circuit: Circuit, gauge: Gauge, model: HostedModel, starts: int) -> None:
        self._circuit = circuit
        self._gauge = gauge
        self._model = model
        self._starting = asyncio.Semaphore(starts)

    async def round(self, texts: Sequence[str]) -> Round:
        before, stepped = self._spent(), await self._steps()
        began = time.perf_counter()
        cases = await asyncio.gather(*map(self._one, texts))
        took = time.perf_counter() - began
        cpu = {part: seconds - before[part] for part, seconds in self._spent().items()}
        steps = await self._steps() - stepped
        return Round(await self._tokens(cases), steps, took, cpu)

    async def _one(self, text: str) -> str:
        async with self._starting:
            case = await self._circuit.start("throughput", {"text": text})
        async with aclosing(self._circuit.stream(case)) as happenings:
            async for _ in happenings:
                pass
        return case

    async def _tokens(self, cases: Sequence[str]) -> int:
        connection = await self._circuit.database.raw()
        try:
            ended, tokens = await connection.fetchrow(_TOLD, [self._circuit.key(case).case for case in cases])
        finally:
            await connection.close()
        if ended != len(cases):
            raise RuntimeError(f"of {len(cases)} agents {ended} have answered")
        return int(tokens)

    async def _steps(self) -> int:
        return int((await self._model.counts())["vllm:iteration_tokens_total_count"])

    def _spent(self) -> dict[str, float]:
        """Seconds of CPU so far: of this process, of Postgres, of the model's process, and of its engine."""
        host = self._model.view().pid
        own = sum(psutil.Process(host).cpu_times()[:2])
        parts = {"circuit": time.process_time(), "postgres": self._gauge.cpu(), "host": own}
        return {**parts, "engine": _cpu(host) - own}


async def measure(options: argparse.Namespace, name: str, gauge: Gauge, home: Path) -> Row:
    """Both sides in turns, with the model that `options` say, called `name`."""
    url = await gauge.fresh(f"vllm-{name}")
    await schema.upgrade(url)
    limit = {"MAX_CONCURRENT_EXECUTIONS": str(options.requests), "CIRCUIT_DATABASE_URL": url}
    variables = {**os.environ, "CIRCUIT_HOME": str(home), **limit}
    other = Offline(options)
    rounds: dict[str, list[Round]] = {"vllm": [], "circuit": []}
    try:
        async with Circuit.open(settings=Settings.from_environment(variables)) as circuit:
            published = await circuit.load(workflow(options))
            provider = published.agents["writer"].provider
            spec = {"type": provider.type, "model": provider.model, "options": provider.options}
            console.print(f"{name}: loading both sides ...")
            model = circuit.registry.models.model(ModelSpec.of(spec))
            # One after the other: each measures how much memory of the device is left to it.
            await other.launch()
            await model.loaded()
            await other.load()
            if options.engine_core is not None:
                for process in (other.pid, model.view().pid):
                    _keep(process, options.engine_core)
            inside = Inside(circuit, gauge, model, options.starts)
            sides: dict[str, Offline | Inside] = {"vllm": other, "circuit": inside}
            for number in range(options.rounds + 1):
                # Round 0 warms both up; then each goes first in turn.
                for side in sorted(sides, reverse=number % 2 == 0):
                    done = await sides[side].round(prompts(options, number))
                    if number:
                        rounds[side].append(done)
                    console.print(f"{name} round {number} {side:8} {done.tokens:7,} tokens {done.told()}")
    finally:
        await other.stop()
    ratios = [ours.speed / theirs.speed for ours, theirs in zip(rounds["circuit"], rounds["vllm"], strict=True)]
    told = {
        "model": options.about,
        "device": "cpu" if options.cpu else "gpu",
        **other.about,
        "options": options.engine,
        "batch": options.batch,
        "requests": options.requests,
        "prompt_words": options.words,
        "output_tokens": options.tokens,
        "starts_at_once": options.starts,
        "median_of_ratios": round(median(ratios), 3),
        "rounds": {side: [one.told() for one in done] for side, done in rounds.items()},
    }
    best = {side: max(one.speed for one in done) for side, done in rounds.items()}
    row = rate(f"vllm_inside_{'' if options.cpu else 'gpu_'}{name}", best["circuit"], best["vllm"], "tokens/s", **told)
    console.print(
        f"{name}: Circuit gives {row['ratio']:.1%} of the tokens a second that vLLM gives alone"
        f" (median of the rounds {median(ratios):.1%})"
    )
    return row


async def _measure_all(options: argparse.Namespace, folder: Path, url: str) -> list[Row]:
    gauge = await Gauge.open(url)
    rows: list[Row] = []
    try:
        for name in [Path(options.model).name] if options.model else options.sizes.split(","):
            chosen = argparse.Namespace(**vars(options))
            if options.model:
                chosen.about = options.model
            else:
                chosen.about = f"random Llama, {name}"
                chosen.model = await asyncio.to_thread(shapes.make, folder / name, name, weights=not options.dummy)
            rows.append(await measure(chosen, name, gauge, folder / "home"))
    finally:
        await gauge.close()
    return rows


def _cpu(pid: int) -> float:
    """Seconds of CPU so far of a process and all that it started."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def _keep(pid: int, core: int) -> None:
    """Keep the engine that the process `pid` has started on one core, with all of its threads."""
    engines = [one for one in psutil.Process(pid).children(recursive=True) if "EngineCore" in " ".join(one.cmdline())]
    if not engines:
        raise RuntimeError(f"no engine was found among what the process {pid} has started")
    for engine in engines:
        for thread in engine.threads():
            os.sched_setaffinity(thread.id, {core})


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.vllm", description=__doc__)
    parser.add_argument("--model", default="", help="a folder, or a name on the hub (default: one of random weights)")
    parser.add_argument("--option", action="append", default=[], type=_option, help="an engine argument, NAME=VALUE")
    parser.add_argument("--sizes", help=f"which models are made, of {','.join(shapes.SIZES)}")
    parser.add_argument(
        "--dummy",
        action=argparse.BooleanOptionalAction,
        help="models that are made have no weights on disk (default: on a GPU)",
    )
    parser.add_argument("--batch", type=int, help="requests in one batch (default 32, on a GPU 256)")
    parser.add_argument("--requests", type=int, help="prompts a round (default: four batches)")
    parser.add_argument("--words", type=int, default=10, help="words a prompt (default 10)")
    parser.add_argument("--tokens", type=int, default=96, help="tokens of each answer (default 96)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each side (default 3)")
    parser.add_argument("--starts", type=int, default=32, help="cases that are being started at once (default 32)")
    parser.add_argument("--engine-core", type=int, help="keep either side's engine on this core, and all else off it")
    parser.add_argument("--output", type=Path, default=results.LATEST, help="where the results go")
    parser.add_argument("--offline", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.offline:
        offline(json.loads(options.offline))
        return
    options.cpu = _installed("vllm-cpu")
    if options.cpu:
        os.environ.update({name: os.environ.get(name, value) for name, value in SMALL.items()})
    if options.engine_core is not None:
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = str(options.engine_core)
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {options.engine_core})
    options.sizes = options.sizes or ",".join(shapes.ON_CPU if options.cpu else shapes.ON_GPU)
    options.dummy = not options.model and (not options.cpu if options.dummy is None else options.dummy)
    options.batch = options.batch or (32 if options.cpu else 256)
    options.requests = options.requests or 4 * options.batch
    weights = {"load_format": "dummy"} if options.dummy else {}
    engine = {**(ON_CPU if options.cpu else ON_GPU), **weights, "max_num_seqs": options.batch}
    options.engine = {**engine, **dict(options.option)}
    with postgres() as (url, folder):
        rows = asyncio.run(_measure_all(options, folder, url))
    results.write(rows, options.output)
    console.print(f"written to {options.output}")


if __name__ == "__main__":
    main()

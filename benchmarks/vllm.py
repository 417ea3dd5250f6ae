"""`python -m benchmarks.vllm` (or `make bench-vllm`): agents fired through the whole of Circuit beside vLLM alone.

Both sides load the same model with the same options and answer the same prompts, in turns: vLLM by `LLM.generate`, all
prompts at once as tokens that were made before; Circuit by as many cases, each started, fired, streamed to a reader and
stored in Postgres. The rate is tokens generated a second, of the best round of each side.

Without `--model` a Llama of random weights is made; its width and depth are such that a CPU computes for longer than
Python talks. A real model, on a GPU: `--model /models/Qwen3-8B --option gpu_memory_utilization=0.4 --requests 256`
(both sides are loaded at once).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.console import Console

from benchmarks import results
from benchmarks.results import Row, rate
from circuit.app import Circuit
from circuit.providers.vllm.spec import ModelSpec
from circuit.settings import Settings

WORDS = ("a", "agent", "case", "clear", "draft", "fires", "its", "net", "of", "paper", "place", "reads", "the", "token")
ON_CPU: Mapping[str, Any] = {"enforce_eager": True, "distributed_executor_backend": "uni", "max_model_len": 1024}
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1"}

console = Console(width=130)


def prompts(options: argparse.Namespace, number: int) -> list[str]:
    """The prompts of one round, the same for both sides and others than those of all other rounds."""
    source = random.Random(number)
    return [" ".join(source.choices(WORDS, k=options.words)) for _ in range(options.requests)]


class Offline:
    """vLLM alone, in a process of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        told = {"model": self._options.model, "engine": self._options.engine, "tokens": self._options.tokens}
        program = [sys.executable, "-m", "benchmarks.vllm", "--offline", json.dumps(told)]
        self._process = await asyncio.create_subprocess_exec(
            *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24
        )
        await self._answer()

    async def round(self, texts: Sequence[str]) -> tuple[int, float]:
        """How many tokens were generated, and in how many seconds."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(texts).encode() + b"\n")
        return tuple(await self._answer())

    async def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def _answer(self) -> Any:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.startswith(b"ANSWER "):
                return json.loads(line.removeprefix(b"ANSWER "))
        raise RuntimeError("vLLM ended before it answered; its error output says why")


def offline(told: Mapping[str, Any]) -> None:
    """Be the other side: read prompts, a line each round, and answer with tokens and seconds."""
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(model=told["model"], **told["engine"])
    tokenizer = llm.get_tokenizer()
    parameters = SamplingParams(max_tokens=told["tokens"], temperature=0.7, ignore_eos=True)
    print("ANSWER []", flush=True)
    for line in sys.stdin:
        given = [
            TokensPrompt(
                prompt_token_ids=tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
                )
            )
            for text in json.loads(line)
        ]
        began = time.perf_counter()
        outputs = llm.generate(given, parameters, use_tqdm=False)
        took = time.perf_counter() - began
        print("ANSWER", json.dumps([sum(len(one.outputs[0].token_ids) for one in outputs), took]), flush=True)


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


async def inside(circuit: Circuit, texts: Sequence[str]) -> tuple[int, float]:
    """The same through Circuit: a case for each prompt, and a reader of each case."""

    async def one(text: str) -> int:
        case = await circuit.start("throughput", {"text": text})
        async with aclosing(circuit.stream(case)) as happenings:
            async for _ in happenings:
                pass
        view = await circuit.case(case)
        return int(view.executions[0].usage["output_tokens"])

    began = time.perf_counter()
    counts = await asyncio.gather(*map(one, texts))
    return sum(counts), time.perf_counter() - began


async def measure(options: argparse.Namespace, home: Path) -> list[Row]:
    """Both sides in turns."""
    variables = {**os.environ, "CIRCUIT_HOME": str(home), "MAX_CONCURRENT_EXECUTIONS": str(options.requests)}
    other = Offline(options)
    rounds: dict[str, list[float]] = {"vllm": [], "circuit": []}
    cost: dict[str, int] = {}
    try:
        async with Circuit.open(settings=Settings.from_environment(variables)) as circuit:
            published = await circuit.load(workflow(options))
            provider = published.agents["writer"].provider
            spec = {"type": provider.type, "model": provider.model, "options": provider.options}
            console.print("loading both sides ...")
            await asyncio.gather(circuit.registry.models.model(ModelSpec.of(spec)).loaded(), other.start())
            (held,) = circuit.registry.models.views()
            for number in range(options.rounds + 1):
                texts = prompts(options, number)
                for name in rounds:
                    before = _spent(held.pid)
                    tokens, took = await (other.round(texts) if name == "vllm" else inside(circuit, texts))
                    if name == "circuit":
                        after = _spent(held.pid)
                        cost = {part: round((after[part] - before[part]) / tokens * 1e6) for part in before}
                    speed = tokens / took
                    console.print(f"round {number} {name:8} {tokens:7,} tokens in {took:6.2f} s: {speed:8,.1f}/s")
                    if number:
                        # Round 0 warms both up.
                        rounds[name].append(round(speed, 1))
            console.print(f"CPU a token, in µs: {cost}")
    finally:
        await other.stop()
    told = {
        "requests": options.requests,
        "prompt_words": options.words,
        "output_tokens": options.tokens,
        "model": options.about,
        "device": "cpu" if options.cpu else "gpu",
        "rounds": rounds,
        "cpu_us_a_token": cost,
    }
    row = rate("vllm_inside", max(rounds["circuit"]), max(rounds["vllm"]), "tokens/s", **told)
    console.print(f"Circuit gives {row['ratio']:.1%} of the tokens a second that vLLM gives alone")
    return [row]


def _spent(host: int | None) -> dict[str, float]:
    """Seconds of CPU so far: of this process, of the model's process, and of its engine."""
    found = {"circuit": time.process_time()}
    model = psutil.Process(host)
    found["host"] = sum(model.cpu_times()[:2])
    found["engine"] = sum(sum(child.cpu_times()[:2]) for child in model.children(recursive=True))
    return found


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
    parser.add_argument("--requests", type=int, default=48, help="prompts a round (default 48)")
    parser.add_argument("--words", type=int, default=20, help="words a prompt (default 20)")
    parser.add_argument("--tokens", type=int, default=96, help="tokens of each answer (default 96)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each side (default 3)")
    parser.add_argument("--hidden", type=int, default=768, help="width of the model that is made (default 768)")
    parser.add_argument("--layers", type=int, default=12, help="its layers (default 12)")
    parser.add_argument("--output", type=Path, default=results.LATEST, help="where the results go")
    parser.add_argument("--offline", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.offline:
        offline(json.loads(options.offline))
        return
    options.cpu = _installed("vllm-cpu")
    if options.cpu:
        os.environ.update({name: os.environ.get(name, value) for name, value in SMALL.items()})
    options.engine = {**(ON_CPU if options.cpu else {}), "max_num_seqs": options.requests, **dict(options.option)}
    with tempfile.TemporaryDirectory(prefix="circuit-bench-", dir="/tmp") as directory:
        folder = Path(directory)
        folder.chmod(0o755)
        options.about = options.model or f"random Llama, width {options.hidden}, {options.layers} layers"
        if not options.model:
            from tests.vllm.tiny_model import make_model

            options.model = str(make_model(folder / "model", hidden=options.hidden, layers=options.layers))
        rows = asyncio.run(measure(options, folder / "home"))
    results.write(rows, options.output)
    console.print(f"written to {options.output}")


if __name__ == "__main__":
    main()

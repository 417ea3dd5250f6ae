"""`circuit models`: the models inside that workers hold, those that providers serve, and a try of any model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.session import run_session, with_circuit
from circuit.cli.terminal import Terminal, one_line
from circuit.cli.workflows import JsonOption
from circuit.errors import InvalidRequest
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.providers.catalogue import HeldModel

app = typer.Typer(no_args_is_help=True, help="Look at models, load and unload those inside, try any.")

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Its name (a folder, or as on the hub), or its id.")
]
WorkerOption = Annotated[
    str | None, typer.Option("--worker", metavar="WORKER", help="Only this worker: its id, or the beginning of it.")
]
OptionOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An engine argument of vLLM; the value is JSON, or text."),
]
_ACCEPTED = 3
"""The exit code where a model is being loaded and has not been yet."""
_LOOK_SECONDS = 1.0
_GOING = ("loading", "cold", "pausing", "unanswered")


@app.command("list")
def list_models(
    worker: WorkerOption = None,
    provider: Annotated[
        str | None,
        typer.Option("--provider", metavar="TYPE", help="Those of a provider instead: openai, anthropic, ollama, ..."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """List the models inside, or those of a provider. Inside: those that workers hold, and those that agents of
    published workflows name.

    With --provider those of a type of providers: its servers are asked for them, with the keys of this machine, and
    those that agents name stand beside them. Exit code 1 if a server did not answer.

    \b
    Examples:
      circuit models list
      circuit models list --worker 0199f3a2 --json
      circuit models list --provider ollama
    """
    if provider is not None:
        if worker is not None:
            raise InvalidRequest("--worker is for the models inside, and --provider for those of others.")
        return with_circuit(lambda circuit, terminal: _offered(circuit, terminal, provider), as_json=as_json)

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        held = await circuit.models.held(worker=worker)
        there = {one.model for one in held}
        named = [] if worker is not None else sorted({str(spec["model"]) for spec in await circuit.models.named()})
        absent = [name for name in named if name not in there]
        if as_json:
            terminal.result({"held": [one.as_dict() for one in held], "not_loaded": absent})
        else:
            _show(held, absent, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("load")
def load(
    model: ModelArgument,
    options: OptionOption = None,
    worker: WorkerOption = None,
    wait: Annotated[float, typer.Option("--wait", min=0.0, help="Wait so many seconds until it is loaded.")] = 900.0,
    as_json: JsonOption = False,
) -> int:
    """Have the workers load a model before a firing asks for it. It is loaded as the agents of published workflows ask
    for it.

    With --option it is loaded with these engine arguments, and serves agents that name the same. Exit code 0 if it is
    loaded, 1 if that failed, 3 if it was not done in the time of --wait.

    \b
    Examples:
      circuit models load /models/Qwen3-8B
      circuit models load Qwen/Qwen3-0.6B --option max_model_len=8192 --worker 0199f3a2
    """
    given = _options(options)

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.models.load(model, given, worker=worker)
        deadline = time.monotonic() + wait
        told = ""
        while True:
            mine = [one for one in found if one.model in ("", model)]
            going = [one for one in mine if one.state in _GOING]
            if not going or time.monotonic() >= deadline:
                break
            if (said := going[0].detail) and said != told:
                told = said
                terminal.note(one_line(said))
            await asyncio.sleep(_LOOK_SECONDS)
            found = await circuit.models.held(worker=worker)
        nobody = "no worker is running that could load it: start one with `circuit worker` or `circuit serve`"
        _tell(mine, terminal, as_json, nobody)
        if any(one.state in ("failed", "refused") for one in mine) or not mine:
            return 1
        return _ACCEPTED if going else 0

    return with_circuit(body, as_json=as_json)


@app.command("unload")
def unload(model: ModelArgument, worker: WorkerOption = None, as_json: JsonOption = False) -> int:
    """End the processes of a model in the workers, or in one. The next firing that asks for it loads it again.

    \b
    Example: circuit models unload /models/Qwen3-8B
    """
    return _change("unload", model, worker, as_json)


@app.command("sleep")
def sleep(model: ModelArgument, worker: WorkerOption = None, as_json: JsonOption = False) -> int:
    """Have a model give memory back and keep its process. The next firing wakes it.

    It must have been loaded with `enable_sleep_mode`, or with `sleep_after` in its provider.

    \b
    Example: circuit models sleep /models/Qwen3-8B
    """
    return _change("sleep", model, worker, as_json)


@app.command("wake")
def wake(model: ModelArgument, worker: WorkerOption = None, as_json: JsonOption = False) -> int:
    """Wake a model that sleeps, before the next firing does.

    \b
    Example: circuit models wake /models/Qwen3-8B
    """
    return _change("wake", model, worker, as_json)


@app.command("try")
def try_model(
    model: Annotated[str, typer.Argument(metavar="TYPE:NAME", help="A model of any provider, as for --model.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What it is asked.")],
    options: OptionOption = None,
    tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The longest answer.")] = 256,
    as_json: JsonOption = False,
) -> int:
    """Ask any model something, without a database. In this process: is the key right, does the model load, how fast is
    it. The answer is shown as it comes. A model inside is loaded for this, and unloaded after it.

    \b
    Examples:
      circuit models try openai:gpt-4.1-mini 'Say hello.'
      circuit models try vllm:/models/Qwen3-8B 'Say hello.' --option max_model_len=4096
    """
    from circuit.definition.model_choice import parse_model_override

    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()
    _, chosen = parse_model_override(model)
    given = _options(options)
    if given and chosen["type"] != "vllm":
        raise InvalidRequest("--option gives engine arguments of vLLM: it goes with vllm:NAME only.")

    async def body() -> int:
        return await _try(settings, {**chosen, **_provider_options(chosen, given)}, prompt, tokens, terminal)

    return run_session(body, settings)


async def _try(settings: Settings, spec: Mapping[str, Any], prompt: str, tokens: int, terminal: Terminal) -> int:
    from circuit.providers.messages import Message, Role
    from circuit.providers.provider import Finished, ModelRequest, ReasoningChunk, TextChunk
    from circuit.providers.registry import ProviderRegistry

    registry = ProviderRegistry(settings.environment, waits=settings.waits)
    said: list[str] = []
    thought: list[str] = []
    end: Finished | None = None
    try:
        registry.check(spec)
        loaded = await _loaded(registry, spec, terminal)
        asked = ModelRequest(str(spec["model"]), (Message.text(Role.USER, prompt),), {"max_tokens": tokens})
        began, first = time.monotonic(), None
        async for chunk in registry.provider(spec).stream(asked):
            first = first or time.monotonic() - began
            if isinstance(chunk, TextChunk):
                said.append(chunk.text)
                if not terminal.json:
                    terminal.piece(chunk.text)
            elif isinstance(chunk, ReasoningChunk):
                thought.append(chunk.text)
                if not terminal.json and len(thought) == 1:
                    terminal.note("it thinks ...")
            elif isinstance(chunk, Finished):
                end = chunk
        took = time.monotonic() - began
    finally:
        terminal.end()
        await registry.aclose()
    assert end is not None
    figures = {
        "load_seconds": loaded,
        "first_seconds": round(first or 0.0, 3),
        "seconds": round(took, 3),
    }
    if terminal.json:
        told = {"text": "".join(said), "reasoning": "".join(thought), "finish": end.reason, "model": end.model}
        terminal.result({**told, "usage": dict(end.usage), **figures})
    else:
        count = end.usage.get("output_tokens")
        rate = f", {count} tokens, {count / took:.1f} a second" if count and took else ""
        load_time = f"loaded in {loaded:.1f} s; " if loaded is not None else ""
        terminal.note(f"{load_time}first piece after {first or 0.0:.2f} s, all after {took:.2f} s{rate} ({end.reason})")
    return 0


async def _loaded(registry: Any, spec: Mapping[str, Any], terminal: Terminal) -> float | None:
    """How long a model inside took to load, which is told while it goes on; None for one that is elsewhere."""
    if spec["type"] != "vllm":
        return None
    from circuit.providers.vllm.spec import ModelSpec

    began = time.monotonic()
    loading = asyncio.ensure_future(registry.models.model(ModelSpec.of(spec)).loaded())
    told = ""
    while not loading.done():
        await asyncio.wait([loading], timeout=_LOOK_SECONDS)
        detail = registry.models.views()[0].detail
        if detail and detail != told and not loading.done():
            told = detail
            terminal.note(one_line(detail))
    await loading
    return round(time.monotonic() - began, 3)


def _provider_options(chosen: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    return {"options": {**(chosen.get("options") or {}), "options": dict(given)}}


def _options(texts: Sequence[str] | None) -> dict[str, Any]:
    """Engine arguments as they are written on the command line."""
    import orjson

    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidRequest(f"--option {text!r} is not NAME=VALUE, such as max_model_len=8192.")
        try:
            found[name.strip()] = orjson.loads(value)
        except orjson.JSONDecodeError:
            found[name.strip()] = value
    return found


def _change(do: str, model: str, worker: str | None, as_json: bool) -> int:
    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.models.change(do, model, worker=worker)
        # A worker that holds no such model has nothing to do; only if none does, the name is wrong.
        refused = [one for one in found if one.state in ("refused", "unanswered")]
        _tell(found, terminal, as_json, one_line(f"no worker that is running holds {model}"))
        return 1 if found and len(refused) == len(found) else 0

    return with_circuit(body, as_json=as_json)


async def _offered(circuit: Circuit, terminal: Terminal, kind: str) -> int:
    """Show what a type of providers offers."""
    asked = [
        spec
        for workflow in await circuit.queries.workflows(circuit.principal.tenant)
        for agent in (workflow.document.get("agents") or {}).values()
        for spec in (agent["llm_provider"], *(agent.get("fallback") or ()))
    ]
    known = {one.type: one for one in circuit.catalogue.providers(asked)}
    if kind not in known:
        raise InvalidRequest(f"{kind!r} is no type of providers: there are {', '.join(known)}.")
    offer = await circuit.catalogue.offer(kind, asked)
    lacks = known[kind].lacks
    if terminal.json:
        faults = [
            {"server": one.place, "code": one.error.code, "message": one.error.message} for one in offer.unanswered
        ]
        models = [one.as_dict() for one in offer.models]
        terminal.result({"provider": kind, "lacks": lacks, "models": models, "unanswered": faults})
        return 1 if faults else 0
    if lacks is not None:
        terminal.note(one_line(lacks))
    for one in offer.unanswered:
        terminal.note(one_line(one.error.message))
    rows = [
        (
            one.id,
            str(one.context_tokens or "-"),
            str(one.max_output_tokens or "-"),
            "yes" if one.named else "-",
            ", ".join(one.servers) or "-",
        )
        for one in offer.models
    ]
    if rows:
        terminal.table(("model", "context", "longest answer", "agents", "servers"), rows, whole="model")
    else:
        terminal.line(f"no models of {kind}: no server said that it serves one, and no agent names one")
    return 1 if offer.unanswered else 0


def _tell(found: Sequence[HeldModel], terminal: Terminal, as_json: bool, nobody: str) -> None:
    """Show what workers answered; `nobody` is said where none did."""
    if as_json:
        terminal.result([one.as_dict() for one in found])
    elif not found:
        terminal.note(nobody)
    else:
        _show(found, (), terminal)


def _show(held: Sequence[HeldModel], absent: Sequence[str], terminal: Terminal) -> None:
    rows = [
        (
            one.model or "-",
            one.id or "-",
            one.state,
            one.worker[:8],
            one.host,
            str(one.running),
            str(one.crashes),
            one_line(one.detail, 60) or "-",
        )
        for one in held
    ]
    rows += [(name, "-", "not loaded", "-", "-", "-", "-", "-") for name in absent]
    if not rows:
        terminal.line("no models inside; agents ask for them by `llm_provider: {type: vllm, model: ...}`")
        return
    terminal.table(("model", "id", "state", "worker", "host", "running", "crashes", "detail"), rows, whole="model")

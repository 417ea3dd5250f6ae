"""The process of a model without a model: Circuit's own side of it, with an engine that says what it is told to.

Its load's options say what (`replies`, in the form of the conformance suite, in turn), and how it misbehaves (`start`).
It lets a test wait for what it did: the order `wait` is answered when `paused` or `aborted` came about.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from circuit.providers.vllm.child import run
from circuit.providers.vllm.port import EngineDead, EngineFault, Message


def misbehave(load: Mapping[str, Any], start: Mapping[str, Any]) -> None:
    """Load as vLLM does, which blocks, and fail as `start` says."""
    print(f"loading {load['model']}\rshard 1 of 2\rshard 2 of 2", flush=True)
    if "once" in start and not Path(start["once"]).exists():
        Path(start["once"]).touch()
    elif "once" in start:
        start = {}
    if "held" in start:
        # It loads until somebody takes the file away.
        held = Path(start["held"])
        held.touch(exist_ok=False)
        while held.exists():
            time.sleep(0.01)
    if "child" in start:
        # A process of the engine's own, which must not stay behind.
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(start["child"]).write_text(str(started.pid))
    if "say" in start:
        print(start["say"], file=sys.stderr, flush=True)
    if "fault" in start:
        raise EngineFault(*start["fault"])
    if "exit" in start:
        os._exit(start["exit"])
    if "signal" in start:
        os.kill(os.getpid(), start["signal"])
    if start.get("hang"):
        time.sleep(600)


class ScriptedEngine:
    def __init__(self, load: Mapping[str, Any]) -> None:
        self.load = load
        self.asked = 0
        self.asleep = False
        self.events = {"paused": asyncio.Event(), "aborted": asyncio.Event()}

    @classmethod
    async def open(cls, load: Mapping[str, Any]) -> ScriptedEngine:
        misbehave(load, load["options"].get("start", {}))
        return cls(load)

    def about(self) -> Mapping[str, Any]:
        return {
            "context": 4096,
            "tasks": ["generate"],
            "version": "scripted",
            "sockets": os.environ["VLLM_RPC_BASE_PATH"],
        }

    async def answer(self, kind: str, request_id: str, order: Mapping[str, Any]) -> AsyncGenerator[Message, None]:
        match kind:
            case "wait":
                await self.events[order["name"]].wait()
                yield "end", {}
            case "sleep" | "wake":
                if "enable_sleep_mode" not in self.load["options"]:
                    raise EngineFault("model_options", "Sleep mode is not enabled")
                self.asleep = kind == "sleep"
                yield "end", {}
            case "figures":
                yield "end", {"vllm:generation_tokens_total": float(self.asked), "vllm:num_requests_running": 0.0}
            case "embed":
                yield "end", {"vectors": [[float(len(text)), 1.0] for text in order["texts"]], "usage": {}}
            case "rerank":
                yield "end", {"scores": [float(text in order["query"]) for text in order["texts"]]}
            case "chat":
                if self.asleep:
                    raise EngineFault(500, "the engine sleeps")
                async for piece in self.chat(order):
                    yield piece

    async def chat(self, order: Mapping[str, Any]) -> AsyncGenerator[Message, None]:
        replies = self.load["options"].get("replies") or [{"text": json.dumps(order)}]
        reply = replies[min(self.asked, len(replies) - 1)]
        self.asked += 1
        if "status" in reply:
            message = reply.get("body", {"error": {"message": "no"}})["error"]["message"]
            fault = EngineFault(reply["status"], message)
            headers = reply.get("headers", {})
            fault.as_dict = lambda: {"code": reply["status"], "message": message, "metadata": {"headers": headers}}  # type: ignore[method-assign]
            raise fault
        if "fault" in reply:
            raise EngineFault(*reply["fault"])
        if "raw" in reply:
            yield "nonsense", reply["raw"]
            return
        text = json.dumps(reply["object"]) if "object" in reply else reply.get("text", "")
        if "reasoning" in reply:
            for piece in cut(reply["reasoning"], 5):
                yield "delta", {"reasoning": piece}
        for number, piece in enumerate(cut(text, reply.get("cuts") or 12)):
            yield "text", piece
            if "die" in reply and number == 1 and first(reply.get("once")):
                if reply["die"] == "engine":
                    raise EngineDead("as told")
                os.kill(os.getpid(), signal.SIGKILL)
            if "gate" in reply and number == 1:
                self.events["paused"].set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.events["aborted"].set()
            # As much as one step of an engine: what comes in one does not come in another.
            await asyncio.sleep(0)
        for index, call in enumerate(reply.get("calls", ())):
            yield "delta", {"tool_calls": [{"index": index, "id": f"call-{index}", "function": {"name": call["name"]}}]}
            for piece in cut(json.dumps(call["arguments"], ensure_ascii=False), reply.get("cuts") or 100):
                yield "delta", {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
        reason = reply.get("finish", "stop")
        usage = {"prompt_tokens": 7, "completion_tokens": max(len(text), 1)}
        yield "end", {"reason": reason, "usage": usage}

    async def close(self) -> None:
        return None


def first(file: str | None) -> bool:
    """Whether this happens for the first time, of which `file` keeps the mark; always where there is none."""
    if file is None:
        return True
    known = Path(file).exists()
    Path(file).touch()
    return not known


def cut(text: str, size: int) -> list[str]:
    return [text[begin : begin + size] for begin in range(0, len(text), size)]


if __name__ == "__main__":
    sys.exit(run(ScriptedEngine.open, sys.argv[1:]))

"""What goes wrong with a model inside, as the errors that providers raise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from circuit.errors import (
    ModelCrashed,
    ModelNotFound,
    ModelOptionsRefused,
    ModelOutOfMemory,
    ModelUnsupported,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
)
from circuit.providers.failure import Peer, stream_error
from circuit.security.redaction import excerpt

PLACE = "vLLM"
_MEMORY = re.compile(
    r"out of memory|OutOfMemory|cannot allocate memory|bad_alloc|MemoryError|No available memory for the cache"
    r"|less than (desired|requested) (GPU |CPU )?memory|is larger than the available KV cache"
    r"|larger than the maximum number of tokens that can be stored in KV cache|not enough (GPU |CPU )?memory",
    re.IGNORECASE,
)
_CHANGED = re.compile(r"Error in memory profiling")
_TELLING = re.compile(r"(Error|Exception)\b.*:|out of memory|Killed", re.IGNORECASE)
_FOLLOWS = re.compile(r"See root cause above|EngineDeadError|EngineGenerateError|CancelledError")
_PREFIX = re.compile(r"^(\(\w+ pid=\d+\) )?((ERROR|WARNING|INFO) [\d-]+ [\d:]+ \[[^\]]*\] )?")
_HINT = (
    "use a smaller model or a quantised one (`quantization`), a shorter `max_model_len`, another"
    " `gpu_memory_utilization`, or more devices (`tensor_parallel_size`)"
)
_KINDS: Mapping[str, type[ProviderError]] = {
    error.code: error for error in (ModelNotFound, ModelOptionsRefused, ModelOutOfMemory, ModelUnsupported)
}


def answer_fault(model: str, fault: Mapping[str, Any]) -> ProviderError:
    """The error that a request ended with in the engine."""
    code, message = fault.get("code"), str(fault.get("message") or "")
    kind = _KINDS.get(code) if isinstance(code, str) else None
    if kind is not None:
        return kind(f"{model}: {excerpt(message, 800)}")
    return stream_error(Peer(PLACE, model, ""), fault, datetime.now(UTC))


def start_fault(model: str, fault: Mapping[str, Any], tail: Sequence[str]) -> ProviderError:
    """Why a model was not loaded. The engine's own processes say it on their error output alone."""
    said = str(fault.get("message") or "")
    if any(_CHANGED.search(line) for line in (said, *tail)):
        return ProviderUnavailable(
            f"{model} was not loaded: another program gave memory of the device back while vLLM measured what is left"
        )
    if fault.get("code") != ModelNotFound.code and (out := _memory(model, [said, *tail])) is not None:
        return out
    if fault.get("code") in _KINDS:
        return answer_fault(model, fault)
    return ModelOptionsRefused(f"vLLM cannot load {model}: {excerpt(_cause(tail) or said, 800)}")


def ended_fault(model: str, code: int | None, tail: Sequence[str], *, loading: bool) -> ProviderError:
    """A process that ended without being told to, with this exit code."""
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    if loading:
        out = _memory(model, tail)
        if out is None and code == -9:
            out = ModelOutOfMemory(
                f"the process of {model} was killed while it loaded, as the system does where memory is short: {_HINT}"
            )
        if out is not None:
            return out
    cause = _cause(tail)
    told = f": {excerpt(cause, 500)}" if cause else ""
    doing = "while it loaded" if loading else "while it answered; it is started again"
    return ModelCrashed(f"the process of {model} ended ({how}) {doing}{told}")


def late_fault(model: str, seconds: float, tail: Sequence[str]) -> ProviderError:
    """A start that took too long."""
    last = f"; the last it said was: {excerpt(tail[-1], 300)}" if tail else ""
    return ProviderTimeout(f"{model} was not loaded within {seconds:g} s (`start_timeout`){last}")


def _memory(model: str, lines: Sequence[str]) -> ProviderError | None:
    told = next((line for line in lines if _MEMORY.search(line)), None)
    if told is None:
        return None
    return ModelOutOfMemory(f"there is not enough memory to load {model}: {excerpt(told, 500)}. Try this: {_HINT}")


def _cause(tail: Sequence[str]) -> str:
    """The line that tells most of what went wrong: the last that names an error other than the engine's own end."""
    telling = [line for line in tail if _TELLING.search(line) and not _FOLLOWS.search(line)]
    return _PREFIX.sub("", telling[-1]) if telling else ""

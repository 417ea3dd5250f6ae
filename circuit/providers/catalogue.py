"""The providers that there are, whether each can be used as things stand, and what is known of the models asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuit.errors import ProviderError
from circuit.providers.profiles import profile_of
from circuit.providers.registry import SUPPORTED, ProviderRegistry


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What is known of a model by its name."""

    name: str
    context_tokens: int | None
    max_output_tokens: int | None
    tools: bool
    images: bool
    reasoning: bool
    json_schema: bool

    @classmethod
    def named(cls, name: str) -> KnownModel:
        profile = profile_of(name)
        return cls(
            name,
            profile.context,
            profile.max_output,
            profile.tools,
            profile.images,
            profile.reasoning,
            profile.json_schema,
        )


@dataclass(frozen=True, slots=True)
class KnownProvider:
    """A type of providers. `lacks` says what it cannot do without and does not have."""

    type: str
    lacks: str | None
    models: tuple[KnownModel, ...]


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model inside that a worker holds, as it told. `state` is one of `ModelState`, or says that the worker did not
    answer (`unanswered`), or could not do what it was asked (`refused`)."""

    worker: str
    host: str
    model: str
    state: str
    id: str = ""
    detail: str = ""
    running: int = 0
    crashes: int = 0
    context_tokens: int | None = None
    version: str = ""
    load_seconds: float = 0.0

    @classmethod
    def of(cls, worker: str, host: str, told: Mapping[str, Any]) -> HeldModel:
        return cls(
            worker,
            host,
            told["model"],
            told["state"],
            told["id"],
            told["detail"],
            told["running"],
            told["crashes"],
            told["context"],
            told["version"],
            told["load_seconds"],
        )

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def catalogue(registry: ProviderRegistry, asked: Iterable[Mapping[str, Any]]) -> Sequence[KnownProvider]:
    """Every type of providers, with the models that `asked` (providers as agents name them) ask for."""
    models: dict[str, set[str]] = {kind: set() for kind in SUPPORTED}
    for spec in asked:
        models.setdefault(str(spec.get("type")), set()).add(str(spec.get("model")))
    return [
        KnownProvider(kind, _lacks(registry, kind), tuple(KnownModel.named(name) for name in sorted(names)))
        for kind, names in sorted(models.items())
    ]


def _lacks(registry: ProviderRegistry, kind: str) -> str | None:
    try:
        registry.check({"type": kind, "model": "any", "options": {}})
    except ProviderError as error:
        return error.message
    return None

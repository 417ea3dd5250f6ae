"""The providers that there are, whether each can be used as things stand, and what is known of the models asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuit.errors import ProviderMisconfigured
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
    except ProviderMisconfigured as error:
        return error.message
    return None

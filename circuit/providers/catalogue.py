"""The providers that there are, whether each can be used as things stand, and their models: those that agents name, and
those that their servers say they serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuit.errors import ProviderError
from circuit.providers.profiles import profile_of
from circuit.providers.registry import SUPPORTED, ProviderRegistry

if TYPE_CHECKING:
    from circuit.providers.inventory import ServedModel


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What is known of a model by its name, and by what its servers say. `named`: an agent asks for it; `servers`: who
    says that he serves it."""

    provider: str
    name: str
    context_tokens: int | None
    max_output_tokens: int | None
    tools: bool
    images: bool
    reasoning: bool
    json_schema: bool
    named: bool = False
    servers: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """What chooses it: `TYPE:NAME`."""
        return f"{self.provider}:{self.name}"

    @classmethod
    def of(cls, provider: str, name: str, named: bool, told: Sequence[tuple[str, ServedModel]]) -> KnownModel:
        """`told` is what each server that serves it says of it: that goes before what its name tells."""
        profile = profile_of(name)
        said = next((one for _, one in told if one.context_tokens is not None), None)
        longest = next((one for _, one in told if one.max_output_tokens is not None), None)
        return cls(
            provider,
            name,
            profile.context if said is None else said.context_tokens,
            profile.max_output if longest is None else longest.max_output_tokens,
            profile.tools,
            profile.images,
            profile.reasoning,
            profile.json_schema,
            named,
            tuple(dict.fromkeys(place for place, _ in told)),
        )

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, **{name: getattr(self, name) for name in self.__slots__}}


@dataclass(frozen=True, slots=True)
class KnownProvider:
    """A type of providers. `lacks` says what it cannot do without and does not have."""

    type: str
    lacks: str | None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A server that did not say what it serves, and why."""

    place: str
    error: ProviderError


@dataclass(frozen=True, slots=True)
class Offer:
    """The models of one type of providers, by name, and the servers that could not be asked."""

    models: tuple[KnownModel, ...]
    unanswered: tuple[Unanswered, ...]


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


class ModelCatalogue:
    """Looks providers and their models up. `asked` are providers as agents name them; `defaults` has the options of
    those types that need some where no agent says them."""

    def __init__(self, registry: ProviderRegistry, defaults: Mapping[str, Mapping[str, Any]]) -> None:
        self._registry = registry
        self._defaults = defaults

    def providers(self, asked: Iterable[Mapping[str, Any]]) -> Sequence[KnownProvider]:
        """Every type of providers. No request is sent."""
        kinds = {*SUPPORTED, *(str(spec.get("type")) for spec in asked)}
        return [KnownProvider(kind, self._lacks(kind)) for kind in sorted(kinds)]

    async def offer(self, kind: str, asked: Sequence[Mapping[str, Any]]) -> Offer:
        """The models of a type of providers: those that agents name, and those that the servers serve which agents
        name or this process is configured for. Takes a few seconds at most."""
        mine = [spec for spec in asked if spec.get("type") == kind]
        default = {"type": kind, "model": "", "options": self._defaults.get(kind, {})}
        served = await self._registry.served([default, *mine])
        told: dict[str, list[tuple[str, ServedModel]]] = {}
        for server in served:
            for model in server.models:
                told.setdefault(model.name, []).append((server.place, model))
        named = {str(spec.get("model")) for spec in mine}
        models = [KnownModel.of(kind, name, name in named, told.get(name, ())) for name in sorted(named | told.keys())]
        faults = {(one.place, one.error.code): Unanswered(one.place, one.error) for one in served if one.error}
        return Offer(tuple(models), tuple(faults.values()))

    def _lacks(self, kind: str) -> str | None:
        try:
            self._registry.check({"type": kind, "model": "any", "options": self._defaults.get(kind, {})})
        except ProviderError as error:
            return error.message
        return None

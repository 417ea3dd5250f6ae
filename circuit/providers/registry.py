"""From a workflow's `llm_provider` to the adapter that speaks to it.

The HTTP client is made when the first remote provider is asked for: a run with scripted answers never loads it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from circuit.errors import ProviderError, ProviderMisconfigured
from circuit.providers.balance import BalancedProvider, Health, Member
from circuit.providers.cache import AnswerStore, CachedProvider
from circuit.providers.calls import Calls
from circuit.providers.fallback import Choice, FallbackProvider
from circuit.providers.limits import Allowance, LimitedProvider, Limits, Rations
from circuit.providers.observed import ObservedEmbedder, ObservedProvider, ObservedReranker
from circuit.providers.provider import ModelRequest, Provider

if TYPE_CHECKING:
    from circuit.http import Http, Timeouts
    from circuit.providers.endpoint import Endpoint
    from circuit.providers.inventory import Inventory, Served
    from circuit.providers.retrieval import Embedder, EmbeddingWire, Reranker
    from circuit.providers.vectors import RemoteVectors, ScriptedVectors
    from circuit.providers.vllm.model import ModelView
    from circuit.providers.vllm.models import Models
    from circuit.providers.vllm.process import Launch
    from circuit.providers.vllm.provider import VllmProvider

REMOTE = ("anthropic", "custom", "google", "ollama", "openai")
INSIDE = "vllm"
SUPPORTED = (*REMOTE, INSIDE, "scripted")
REMEMBERED_SECONDS = 600.0
"""What was not asked for so long says nothing of what a provider can take."""
LONGEST_WRITTEN = 200
"""Characters of a model's name that stand in the name of its limits, which is a key in the database."""


def usable() -> tuple[str, ...]:
    """The types of providers that this process can speak to: models inside only where vLLM is installed."""
    from circuit.providers.vllm.spec import installed

    return SUPPORTED if installed() else tuple(kind for kind in SUPPORTED if kind != INSIDE)


class ProviderRegistry:
    """Gives providers and shares their connections. Use it in one event loop, and close it.

    `environment` is what references such as `${NAME}` and `OPENAI_API_KEY` are looked up in, at each request.
    `waits` bounds in seconds what servers are waited for, by the names of `Timeouts`, unless `timeouts` says all of
    them. What providers allow in a minute is shared with other processes where there are `rations`. `launch` says how
    the processes of models inside are started, for tests.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        waits: Mapping[str, float] | None = None,
        timeouts: Timeouts | None = None,
        rations: Rations | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        launch: Launch | None = None,
    ) -> None:
        self._environment = environment
        self._waits = waits or {}
        self._timeouts = timeouts
        self._sleep = sleep
        self._http: Http | None = None
        self.calls = Calls()
        """What the calls of models come to."""
        self._health = Health()
        self._rations = rations
        self._allowances: dict[str, Allowance] = {}
        # What endpoints refused to know of a request, so that it is not sent again.
        self._unknown: dict[str, set[str]] = {}
        self._launch = launch
        self._models: Models | None = None
        self._inventory: Inventory | None = None
        # What each provider was reached by when it was asked last: endpoints, and what they allow.
        self._reached: dict[tuple[str, str, str], tuple[float, list[tuple[str, Allowance]]]] = {}

    def provider(self, spec: Mapping[str, Any]) -> Provider:
        """The provider that `spec` (`type`, `options`) names. Raises `ProviderMisconfigured`.

        What is missing for a request (a key, a variable) is said when the request is made.
        """
        kind = spec.get("type")
        given: Any = spec.get("options") or {}
        if not isinstance(given, Mapping):
            raise ProviderMisconfigured("the options of a provider must be an object")
        options = cast("Mapping[str, Any]", given)
        if kind == "scripted":
            from circuit.providers.scripted import ScriptedProvider

            return ScriptedProvider(options, sleep=self._sleep)
        if kind == INSIDE:
            return self._inside(spec)
        if kind in REMOTE:
            return self._remote(str(kind), str(spec.get("model") or ""), options)
        raise ProviderMisconfigured(
            f"the provider type {kind!r} is not supported yet; supported are {', '.join(SUPPORTED)}"
        )

    def fallback(
        self,
        specs: Sequence[Mapping[str, Any]],
        store: AnswerStore | None = None,
        seconds: float = 0.0,
        fitted: Callable[[int, ModelRequest], ModelRequest] = lambda _, request: request,
    ) -> Provider:
        """The first of the providers that `specs` name, and where it fails the next, asked for what `fitted` makes of
        the request for it; with a `store` they share what was answered in the last `seconds`. Raises
        `ProviderMisconfigured`."""

        def made(spec: Mapping[str, Any]) -> Provider:
            provider = ObservedProvider(self.provider(spec), spec, self.calls)
            return provider if store is None else CachedProvider(provider, spec, store, seconds)

        if len(specs) == 1:
            return made(specs[0])
        return FallbackProvider(
            [
                Choice(
                    f"{spec.get('type')}:{spec.get('model')}",
                    str(spec.get("model") or ""),
                    made(spec),
                    partial(fitted, number) if number else lambda request: request,
                )
                for number, spec in enumerate(specs)
            ]
        )

    def embedder(self, spec: Mapping[str, Any]) -> Embedder:
        """What makes vectors with the provider that `spec` names. Raises `ProviderMisconfigured`."""
        from circuit.providers.retrieval import embedding_wire

        kind = str(spec.get("type"))
        made = self._own_vectors(spec) or self._vectors(spec, embedding_wire(kind))
        return ObservedEmbedder(made, spec, self.calls)

    def reranker(self, spec: Mapping[str, Any]) -> Reranker:
        """What puts texts in order with the provider that `spec` names: `custom`, for a server that has `/rerank`,
        `vllm` or `scripted`. Raises `ProviderMisconfigured`."""
        made = self._own_vectors(spec)
        if made is None and spec.get("type") != "custom":
            raise ProviderMisconfigured(
                f"a provider of the type {spec.get('type')} puts no texts in order: use custom or vllm"
            )
        return ObservedReranker(made or self._vectors(spec, None), spec, self.calls)

    def _own_vectors(self, spec: Mapping[str, Any]) -> ScriptedVectors | VllmProvider | None:
        """What makes vectors in this process, if `spec` names such."""
        if spec.get("type") == "scripted":
            from circuit.providers.vectors import ScriptedVectors

            return ScriptedVectors()
        return self._inside(spec) if spec.get("type") == INSIDE else None

    def _endpoints(self, spec: Mapping[str, Any]) -> tuple[Endpoint, ...]:
        """Where a remote provider is reached. Raises `ProviderMisconfigured`."""
        from circuit.providers.accounts import ACCOUNTS
        from circuit.providers.endpoint import endpoints

        return endpoints(
            ACCOUNTS[str(spec["type"])], str(spec.get("model") or ""), spec.get("options") or {}, self._environment
        )

    def _vectors(self, spec: Mapping[str, Any], wire: EmbeddingWire | None) -> RemoteVectors:
        from circuit.providers.vectors import RemoteVectors

        options: Mapping[str, Any] = spec.get("options") or {}
        allowance = self._allowance_of(str(spec.get("model") or ""), options)
        return RemoteVectors(
            self._shared(), lambda: self._endpoints(spec), wire, options.get("options"), allowance=allowance
        )

    def check(self, spec: Mapping[str, Any], *others: Mapping[str, Any]) -> None:
        """Raise `ProviderMisconfigured` if the provider that `spec` names cannot be used as things stand, nor one of
        `others`: its type is not known, or a key, an address or a variable lacks. No request is sent."""
        try:
            self._check(spec)
        except ProviderError:
            if not any(self._usable(other) for other in others):
                raise

    def _usable(self, spec: Mapping[str, Any]) -> bool:
        with suppress(ProviderError):
            self._check(spec)
            return True
        return False

    def _check(self, spec: Mapping[str, Any]) -> None:
        self.provider(spec)
        if spec["type"] == INSIDE:
            from circuit.providers.vllm.spec import ModelSpec, check_installed, check_paths

            check_installed()
            check_paths(ModelSpec.of(spec))
        if spec["type"] in REMOTE:
            self._endpoints(spec)

    async def served(self, specs: Iterable[Mapping[str, Any]]) -> Sequence[Served]:
        """What the servers that these providers reach say they serve: remote ones, as far as they can be asked."""
        if self._inventory is None:
            from circuit.providers.inventory import Inventory

            self._inventory = Inventory(self._shared)
        reached: list[tuple[str, Endpoint]] = []
        for spec in specs:
            if spec.get("type") in REMOTE:
                with suppress(ProviderMisconfigured):
                    reached += ((str(spec["type"]), endpoint) for endpoint in self._endpoints(spec))
        return await self._inventory.served(reached)

    async def aclose(self) -> None:
        """Close all connections, and end the models inside. Twice is fine."""
        if self._inventory is not None:
            await self._inventory.aclose()
        if self._models is not None:
            await self._models.aclose()
        if self._http is not None:
            await self._http.aclose()

    def _remote(self, kind: str, model: str, options: Mapping[str, Any]) -> Provider:
        from circuit.providers.accounts import ACCOUNTS, wire_of
        from circuit.providers.endpoint import endpoints
        from circuit.providers.remote import RemoteProvider

        wire, http = wire_of(kind, options), self._shared()
        extra: Any = options.get("options")
        allowance_of = self._allowance_of(model, options)

        def member(endpoint: Endpoint) -> Member:
            allowance = allowance_of(endpoint)
            remote = RemoteProvider(
                http,
                wire,
                endpoint,
                extra=extra,
                learn=allowance.learn,
                unknown=self._unknown.setdefault(endpoint.identity, set()),
            )
            return Member(endpoint.identity, LimitedProvider(remote, allowance))

        def members() -> list[Member]:
            found = endpoints(ACCOUNTS[kind], model, options, self._environment)
            place = (kind, model, str(options.get("base_url") or ""))
            self._reached[place] = (self._health.now(), [(one.identity, allowance_of(one)) for one in found])
            return [member(endpoint) for endpoint in found]

        return BalancedProvider(members, self._health)

    def _inside(self, spec: Mapping[str, Any]) -> VllmProvider:
        from circuit.providers.vllm.provider import VllmProvider
        from circuit.providers.vllm.spec import ModelSpec

        return VllmProvider(ModelSpec.of(spec), self.models.model)

    @property
    def models(self) -> Models:
        """The models that this process holds itself."""
        if self._models is None:
            from circuit.providers.vllm.models import Models
            from circuit.providers.vllm.process import Launch

            self._models = Models(self._launch or Launch(self._environment), sleep=self._sleep)
        return self._models

    async def counts(self) -> Sequence[tuple[ModelView, Mapping[str, float]]]:
        """What each of them counts; nothing where there are none."""
        return () if self._models is None else await self._models.counts()

    def pressed(self) -> frozenset[str]:
        """The types of providers that can take no more now: every endpoint of them that was asked of late has too much
        to do, or has used up what it allows."""
        now = self._health.now()
        free: dict[str, bool] = {}
        for (kind, _, _), (asked_at, reached) in self._reached.items():
            if now - asked_at < REMEMBERED_SECONDS:
                able = any(not (self._health.pressed(identity) or one.closed) for identity, one in reached)
                free[kind] = free.get(kind, False) or able
        return frozenset(kind for kind, able in free.items() if not able)

    def _allowance_of(self, model: str, options: Mapping[str, Any]) -> Callable[[Endpoint], Allowance]:
        """The allowance of an endpoint for one model: all that name the same limits share it."""
        limits = Limits.of(options.get("limits") or {})
        minute = limits.requests_per_minute, limits.tokens_per_minute

        def found(endpoint: Endpoint) -> Allowance:
            name = f"{endpoint.identity} {_written(model)} {limits}"
            allowance = self._allowances.get(name)
            if allowance is None:
                shared = self._rations if minute != (None, None) else None
                ration = None if shared is None else shared.ration(name, *minute)
                allowance = self._allowances[name] = Allowance(limits, ration, sleep=self._sleep)
            return allowance

        return found

    def http(self) -> Http:
        """The connections of this registry, for others that call servers too."""
        return self._shared()

    def _shared(self) -> Http:
        if self._http is None:
            from circuit.http import Http, Timeouts

            self._http = Http(self._timeouts or Timeouts(**self._waits))
        return self._http


def _written(model: str) -> str:
    """The model's name as that of its limits has it: its hash where a key of the database would not take it."""
    if len(model) <= LONGEST_WRITTEN and model.isprintable():
        return model
    return hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()

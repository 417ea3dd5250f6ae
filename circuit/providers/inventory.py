"""Which models the servers of providers serve: asked of them, for a few seconds at most, and kept for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from circuit.errors import AuthenticationRefused, BadResponse, ProviderError, ProviderTimeout
from circuit.http import origin
from circuit.providers.failure import Peer, status_error
from circuit.providers.parser import mapping, parsed, sequence, text

if TYPE_CHECKING:
    from circuit.http import Http
    from circuit.providers.endpoint import Endpoint

ASK_SECONDS = 3.0
KEPT_SECONDS = 60.0
FAULT_SECONDS = 15.0
"""How long a server that could not be asked is not asked again."""
MOST_MODELS = 5_000
MOST_SERVERS = 200
ANSWER_LIMIT = 8 * 1024 * 1024
_LONGEST_NAME = 500


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a server says it serves, and what it says the model holds."""

    name: str
    context_tokens: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What one server serves; with `error` it could not be asked."""

    place: str
    models: tuple[ServedModel, ...] = ()
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """How one protocol lists models: `path` below the base, `entries` of an answer, and what goes on behind it."""

    path: str
    entries: Callable[[Any], Iterator[ServedModel]]
    more: Callable[[Any], str | None] = lambda _: None


@dataclass(slots=True)
class _Kept:
    task: asyncio.Task[Served]
    asked_at: float

    def holds(self, now: float) -> bool:
        if not self.task.done():
            return True
        if self.task.cancelled() or self.task.exception() is not None:
            return False
        return now - self.asked_at < (KEPT_SECONDS if self.task.result().error is None else FAULT_SECONDS)


class Inventory:
    """Asks servers. Who asks while another one does waits for the same answer."""

    def __init__(self, http: Callable[[], Http], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._http = http
        self._monotonic = monotonic
        self._kept: dict[tuple[str, str], _Kept] = {}

    async def served(self, endpoints: Iterable[tuple[str, Endpoint]]) -> list[Served]:
        """What each of these servers serves, in their order; each is a type of provider and an endpoint."""
        wanted = {(kind, one.identity): one for kind, one in endpoints if kind in LISTINGS and not _azure(one)}
        tasks = [self._asked(*key, endpoint) for key, endpoint in wanted.items()]
        # What one asks for is kept for all, so it goes on when its asker leaves.
        return list(await asyncio.gather(*map(asyncio.shield, tasks)))

    async def aclose(self) -> None:
        """Ask nothing any more. Twice is fine."""
        tasks = [kept.task for kept in self._kept.values()]
        self._kept.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _asked(self, kind: str, identity: str, endpoint: Endpoint) -> asyncio.Task[Served]:
        now = self._monotonic()
        kept = self._kept.get((kind, identity))
        if kept is None or not kept.holds(now):
            self._kept = {key: one for key, one in self._kept.items() if one.holds(now)}
            while len(self._kept) >= MOST_SERVERS:
                self._kept.pop(next(iter(self._kept)))
            kept = _Kept(asyncio.ensure_future(self._ask(LISTINGS[kind], endpoint)), now)
            self._kept[kind, identity] = kept
        return kept.task

    async def _ask(self, listing: Listing, endpoint: Endpoint) -> Served:
        place = origin(endpoint.base)
        fault: ProviderError
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return Served(place, await self._listed(listing, endpoint, place))
        except TimeoutError:
            fault = ProviderTimeout(f"{place} did not say within {ASK_SECONDS:g} s which models it serves")
        except ProviderError as error:
            fault = error
        return Served(place, error=fault)

    async def _listed(self, listing: Listing, endpoint: Endpoint, place: str) -> tuple[ServedModel, ...]:
        found: dict[str, ServedModel] = {}
        path: str | None = listing.path
        while path is not None and len(found) < MOST_MODELS:
            said = await self._said(endpoint, path, place)
            before = len(found)
            for one in listing.entries(said):
                if 0 < len(one.name) <= _LONGEST_NAME and one.name.isprintable() and len(found) < MOST_MODELS:
                    found.setdefault(one.name, one)
            path = listing.more(said) if len(found) > before else None
        return tuple(sorted(found.values(), key=lambda one: one.name))

    async def _said(self, endpoint: Endpoint, path: str, place: str) -> Any:
        url = endpoint.url(path)
        async with self._http().request("GET", url, headers=endpoint.headers, body=b"") as exchange:
            said = await exchange.read_whole(ANSWER_LIMIT)
            if exchange.status in (401, 403):
                raise AuthenticationRefused(
                    f"{place} does not tell this key which models it serves ({exchange.status}). {endpoint.key_hint}"
                )
            if exchange.status in (404, 405, 501):
                raise BadResponse(f"{place} does not tell which models it serves ({exchange.status})")
            if exchange.status != 200:
                peer = Peer(place, "", endpoint.key_hint, endpoint.secrets)
                raise status_error(peer, exchange.status, exchange.headers, said or b"", datetime.now(UTC))
        value = parsed(said) if said is not None else None
        if not isinstance(value, dict | list):
            raise BadResponse(f"{place} answered the question for its models with something that is no list of them")
        return value


def _azure(endpoint: Endpoint) -> bool:
    """Azure lists what could be deployed, and not what is."""
    return "api-key" in endpoint.headers


def _count(one: Mapping[str, Any], *names: str) -> int | None:
    """The first of these that is a number of tokens."""
    found = (one.get(name) for name in names)
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool) and 0 < n < 2**31), None)


def _openai(said: Any) -> Iterator[ServedModel]:
    for entry in sequence(said if isinstance(said, list) else mapping(said).get("data")):
        one = mapping(entry)
        context = _count(one, "max_model_len", "context_length", "context_window", "max_context_length")
        yield ServedModel(text(one.get("id")), context, _count(one, "max_completion_tokens"))


def _anthropic(said: Any) -> Iterator[ServedModel]:
    for one in map(mapping, sequence(mapping(said).get("data"))):
        yield ServedModel(text(one.get("id")), _count(one, "max_input_tokens"), _count(one, "max_tokens"))


def _anthropic_more(said: Any) -> str | None:
    last = text(mapping(said).get("last_id"))
    return f"/v1/models?limit=1000&after_id={quote(last, safe='')}" if last and mapping(said).get("has_more") else None


def _google(said: Any) -> Iterator[ServedModel]:
    for one in map(mapping, sequence(mapping(said).get("models"))):
        methods = sequence(one.get("supportedGenerationMethods"))
        if not methods or "generateContent" in methods:
            name = text(one.get("name")).removeprefix("models/")
            yield ServedModel(name, _count(one, "inputTokenLimit"), _count(one, "outputTokenLimit"))


def _google_more(said: Any) -> str | None:
    token = text(mapping(said).get("nextPageToken"))
    return f"/models?pageSize=1000&pageToken={quote(token, safe='')}" if token else None


def _ollama(said: Any) -> Iterator[ServedModel]:
    for one in map(mapping, sequence(mapping(said).get("models"))):
        yield ServedModel(text(one.get("model")) or text(one.get("name")))


LISTINGS: Mapping[str, Listing] = {
    "openai": Listing("/models", _openai),
    "custom": Listing("/models", _openai),
    "anthropic": Listing("/v1/models?limit=1000", _anthropic, _anthropic_more),
    "google": Listing("/models?pageSize=1000", _google, _google_more),
    "ollama": Listing("/api/tags", _ollama),
}

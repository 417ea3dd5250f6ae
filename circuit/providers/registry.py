"""From a workflow's `llm_provider` to the adapter that speaks to it.

The HTTP client is made when the first remote provider is asked for: a run with scripted answers never loads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from circuit.errors import ProviderMisconfigured
from circuit.providers.provider import Provider

if TYPE_CHECKING:
    from circuit.http import Http, Timeouts

REMOTE = ("custom", "openai")
SUPPORTED = (*REMOTE, "scripted")


class ProviderRegistry:
    """Gives providers and shares their connections. Use it in one event loop, and close it.

    `environment` is what references such as `${NAME}` and `OPENAI_API_KEY` are looked up in, at each request.
    `connect_seconds` bounds how long a connection may take to open, unless `timeouts` says all of them.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        connect_seconds: float | None = None,
        timeouts: Timeouts | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._environment = environment
        self._connect_seconds = connect_seconds
        self._timeouts = timeouts
        self._sleep = sleep
        self._http: Http | None = None

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
        if kind in REMOTE:
            from circuit.providers.openai import OpenAIProvider, custom_endpoint, openai_endpoint

            endpoint = openai_endpoint if kind == "openai" else custom_endpoint
            return OpenAIProvider(self._shared(), lambda: endpoint(options, self._environment))
        raise ProviderMisconfigured(
            f"the provider type {kind!r} is not supported yet; supported are {', '.join(SUPPORTED)}"
        )

    async def aclose(self) -> None:
        """Close all connections. Twice is fine."""
        if self._http is not None:
            await self._http.aclose()

    def _shared(self) -> Http:
        if self._http is None:
            from circuit.http import Http, Timeouts

            timeouts = self._timeouts
            if timeouts is None and self._connect_seconds is not None:
                timeouts = Timeouts(connect=self._connect_seconds)
            self._http = Http(timeouts)
        return self._http

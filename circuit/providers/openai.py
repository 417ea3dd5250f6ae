"""The adapter for OpenAI's `/chat/completions`, and for every server that speaks it.

`openai` takes its key from `OPENAI_API_KEY` and its address from `OPENAI_BASE_URL`; `custom` takes a base URL,
headers and perhaps a key from the workflow, where `${NAME}` refers to the environment. References are resolved when
a request is sent and never kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from circuit.errors import BadResponse, ProviderError, ProviderMisconfigured, ProviderTimeout, StreamCut
from circuit.http import Exchange, Http, origin
from circuit.providers.completion import ChatParser, request_body
from circuit.providers.failure import Peer, status_error, stream_error
from circuit.providers.profiles import profile_of
from circuit.providers.provider import ModelChunk, ModelRequest
from circuit.security.secrets import UnresolvedReference, references, resolve

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
OPENAI_BASE = "OPENAI_BASE_URL"
ERROR_BODY_LIMIT = 64 * 1024
USER_AGENT = "circuit-engine"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes and with what: resolved for one request. `secrets` are the values that no text may show."""

    url: str
    headers: Mapping[str, str]
    secrets: tuple[str, ...]
    key_hint: str
    own: bool


Resolver = Callable[[], Endpoint]


class OpenAIProvider:
    """Streams chat completions. `endpoint` is called for each request and raises `ProviderMisconfigured`."""

    def __init__(self, http: Http, endpoint: Resolver, *, now: Callable[[], datetime] | None = None) -> None:
        self._http = http
        self._endpoint = endpoint
        self._now = now or (lambda: datetime.now(UTC))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        endpoint = self._endpoint()
        peer = Peer(origin(endpoint.url), request.model, endpoint.key_hint, endpoint.secrets)
        body = request_body(request, profile_of(request.model), own=endpoint.own)
        async with self._http.post(endpoint.url, headers=endpoint.headers, body=body) as exchange:
            if exchange.status != 200:
                said = await exchange.read(ERROR_BODY_LIMIT)
                raise status_error(peer, exchange.status, exchange.headers, said, self._now())
            parser = ChatParser(request.model, peer.place, lambda error: stream_error(peer, error, self._now()))
            while (piece := await self._receive(exchange, parser)) is not None:
                chunks = parser.feed(piece)
                if chunks:
                    exchange.progress()
                for chunk in chunks:
                    yield chunk
                if parser.done:
                    await exchange.drain()
                    break
            for chunk in parser.finish():
                yield chunk

    @staticmethod
    async def _receive(exchange: Exchange, parser: ChatParser) -> bytes | None:
        """The next piece of the body. What breaks after the answer was whole only ends it: the usage may lack."""
        fault: ProviderError
        try:
            return await exchange.receive()
        except (StreamCut, ProviderTimeout, BadResponse) as error:
            fault = error
        if parser.answered:
            return None
        raise fault


def openai_endpoint(options: Mapping[str, Any], environment: Mapping[str, str]) -> Endpoint:
    """OpenAI's own endpoint, or the compatible one that `base_url` or `OPENAI_BASE_URL` names.

    Raises `ProviderMisconfigured` where OpenAI itself is meant and there is no key.
    """
    if options.get("base_url"):
        base, secrets = _resolved("base_url", options["base_url"], environment)
    else:
        base, secrets = environment.get(OPENAI_BASE, "").strip() or OPENAI_URL, ()
    own = urlsplit(base).hostname == urlsplit(OPENAI_URL).hostname
    hint = f"Set {OPENAI_KEY} to a valid key."
    key, key_secrets, key_hint = _key(options, environment)
    if key is None:
        key = environment.get(OPENAI_KEY, "").strip()
    else:
        hint = key_hint
    if not key and own:
        raise ProviderMisconfigured(
            f"{OPENAI_KEY} is not set: a model of OpenAI needs a key. Set it, or set {OPENAI_BASE} to a compatible"
            " server, or use the scripted provider, which needs none."
        )
    headers, header_secrets = _headers(options, environment)
    all_secrets = (*secrets, *key_secrets, *header_secrets, key)
    return Endpoint(_chat_url(base), _standard(headers, key), all_secrets, hint, own)


def custom_endpoint(options: Mapping[str, Any], environment: Mapping[str, str]) -> Endpoint:
    """The endpoint that a workflow names by `base_url`, `headers` and perhaps `api_key`.

    Raises `ProviderMisconfigured` where the base URL or a variable that it refers to is missing.
    """
    if not options.get("base_url"):
        raise ProviderMisconfigured(
            "a custom provider needs a base_url, such as http://localhost:8000/v1: set it in llm_provider"
        )
    base, secrets = _resolved("base_url", options["base_url"], environment)
    headers, header_secrets = _headers(options, environment)
    key, key_secrets, hint = _key(options, environment)
    if not hint:
        names = [name for value in _mapping(options.get("headers")).values() for name in references(str(value))]
        hint = (
            f"Check {', '.join(dict.fromkeys(names))} in the environment."
            if names
            else "Give the provider an api_key or a header that refers to the environment, such as ${MY_KEY}."
        )
    all_secrets = (*secrets, *header_secrets, *key_secrets)
    return Endpoint(_chat_url(base), _standard(headers, key), all_secrets, hint, own=False)


def _key(options: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[str | None, tuple[str, ...], str]:
    """The key that the option `api_key` refers to, the secrets in it, and how to set it."""
    given = options.get("api_key")
    if not given:
        return None, (), ""
    names = references(str(given))
    if not names:
        raise ProviderMisconfigured(
            "api_key must refer to an environment variable, as in ${MY_KEY}:"
            " a key that is written in a workflow would be stored with it"
        )
    key, secrets = _resolved("api_key", given, environment)
    return key, (*secrets, key), f"Set {', '.join(names)} to a valid key."


def _headers(options: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    headers: dict[str, str] = {}
    secrets: list[str] = []
    for name, value in _mapping(options.get("headers")).items():
        headers[name], found = _resolved(f"the header {name}", value, environment)
        # A value that was written out should not have been; it is kept out of messages all the same.
        secrets += (*found, headers[name])
    return headers, tuple(secrets)


def _resolved(what: str, text: Any, environment: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """`text` with its references resolved, and the values that came in by them."""
    try:
        value = resolve(str(text), environment).strip()
    except UnresolvedReference as missing:
        names = missing.names
    else:
        return value, tuple(environment[name].strip() for name in references(str(text)))
    raise ProviderMisconfigured(
        f"{what} of the provider refers to {', '.join(names)}, which is not set in the environment: set it"
    )


def _standard(headers: Mapping[str, str], key: str | None) -> dict[str, str]:
    """`headers` over those that every request has."""
    # No compression: it would hold back the pieces of a stream.
    standard = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream, application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
    }
    if key:
        standard["Authorization"] = f"Bearer {key}"
    given = {name.lower() for name in headers}
    return {name: value for name, value in standard.items() if name.lower() not in given} | dict(headers)


def _chat_url(base: str) -> str:
    """The address of chat completions below `base`; a query (as Azure's api-version) stays."""
    origin(base)
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/chat/completions", fragment=""))


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}

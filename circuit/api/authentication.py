"""Who asks, found out once for each request and each connection, before anything else looks at it.

A program sends `Authorization: Bearer CREDENTIAL`: an API key, a JSON Web Token, or the token of the built-in service.
A browser that opens an `EventSource` or a WebSocket cannot, and sends `?token=STREAM_TOKEN`, which opens the stream of
one execution. GraphQL over WebSocket takes the credential in `connection_init` too, as `authorization`, and `/stream`
in its message `init`.

Where nothing is configured and no API key exists, whoever can reach the server is the principal of this machine; the
server then listens on loopback only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import jwt
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from circuit.api.explorer.page import PATHS as EXPLORER_PATHS
from circuit.api.line import RAW_SEND, cutting
from circuit.api.problems import Problems
from circuit.api.standing import Lasting, Standing
from circuit.clock import Clock
from circuit.engine.guesses import SharedGuesses
from circuit.errors import CircuitError, Unauthenticated
from circuit.security import credentials
from circuit.security.access import Access
from circuit.security.origin import coming_from
from circuit.security.principal import Principal
from circuit.surface import surface

PRINCIPAL = "circuit.principal"
"""Where a scope holds who asks: a `Principal`, or None on a GraphQL connection that has yet to say it."""
OPEN_PATHS = frozenset({"/health", "/ready", "/openapi.json"}) | EXPLORER_PATHS
STANDING = "circuit.standing"
"""Where the scope of a connection that lasts holds its `Standing`."""
GRAPHQL_PATH = "/graphql"
FORBIDDEN = 4403
"""With this code clients of graphql-transport-ws come back, with a credential that holds."""
LATER_PATHS = frozenset({GRAPHQL_PATH, "/stream"})
"""WebSockets that may bring their credential in their first message."""
STREAM_PATHS = ("/agent-stream/", "/stream")
JWKS_SECONDS = 300.0
JWKS_AGAIN_SECONDS = 15.0
JWKS_LONGEST_SECONDS = 3600.0
_BEARER = "bearer "
_LONGEST_CREDENTIAL = 16_384

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verifiers:
    """What the gate asks: `key` finds whom an API key speaks for, `jwks` fetches a key set by its URL, `tenant` raises
    `Unauthenticated` for the number of none."""

    key: Callable[[str], Awaitable[Principal]]
    jwks: Callable[[str], Awaitable[Mapping[str, Any]]]
    tenant: Callable[[int], Awaitable[None]]


class Gate:
    """Finds out who asks. `required` says whether a credential is needed at all; `otherwise` is who asks if not;
    `guesses` are the wrong credentials that are known."""

    def __init__(
        self,
        access: Access,
        verifiers: Verifiers,
        clock: Clock,
        *,
        required: bool,
        otherwise: Principal,
        guesses: SharedGuesses | None = None,
    ) -> None:
        self.access = access
        self.required = required
        self._verifiers = verifiers
        self._clock = clock
        self._otherwise = otherwise
        self._key_set: jwt.PyJWKSet | None = None
        self._key_set_at = self._fetch_at = float("-inf")
        self._unfetched = ""
        self._fetching = asyncio.Lock()
        self._guesses = guesses or SharedGuesses(clock.monotonic)
        self.lasting = Lasting(self._principal)

    @classmethod
    def open(cls, clock: Clock, principal: Principal) -> Gate:
        """A gate that lets everybody in as `principal`."""

        async def nobody(_: Any) -> Any:
            raise Unauthenticated("no credentials are configured")

        return cls(Access(), Verifiers(nobody, nobody, nobody), clock, required=False, otherwise=principal)

    async def admit(
        self, credential: str | None, stream_token: str | None = None, *, address: str | None = None
    ) -> Principal:
        """Who shows this credential, from `address`. Raises `Unauthenticated`, `TooManyRequests` where too many from
        there did not hold, and what the verifiers raise."""
        if not self.required:
            return self._otherwise
        shown = stream_token if credential is None else credential
        if shown is None:
            raise Unauthenticated("a credential is needed: send Authorization: Bearer with an API key or a token")
        from_stream = credential is None
        if address is None:
            return await self._found(shown, from_stream)
        async with self._guesses.turn(address, shown):
            try:
                found = await self._found(shown, from_stream)
            except Unauthenticated as error:
                if error.guessed:
                    await self._guesses.wrong(address)
                raise
        self._guesses.right(shown)
        return found

    async def _found(self, shown: str, from_stream: bool) -> Principal:
        return self._streaming(shown) if from_stream else await self._principal(shown)

    def _streaming(self, token: str) -> Principal:
        if self.access.stream_secret is None:
            raise Unauthenticated("stream tokens are not configured: set STREAM_AUTH_SECRET")
        return credentials.verify_stream_token(self.access.stream_secret, token, self._clock.now())

    async def _principal(self, credential: str) -> Principal:
        access = self.access
        if len(credential) > _LONGEST_CREDENTIAL:
            raise Unauthenticated("this credential is too long to be one")
        if access.service_token is not None and credentials.same_text(credential, access.service_token):
            return Principal(credentials.SERVICE, roles=frozenset({"admin"}))
        if credentials.parse_key(credential) is not None:
            return await self._verifiers.key(credential)
        if credential.count(".") == 2 and (access.jwt_secret or access.jwks_url):
            return await self._from_token(credential)
        raise Unauthenticated("this credential does not hold")

    async def _from_token(self, token: str) -> Principal:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Unauthenticated("the token does not hold: it is malformed") from None
        algorithm = header.get("alg")
        access, now = self.access, self._clock.now()
        if access.jwt_secret is not None and algorithm in credentials.SYMMETRIC:
            key: Any = access.jwt_secret
            algorithms = credentials.SYMMETRIC
        elif access.jwks_url is not None and algorithm in credentials.ASYMMETRIC:
            key = await self._published_key(header.get("kid"))
            algorithms = credentials.ASYMMETRIC
        else:
            raise Unauthenticated("the token does not hold: its algorithm is not taken")
        claims = credentials.verify(token, key, algorithms, audience=access.audience, issuer=access.issuer, now=now)
        found = credentials.principal_of(claims)
        await self._verifiers.tenant(found.tenant)
        return found

    async def _published_key(self, key_id: Any) -> Any:
        """The key of this id in the published set. An unknown id is looked for anew, but not more often than a few
        times a minute: somebody may make ids up."""
        for age in (JWKS_SECONDS, JWKS_AGAIN_SECONDS):
            keys = (await self._keys(age)).keys
            for key in keys:
                if key.key_id == key_id or (key_id is None and len(keys) == 1):
                    return key.key
        if self._unfetched:
            raise Unauthenticated(self._unfetched, guessed=False)
        raise Unauthenticated("the token does not hold: its key is not published")

    async def _keys(self, age: float) -> jwt.PyJWKSet:
        """The published keys, as they were so long ago at most. Where they cannot be fetched, those that are known are
        taken for an hour."""
        async with self._fetching:
            now = self._clock.monotonic()
            if now - self._key_set_at > age and now >= self._fetch_at:
                await self._fetch()
            if self._key_set is None or now - self._key_set_at > JWKS_LONGEST_SECONDS:
                raise Unauthenticated(self._unfetched, guessed=False)
            return self._key_set

    async def _fetch(self) -> None:
        """Fetch the published keys. Where that fails it is not tried again for a while, whoever asks."""
        assert self.access.jwks_url is not None
        try:
            self._key_set = jwt.PyJWKSet.from_dict(dict(await self._verifiers.jwks(self.access.jwks_url)))
        except Unauthenticated as error:
            self._unfetched = error.message
        except jwt.PyJWTError as error:
            logger.error("the key set at %s cannot be used: %s", self.access.jwks_url, error)
            self._unfetched = "the published keys cannot be used; the server's log says why"
        else:
            self._unfetched = ""
            self._key_set_at = self._clock.monotonic()
            return
        self._fetch_at = self._clock.monotonic() + JWKS_AGAIN_SECONDS


class Authenticated:
    """Lets through what comes with a credential that holds, and says who it is in the scope."""

    def __init__(self, app: ASGIApp, gate: Gate, problems: Problems) -> None:
        self._app = app
        self._gate = gate
        self._problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket") or (kind == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        credential = bearer(Headers(scope=scope).get("authorization"))
        token = _stream_token(scope)
        later = kind == "websocket" and scope["path"] in LATER_PATHS and self._gate.required
        lasts = kind == "websocket" or scope["path"].startswith(STREAM_PATHS)
        try:
            if credential is None and token is None and later:
                scope[PRINCIPAL] = None
            else:
                scope[PRINCIPAL] = await self._gate.admit(credential, token, address=address(scope))
        except CircuitError as error:
            await refuse(scope, receive, send, self._problems, error)
            return
        with coming_from(_where(scope)):
            if lasts and self._gate.required and (credential is not None or later):
                await self._standing(scope, receive, send, credential)
            else:
                await self._app(scope, receive, send)

    async def _standing(self, scope: Scope, receive: Receive, send: Send, credential: str | None) -> None:
        """Serve a connection that lasts, as long as its credential holds. What a stream token opened is read to its
        end."""
        cut = cutting(scope.get(RAW_SEND, send))
        standing = scope[STANDING] = Standing(receive, scope["type"], cut)
        standing.credential = credential
        try:
            with self._gate.lasting.watched(standing):
                await self._app(scope, standing.receive, send)
            if standing.fault is not None and standing.told:
                await self._told(scope, send, standing.fault)
        finally:
            standing.over()

    async def _told(self, scope: Scope, send: Send, fault: Unauthenticated) -> None:
        """Note that a connection ended for its credential, and tell a WebSocket so."""
        await self._problems.noted(fault, scope.get(PRINCIPAL), scope["path"], address(scope))
        if scope["type"] == "websocket":
            code = FORBIDDEN if scope["path"] == GRAPHQL_PATH else surface(fault.code).websocket
            with suppress(OSError, RuntimeError):  # it is gone, or closed already
                await send({"type": "websocket.close", "code": code, "reason": fault.code})


async def introduced(gate: Gate, problems: Problems, scope: Scope, credential: str | None) -> Principal:
    """Who shows a credential in the first message of a WebSocket. Raises as `Gate.admit` does."""
    try:
        found = await gate.admit(credential, address=address(scope))
        standing = scope.get(STANDING)
        if isinstance(standing, Standing):
            standing.credential = credential
        return found
    except CircuitError as error:
        await problems.noted(error, None, scope["path"], address(scope))
        raise


async def refuse(scope: Scope, receive: Receive, send: Send, problems: Problems, error: CircuitError) -> None:
    """Answer with an error, over HTTP or on a WebSocket that has yet to be accepted."""
    await problems.noted(error, scope.get(PRINCIPAL), scope["path"], address(scope))
    if scope["type"] == "http":
        response = problems.of(error)
        if isinstance(error, Unauthenticated):
            response.headers["www-authenticate"] = "Bearer"
        await response(scope, receive, send)
    else:
        await receive()
        # An accepted connection can say why it is closed; a refused handshake cannot.
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": surface(error.code).websocket, "reason": error.code})


def address(scope: Scope) -> str | None:
    """From which address a request comes; None over a socket of this machine that has none."""
    client = scope.get("client")
    return client[0] if client else None


def _where(scope: Scope) -> str:
    """Where a request comes from, as the audit log notes it."""
    client = address(scope)
    return f"{client} {scope['path']}"[:200] if client else scope["path"][:200]


def bearer(header: str | None) -> str | None:
    """The credential in an `Authorization` header, or in what stands for it."""
    if header is None or not header.lower().startswith(_BEARER):
        return None
    return header[len(_BEARER) :].strip() or None


def asking(scope: Scope) -> Principal:
    """Who asks, as the gate found out."""
    principal = scope.get(PRINCIPAL)
    if not isinstance(principal, Principal):
        raise Unauthenticated("nobody has said who asks")
    return principal


def _stream_token(scope: Scope) -> str | None:
    """The token in the address of a stream; nowhere else is a credential taken from an address."""
    if not scope["path"].startswith(STREAM_PATHS):
        return None
    values = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token")
    return values[0] if values else None

"""How errors show outside: HTTP status, WebSocket close code, exit code of the CLI."""

from __future__ import annotations

from dataclasses import dataclass

from circuit.errors import (
    AgentNotAllowed,
    Conflict,
    DatabaseMisconfigured,
    DatabaseNotStarted,
    DatabaseUnreachable,
    DefinitionError,
    Forbidden,
    HomeNotWritable,
    InvalidCursor,
    InvalidRequest,
    KeyMissing,
    NotFound,
    NoWorker,
    PayloadTooLarge,
    ProviderMisconfigured,
    ProviderUnavailable,
    RateLimited,
    RequestError,
    Restarting,
    SchemaMismatch,
    StreamRetired,
    TokenRefused,
    TooManyRequests,
    Unauthenticated,
    UnstorableText,
)


@dataclass(frozen=True, slots=True)
class Surface:
    """How an error shows outside: HTTP status, WebSocket close code, exit code of the CLI."""

    http: int
    websocket: int
    exit: int


_DEFAULT_SURFACE = Surface(500, 1011, 1)
_SURFACES: dict[str, Surface] = {
    DefinitionError.code: Surface(422, 4422, 2),
    RequestError.code: Surface(400, 4400, 2),
    InvalidRequest.code: Surface(400, 4400, 2),
    NotFound.code: Surface(404, 4404, 2),
    Conflict.code: Surface(409, 4409, 2),
    Unauthenticated.code: Surface(401, 4401, 2),
    Forbidden.code: Surface(403, 4403, 2),
    AgentNotAllowed.code: Surface(403, 4403, 2),
    TooManyRequests.code: Surface(429, 4429, 1),
    NoWorker.code: Surface(503, 1013, 1),
    Restarting.code: Surface(503, 1012, 1),
    TokenRefused.code: Surface(422, 4422, 2),
    PayloadTooLarge.code: Surface(413, 1009, 2),
    RateLimited.code: Surface(429, 4429, 1),
    ProviderUnavailable.code: Surface(503, 1013, 1),
    DatabaseUnreachable.code: Surface(503, 1013, 1),
    DatabaseNotStarted.code: Surface(503, 1013, 1),
    SchemaMismatch.code: Surface(503, 1013, 1),
    DatabaseMisconfigured.code: Surface(503, 1013, 2),
    HomeNotWritable.code: Surface(503, 1013, 2),
    ProviderMisconfigured.code: Surface(500, 1011, 2),
    UnstorableText.code: Surface(400, 4400, 2),
    KeyMissing.code: Surface(500, 1011, 2),
    InvalidCursor.code: Surface(400, 4400, 2),
    StreamRetired.code: Surface(410, 4410, 1),
}


def surface(code: str) -> Surface:
    """How the error `code` shows outside; an unknown code shows as an internal error."""
    return _SURFACES.get(code, _DEFAULT_SURFACE)

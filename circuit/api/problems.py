"""Errors as the server answers them: `{"error": {"code", "message", "details", "timestamp"}}`, and where clients
of others ask, as these know them.

What is one of Circuit's errors shows its code and message; of anything else nobody outside learns more than that it
happened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from circuit.clock import Clock
from circuit.engine.refusals import Refusals
from circuit.errors import (
    CircuitError,
    DatabaseMisconfigured,
    DatabaseUnreachable,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    StorageError,
)
from circuit.security.origin import LOCAL_ORIGIN
from circuit.security.principal import Principal
from circuit.surface import surface

logger = logging.getLogger(__name__)

INTERNAL_CODE = "internal_error"
INTERNAL_MESSAGE = "the server failed to answer this request; its log says why"
UNREACHABLE = "the server cannot reach its database; its log says why"
LONGEST_SAID = 10_000
"""Characters of an error's message, which is what a file with many faults comes to."""
_PARTS = frozenset({"graphql", "v1", "stream", "agent-stream", "metrics"})
_ANOTHER = "(another path)"
"""What stands for paths that somebody made up whom nobody knows."""
_CODES = {404: NotFound.code, 413: PayloadTooLarge.code}


class JSONAnswer(Response):
    """Any value as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def timestamp(at: datetime) -> str:
    """An instant as JSON has it: UTC, milliseconds, `Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def body(code: str, message: str, details: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """The answer for an error."""
    return {"error": {"code": code, "message": message, "details": dict(details), "timestamp": timestamp(at)}}


def _short(error: CircuitError) -> CircuitError:
    """Errors repeat names that somebody sent, however long they are."""
    said = error.message
    return error if len(said) <= LONGEST_SAID else error.saying(f"{said[:LONGEST_SAID]}... ({len(said)} characters)")


def shown(error: CircuitError) -> CircuitError:
    """`error` as it may leave the server. What only the database has words for stays in the log."""
    if isinstance(error, DatabaseUnreachable | DatabaseMisconfigured):
        # Where it is concerns nobody outside; whoever waits for it here logs that.
        return type(error)(UNREACHABLE)
    if type(error) is not StorageError:
        return _short(error)
    logger.error("the database refused a request: %s", error.message)
    return StorageError(INTERNAL_MESSAGE)


Spelling = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""What is answered for an error, which is given as `code`, `message`, `details` and `retryable`."""


class Problem(JSONAnswer):
    """The answer for an error. Below the paths of `spellings` it is spelt as these say, and says whether another try is
    of use."""

    def __init__(
        self,
        error: Mapping[str, Any],
        at: datetime,
        status: int,
        headers: Mapping[str, str] | None,
        spellings: Mapping[str, Spelling],
    ) -> None:
        super().__init__(body(error["code"], error["message"], error["details"], at), status, headers)
        self._error = error
        self._spellings = spellings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for path, spelt in self._spellings.items():
            if scope["path"].startswith(path):
                self.body = self.render(spelt(self._error))
                self.headers["content-length"] = str(len(self.body))
                self.headers["x-should-retry"] = "true" if self._error["retryable"] else "false"
        await super().__call__(scope, receive, send)


class Problems:
    """Turns what was raised into an answer, and has what somebody may not do written down. `spellings` are by the
    beginning of the path."""

    def __init__(
        self, clock: Clock, refusals: Refusals | None = None, spellings: Mapping[str, Spelling] | None = None
    ) -> None:
        self._clock = clock
        self._refusals = refusals
        self._spellings = spellings or {}

    async def noted(self, error: CircuitError, principal: Principal | None, what: str, address: str | None) -> None:
        """Have it written down, if it is refused by who may do what. `what` is a path, or the field of a mutation."""
        if self._refusals is not None:
            if principal is None:
                part = what.strip("/").partition("/")[0]
                what = f"/{part}" if part in _PARTS else _ANOTHER
            await self._refusals.note(error, principal, what, address or LOCAL_ORIGIN)

    def of(self, error: CircuitError) -> Response:
        """The answer for one of Circuit's errors."""
        error = shown(error)
        headers = {"retry-after": str(max(1, round(error.retry_after)))} if error.retry_after else None
        told = {**error.as_dict(), "details": error.details}
        return self._answer(told, surface(error.code).http, headers)

    def refused(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
        """The answer for a request that HTTP itself refuses."""
        code = _CODES.get(status, InvalidRequest.code if status < 500 else INTERNAL_CODE)
        return self._answer({"code": code, "message": message, "details": {}, "retryable": False}, status, headers)

    async def on_circuit_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, CircuitError)
        return self.of(error)

    async def on_http_exception(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self.refused(error.status_code, f"{error.detail}: {request.method} {request.url.path}", error.headers)

    async def on_fault(self, request: Request, error: Exception) -> Response:
        """The server logs the fault itself when this has answered."""
        return self.fault()

    def fault(self) -> Response:
        """The answer for a fault of the server's own."""
        return self.refused(500, INTERNAL_MESSAGE)

    def _answer(self, error: Mapping[str, Any], status: int, headers: Mapping[str, str] | None) -> Response:
        return Problem(error, self._clock.now(), status, headers, self._spellings)

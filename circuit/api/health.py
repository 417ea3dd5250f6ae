"""`/health`: whether requests can be served, and by which schema."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from circuit.api.problems import JSONAnswer, body, shown
from circuit.api.services import Services
from circuit.errors import CircuitError, DatabaseUnreachable

ANSWER_SECONDS = 5.0


class HealthEndpoint:
    """200 with `status: ok`, or 503 with `status: unavailable` and the error."""

    def __init__(self, services: Services, version: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._services = services
        self._version = version
        self._answer_seconds = answer_seconds

    async def __call__(self, request: Request) -> Response:
        about = {"version": self._version}
        headers = {"cache-control": "no-store"}
        try:
            async with asyncio.timeout(self._answer_seconds):
                ready = await self._services.ready()
        except CircuitError as error:
            problem = shown(error)
        except TimeoutError:
            problem = DatabaseUnreachable(f"the database did not answer within {self._answer_seconds:g} s")
        else:
            return JSONAnswer({"status": "ok", **about, **ready}, headers=headers)
        said = body(problem.code, problem.message, problem.details, self._services.clock.now())
        return JSONAnswer({"status": "unavailable", **about, **said}, 503, headers)

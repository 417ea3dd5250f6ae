"""What a worker that stands alone serves: `/health`, `/ready` and `/metrics`, under the server's own rules."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

import circuit
from circuit.api.application import LARGEST_BODY, Application
from circuit.api.authentication import Authenticated
from circuit.api.exposure import Exposure
from circuit.api.health import HealthEndpoint
from circuit.api.limits import BodyLimit, HostCheck
from circuit.api.metrics import MetricsEndpoint
from circuit.api.problems import Problems
from circuit.api.readers import Readers
from circuit.api.services import Services
from circuit.errors import CircuitError


def create_probes(services: Services) -> Application:
    """The application, for `circuit.api.server.serve`."""
    exposure, readers, problems = Exposure(development=False), Readers(services.streams), Problems(services.clock)
    health = HealthEndpoint(services, circuit.__version__)
    framework = Starlette(
        routes=[
            Route("/health", health.__call__),
            Route("/ready", health.__call__),
            Route("/metrics", MetricsEndpoint(services.figures, readers).__call__),
        ],
        exception_handlers={
            CircuitError: problems.on_circuit_error,
            HTTPException: problems.on_http_exception,
            Exception: problems.on_fault,
        },
        middleware=[
            Middleware(HostCheck, exposure, problems),
            Middleware(Authenticated, services.gate, problems),
            Middleware(BodyLimit, LARGEST_BODY, problems),
        ],
    )
    framework.state.readers = readers
    framework.state.exposure = exposure
    return Application(framework, {}, framework, readers, problems)

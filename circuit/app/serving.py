"""Serving the API of an open Circuit, and who is let in there."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import orjson

from circuit.agents.toolbox.openapi import api_fault
from circuit.api.application import Services, create_application
from circuit.api.authentication import Gate, Verifiers
from circuit.api.probes import create_probes
from circuit.api.server import serve as run_server
from circuit.app.figures import figures
from circuit.app.home import Progress
from circuit.definition import load_workflow
from circuit.definition.admission import admit
from circuit.definition.adoption import Catalogue
from circuit.definition.inclusion import Reader
from circuit.definition.workflow import Workflow
from circuit.engine.guesses import SharedGuesses
from circuit.engine.rates import RequestRate
from circuit.engine.reach import Reach
from circuit.engine.refusals import Refusals
from circuit.errors import CircuitError, DatabaseUnreachable, InvalidRequest, Unauthenticated
from circuit.http import Http, Timeouts, origin
from circuit.observability.metrics import Figure
from circuit.providers.profiles import misfits
from circuit.security.rules import Rule
from circuit.settings import LOOPBACK_HOSTS
from circuit.storage import schema

if TYPE_CHECKING:
    from circuit.app.circuit import Circuit
    from circuit.app.supervision import Crew

logger = logging.getLogger(__name__)

_KEY_SET_SECONDS = 10.0
_LARGEST_KEY_SET = 1024 * 1024


def _loaded(
    text: str,
    source: str,
    *,
    agents: Catalogue | None = None,
    unsound: bool = False,
    read: Reader | None = None,
    rules: Sequence[Rule] = (),
) -> Workflow:
    """The workflow in a text, as `circuit load` takes it. `agents` are published ones; `read` gives what it
    includes; `rules` of redaction are those of the deployment."""
    workflow = load_workflow(text, source, misfits, agents, read, rules, partial(api_fault, files=False))
    admit(workflow, source, time.monotonic, unsound=unsound)
    return workflow


async def serve(
    circuit: Circuit,
    host: str,
    port: int,
    *,
    ready: Progress | None = None,
    probes: bool = False,
    crew: Crew | None = None,
) -> None:
    """Serve the API of `circuit` as `Circuit.serve` says."""
    monotonic = circuit.clock.monotonic
    refusals = Refusals(circuit.database, monotonic)
    reach = Reach(circuit.database, monotonic)
    services = Services(
        commands=circuit.commands,
        queries=circuit.queries,
        pages=circuit.engine.pages,
        inbox=circuit.engine.inbox,
        messages=circuit.messages,
        publishing=circuit.engine.publishing,
        schedules=circuit.engine.schedules,
        fleet=circuit.engine.fleet,
        catalogue=circuit.catalogue,
        held_models=circuit.models.held,
        streams=circuit.streams,
        load=partial(_loaded, rules=circuit.settings.redactor.rules),
        gate=await _gate(circuit, host, reach),
        ready=partial(_working if probes else _health, circuit),
        clock=circuit.clock,
        conversations=circuit.conversations,
        figures=partial(_figures, circuit, crew),
        consultations=circuit.engine.consultations,
        default_model=circuit.settings.default_model,
        budgets=circuit.budgets,
        costs=circuit.engine.costs,
        limits=circuit.engine.limits,
        feedback=circuit.engine.feedback,
        travel=circuit.travel,
        ledger=circuit.engine.ledger,
        migrator=circuit.migrator,
        refusals=refusals,
        tracer=circuit.tracer,
        subjects=circuit.subjects,
        grants=circuit.engine.grants,
        keys=circuit.engine.keys,
    )
    if probes:
        application = create_probes(services)
    else:
        rates = {part: RequestRate(reach, rate, monotonic, part) for part, rate in circuit.settings.rates.items()}
        application = create_application(services, allowed_origins=circuit.settings.allowed_origins, rates=rates)
    try:
        await run_server(application, host, port, ready=ready)
    finally:
        await refusals.stop()


async def _gate(circuit: Circuit, host: str, reach: Reach) -> Gate:
    """Who is let in: everybody as this machine's own principal, unless credentials are configured or exist."""
    required = circuit.settings.access.configured or await circuit.engine.keys.any()
    if not required and host not in LOOPBACK_HOSTS:
        raise InvalidRequest(
            f"circuit serve listens on loopback addresses only, not on {host!r}: no authentication is configured,"
            " and who reaches the port may start and fire anything. Make a key first (`circuit keys create`), or"
            " set AGENT_ACCESS_TOKEN, CIRCUIT_JWT_SECRET or CIRCUIT_JWKS_URL."
        )
    verifiers = Verifiers(circuit.engine.keys.principal, _key_set, circuit.engine.keys.require_tenant)
    return Gate(
        circuit.settings.access,
        verifiers,
        circuit.clock,
        required=required,
        otherwise=circuit.principal,
        guesses=SharedGuesses(circuit.clock.monotonic, reach),
    )


async def _key_set(url: str) -> Mapping[str, Any]:
    """The JSON Web Key Set at `url`. Raises `Unauthenticated` where there is none to be had."""
    http = Http(Timeouts(connect=_KEY_SET_SECONDS, first_byte=_KEY_SET_SECONDS, idle=_KEY_SET_SECONDS))
    found: Any = None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        places = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        answer = await http.fetch("GET", url, address=str(places[0][4][0]), limit=_LARGEST_KEY_SET)
        found = orjson.loads(answer.body) if answer.status == 200 else None
    except (CircuitError, OSError, ValueError) as error:
        logger.error("the key set at %s cannot be fetched: %s", origin(url), error)
    finally:
        await http.aclose()
    if not isinstance(found, dict):
        raise Unauthenticated("the published keys cannot be fetched; the server's log says why", guessed=False)
    return cast("dict[str, Any]", found)


async def _figures(circuit: Circuit, crew: Crew | None) -> Sequence[Figure]:
    """The figures of the database, of this process and of its crew."""
    found = await figures(circuit.engine, circuit.registry, circuit.settings)
    return found if crew is None else [*found, *await crew.figures()]


async def _working(circuit: Circuit) -> Mapping[str, Any]:
    """The same of a worker, which serves cases while it holds a lease. Raises `StorageError`."""
    worker = circuit.engine.worker
    if worker is None or worker.tenure is None or worker.stopping:
        raise DatabaseUnreachable("the worker holds no lease: it claims no cases")
    return {**await _health(circuit), "worker": str(worker.tenure.incarnation.id)}


async def _health(circuit: Circuit) -> Mapping[str, Any]:
    """What is known of the database, if requests can be served. Raises `StorageError`."""
    await schema.require_current(circuit.database)
    return {"revision": await circuit.database.revision()}

"""Tools from an OpenAPI document (JSON or YAML): one for each operation, called over HTTP.

Requests go to one server, whose address is looked at as that of everything that agents fetch; credentials go nowhere
else, so that only redirects within it are followed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urljoin, urlsplit

import orjson

from circuit.agents.toolbox.fetch import MOST_REDIRECTS, REDIRECTS, Gate, Resolve, resolved, text_of
from circuit.agents.toolbox.operation import Operation, check_version, operations, request_of, server_of
from circuit.agents.tools import DEFAULT_SECONDS, RESULT_LIMIT, Tool, ToolContext
from circuit.errors import CircuitError, ToolFailed, ToolOutputTooLarge, ToolsMisconfigured
from circuit.providers.provider import ToolSpec
from circuit.value import dataclass

if TYPE_CHECKING:
    from circuit.http import Http

LARGEST = 20_000_000
"""Bytes of a document."""


@dataclass(frozen=True, slots=True)
class Api:
    """The chosen operations of one API, and the address of its server, which may hold a secret."""

    prefix: str
    base: str
    operations: tuple[Operation, ...]


def read_document(source: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """The document itself, or what the file of that path holds. Raises `ToolsMisconfigured`."""
    if not isinstance(source, str):
        return source
    from circuit.definition.yaml_data import yaml_data

    try:
        with Path(source).open("rb") as file:
            written = file.read(LARGEST + 1)
        if len(written) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        value: Any = orjson.loads(written) if written.lstrip().startswith(b"{") else yaml_data(written)
    except (OSError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ToolsMisconfigured(f"the OpenAPI document {source} cannot be read as JSON or YAML: {first}") from None
    if not isinstance(value, dict):
        raise ToolsMisconfigured(f"the OpenAPI document {source} is no object")
    return cast("Mapping[str, Any]", value)


def api_of(settings: Mapping[str, Any], base: str | None, headers: Iterable[str]) -> Api:
    """The API that `settings` (the canonical form of `openapi` in a workflow file) name. `base` is the address of the
    server, if they say it; each request carries `headers`. Raises `ToolsMisconfigured`."""
    document = read_document(settings["document"])
    check_version(document)
    address = base or server_of(document)
    try:
        query = [name for name, _ in parse_qsl(urlsplit(address).query)]
        named = urlsplit(address).hostname
    except ValueError:
        query, named = [], None
    if not named:
        raise ToolsMisconfigured(f"the OpenAPI document of {settings['prefix']} names no server: give a base_url")
    found = operations(document, settings.get("operations") or (), tuple(headers), query)
    return Api(str(settings["prefix"]), address, tuple(found))


def api_fault(settings: Mapping[str, Any], *, files: bool = True, here: bool = False) -> str:
    """Why `settings` give no tools, in words; nothing where they do, and where that is not certain. With `files` those
    are read; one that is missing is a fault only where the agent runs `here`: another machine may have it."""
    source = settings["document"]
    if isinstance(source, str) and not (files and (here or Path(source).exists())):
        return ""
    try:
        # What the address refers to is known when the agent begins.
        api = api_of(
            settings, "http://server.invalid" if settings.get("base_url") else None, settings.get("headers") or ()
        )
    except CircuitError as error:
        return error.message
    if not api.operations:
        meant = settings.get("operations")
        return f"no operation of the API is meant by {', '.join(meant)}" if meant else "the API has no operations"
    return ""


def openapi_tools(
    http: Http,
    api: Api,
    settings: Mapping[str, Any],
    headers: Mapping[str, str],
    secrets: tuple[str, ...] = (),
    resolve: Resolve = resolved,
) -> Iterator[Tool]:
    """The tools of an API. `headers` are resolved, and go with each request."""
    gate = Gate((urlsplit(api.base).hostname or "",), bool(settings.get("private")))
    seconds = float(settings.get("seconds", DEFAULT_SECONDS))
    for operation in api.operations:
        spec = ToolSpec(f"{api.prefix}.{operation.name}", operation.description, operation.schema)
        call = _caller(http, gate, api.base, operation, headers, resolve, seconds)
        yield Tool(spec, call, seconds, secrets)


def _caller(
    http: Http,
    gate: Gate,
    base: str,
    operation: Operation,
    headers: Mapping[str, str],
    resolve: Resolve,
    seconds: float,
) -> Callable[[Mapping[str, Any], ToolContext], Awaitable[Any]]:
    async def call(arguments: Mapping[str, Any], around: ToolContext) -> Any:
        url, own, body = request_of(base, operation, arguments)
        method, place = operation.method.upper(), urlsplit(url)[:2]
        for _ in range(MOST_REDIRECTS):
            _, _, address = await gate.address(url, resolve)
            # The same call of a run that starts again can be known by this.
            given = {"Idempotency-Key": around.key, **own, **headers}
            answer = await http.fetch(
                method, url, address=address, limit=RESULT_LIMIT, headers=given, body=body, seconds=seconds
            )
            target = answer.headers.get("location")
            if answer.truncated and answer.status < 400:
                raise ToolOutputTooLarge(
                    f"{operation.name} was answered with more than {RESULT_LIMIT} bytes: ask for a part of it"
                )
            if answer.status not in REDIRECTS or not target:
                return _said(operation.name, answer.status, answer.headers.get("content-type", ""), answer.body)
            url = urljoin(url, target)
            if urlsplit(url)[:2] != place:
                host = urlsplit(url).hostname
                raise ToolFailed(f"{operation.name} was sent on to {host}, which is another server: not followed")
            if answer.status == 303:
                method, own, body = "GET", {}, b""
            elif method != "GET":
                raise ToolFailed(f"{operation.name} was sent on ({answer.status}), which is followed for GET only")
        raise ToolFailed(f"{MOST_REDIRECTS} redirects, and no end")

    return call


def _said(name: str, status: int, kind: str, body: bytes) -> Any:
    if status >= 400:
        raise ToolFailed(f"{name} was answered with {status}: {body[:1_200].decode('utf-8', 'replace')[:300]}")
    said = text_of(body, kind) if body else ""
    if "json" in kind.lower() and said:
        try:
            return json.loads(said)
        except (ValueError, RecursionError):
            raise ToolFailed(f"{name} was answered with what is not JSON, although it says so") from None
    return said or {"status": status}

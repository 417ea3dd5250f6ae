"""Tools from an OpenAPI document (3.0 and 3.1, JSON or YAML): one for each operation, called over HTTP.

What an operation takes becomes one schema: its parameters by their names, its JSON body as `body`. Requests go to one
server, whose address is looked at as that of everything that agents fetch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import orjson

from circuit.agents.policy import matches
from circuit.agents.toolbox.fetch import Gate, Resolve, resolved, text_of
from circuit.agents.tools import DEFAULT_SECONDS, RESULT_LIMIT, Tool, ToolContext
from circuit.errors import DefinitionError, ToolFailed, ToolsMisconfigured
from circuit.providers.provider import ToolSpec
from circuit.value import dataclass

if TYPE_CHECKING:
    from circuit.http import Http

METHODS = ("get", "put", "post", "delete", "patch")
MOST_OPERATIONS = 500
_SCHEMAS = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of an API. `places` says where each parameter goes: `path`, `query` or `header`."""

    name: str
    method: str
    path: str
    description: str
    schema: Mapping[str, Any]
    places: Mapping[str, str]


def read_document(source: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """The document itself, or what the file of that path holds. Raises `ToolsMisconfigured`."""
    if not isinstance(source, str):
        return source
    try:
        written = Path(source).read_text(encoding="utf-8")
        value: Any = json.loads(written) if written.lstrip().startswith("{") else _yaml(written, source)
    except (OSError, ValueError, DefinitionError) as error:
        first = error.faults[0] if isinstance(error, DefinitionError) else error
        raise ToolsMisconfigured(f"the OpenAPI document {source} cannot be read as JSON or YAML: {first}") from None
    if not isinstance(value, dict):
        raise ToolsMisconfigured(f"the OpenAPI document {source} is no object")
    return cast("Mapping[str, Any]", value)


def _yaml(written: str, source: str) -> Any:
    """What a YAML text holds. Status codes may be keys, as they are in most documents."""
    from circuit.definition.loader import parse

    return parse(written, source, {})[0].root.value


def operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    """The operations of a document, in its order. Raises `ToolsMisconfigured` for what is none."""
    if not str(document.get("openapi", "")).startswith("3."):
        raise ToolsMisconfigured("the OpenAPI document has no `openapi: 3....`: only OpenAPI 3 is read")
    for path, item in _mapping(document.get("paths")).items():
        shared = _list(_mapping(item).get("parameters"))
        for method in METHODS:
            operation = _mapping(_mapping(item).get(method))
            if operation:
                yield _operation(document, path, method, operation, shared)


def openapi_tools(
    http: Http, settings: Mapping[str, Any], headers: Mapping[str, str], resolve: Resolve = resolved
) -> Iterator[Tool]:
    """The tools of the API that `settings` (the canonical form of `openapi` in a workflow file) name. `headers` are
    resolved, and go with each request."""
    document = read_document(settings["document"])
    servers = [_mapping(server) for server in _list(document.get("servers"))]
    base = str(settings.get("base_url") or (servers[0].get("url") if servers else "") or "")
    host = urlsplit(base).hostname
    if not host:
        raise ToolsMisconfigured(f"the OpenAPI document of {settings['prefix']} names no server: give a base_url")
    gate = Gate((host,), bool(settings.get("private")))
    wanted = settings.get("operations")
    seconds = float(settings.get("seconds", DEFAULT_SECONDS))
    for number, operation in enumerate(operations(document)):
        if number >= MOST_OPERATIONS:
            raise ToolsMisconfigured(f"the API has more than {MOST_OPERATIONS} operations: choose some by `operations`")
        if not wanted or matches(wanted, operation.name):
            spec = ToolSpec(f"{settings['prefix']}.{operation.name}", operation.description, operation.schema)
            call = _caller(http, gate, base, operation, headers, resolve, seconds)
            yield Tool(spec, call, seconds, tuple(headers.values()))


def request_of(base: str, operation: Operation, arguments: Mapping[str, Any]) -> tuple[str, dict[str, str], bytes]:
    """Address, headers and body of a call."""
    path, query, headers = operation.path, list[tuple[str, str]](), dict[str, str]()
    for name, place in operation.places.items():
        if name not in arguments:
            continue
        value = arguments[name]
        if place == "path":
            path = path.replace("{" + name + "}", quote(_text(value), safe=""))
        elif place == "query":
            query += [(name, _text(one)) for one in (cast("list[Any]", value) if isinstance(value, list) else [value])]
        else:
            headers[name] = re.sub(r"[^\x20-\x7e]", "", _text(value))
    parts = urlsplit(base)
    both = "&".join(text for text in (parts.query, urlencode(query)) if text)
    url = urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, query=both, fragment=""))
    body = orjson.dumps(arguments["body"]) if "body" in arguments else b""
    return url, headers | ({"Content-Type": "application/json"} if body else {}), body


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
        _, _, address = await gate.address(url, resolve)
        # The same call of a run that starts again can be known by this.
        given = {"Idempotency-Key": around.key, **own, **headers}
        answer = await http.fetch(
            operation.method.upper(),
            url,
            address=address,
            limit=RESULT_LIMIT,
            headers=given,
            body=body,
            seconds=seconds,
        )
        kind = answer.headers.get("content-type", "")
        said = text_of(answer.body, kind) if answer.body else ""
        if answer.status >= 400:
            raise ToolFailed(f"{operation.name} was answered with {answer.status}: {said[:300]}")
        if "json" in kind and not answer.truncated and said:
            try:
                return json.loads(said)
            except ValueError:
                raise ToolFailed(f"{operation.name} was answered with what is not JSON") from None
        return said or {"status": answer.status}

    return call


def _operation(
    document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any], shared: list[Any]
) -> Operation:
    properties: dict[str, Any] = {}
    required: list[str] = []
    places: dict[str, str] = {}
    for given in [*shared, *_list(operation.get("parameters"))]:
        parameter = _dereferenced(document, given)
        name, place = str(parameter.get("name", "")), str(parameter.get("in", ""))
        if not name or place not in ("path", "query", "header"):
            continue
        about = {"description": str(parameter["description"])} if parameter.get("description") else {}
        properties[name] = {**_schema(parameter.get("schema") or {}), **about}
        places[name] = place
        if (parameter.get("required") or place == "path") and name not in required:
            required.append(name)
    body = _dereferenced(document, operation.get("requestBody"))
    content = _mapping(_mapping(_mapping(body.get("content")).get("application/json")).get("schema"))
    if content:
        properties["body"] = _schema(content)
        if body.get("required"):
            required.append("body")
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    if "#/$defs/" in orjson.dumps(properties).decode():
        known = _mapping(_mapping(document.get("components")).get("schemas"))
        schema["$defs"] = {name: _schema(one) for name, one in known.items()}
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", str(operation.get("operationId") or f"{method} {path}")).strip("_")
    about = str(operation.get("summary") or operation.get("description") or f"{method.upper()} {path}")
    return Operation(plain, method, path, about, schema, places)


def _dereferenced(document: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """`value`, or what its `$ref` inside of the document leads to."""
    for _ in range(10):
        found = _mapping(value)
        target = found.get("$ref")
        if not isinstance(target, str):
            return found
        value = document
        for step in target.removeprefix("#/").split("/"):
            value = _mapping(value).get(step.replace("~1", "/").replace("~0", "~"))
    return {}


def _schema(value: Any) -> Any:
    """A schema of the document as JSON Schema: references into `$defs`, and 3.0's `nullable` as a type."""
    if isinstance(value, list):
        return [_schema(item) for item in cast("list[Any]", value)]
    if not isinstance(value, Mapping):
        return value
    made: dict[str, Any] = {}
    fields = cast("Mapping[str, Any]", value)
    for name, item in fields.items():
        if name == "$ref" and isinstance(item, str):
            made[name] = "#/$defs/" + item.removeprefix(_SCHEMAS) if item.startswith(_SCHEMAS) else item
        elif name not in ("nullable", "example", "xml", "externalDocs", "discriminator"):
            made[name] = _schema(item)
    if fields.get("nullable") is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []

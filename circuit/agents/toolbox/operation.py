"""The operations of an OpenAPI document (3.0 and 3.1): what each takes, as one JSON Schema, and the request of a call.

Parameters go by their names, a body as `body`. What only the server sets (`readOnly`), what settings give already, and
headers that are no model's business are not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import field
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit

import orjson

from circuit.agents.policy import matches
from circuit.agents.toolbox.body import Media, body_of, bracketed, encoded_pair, media_of, text_of_value
from circuit.agents.toolbox.schemas import Schemas, dereferenced, listed, mapped
from circuit.agents.tools import validator_of
from circuit.errors import ToolArgumentsInvalid, ToolSchemaInvalid, ToolsMisconfigured
from circuit.value import dataclass

METHODS = ("get", "put", "post", "delete", "patch")
MOST_OPERATIONS = 500
LONGEST_DESCRIPTION = 1_000
_OWN_HEADERS = {"accept", "authorization", "connection", "content-length", "content-type", "cookie", "host",
                "idempotency-key", "transfer-encoding"}  # fmt: skip
"""Headers that HTTP, Circuit or the settings give: OpenAPI itself says so of some."""
_DELIMITERS = {"spaceDelimited": "%20", "pipeDelimited": "|"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an argument goes: `kind` is path, query or header. `json` says that it is written as JSON there."""

    kind: str
    name: str
    style: str
    explode: bool
    json: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of an API. `places` says where each argument goes, but for that of the name `body`, which is
    written as `media` says."""

    name: str
    method: str
    path: str
    description: str
    schema: Mapping[str, Any]
    places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    body: str = ""
    media: Media | None = None


def check_version(document: Mapping[str, Any]) -> None:
    """Raises `ToolsMisconfigured` for what is no document of OpenAPI 3."""
    if not str(document.get("openapi", "")).startswith("3."):
        raise ToolsMisconfigured("the OpenAPI document has no `openapi: 3....`: only OpenAPI 3 is read")


def server_of(document: Mapping[str, Any]) -> str:
    """The address of the document's first server, with the defaults of its variables; empty where it has none."""
    server = next((mapped(one) for one in listed(document.get("servers"))), {})
    variables = mapped(server.get("variables"))

    def default(match: re.Match[str]) -> str:
        return str(mapped(variables.get(match[1])).get("default", match[0]))

    return re.sub(r"\{([^{}]+)\}", default, str(server.get("url") or ""))


def operations(
    document: Mapping[str, Any],
    wanted: Collection[str] = (),
    headers: Collection[str] = (),
    query: Collection[str] = (),
) -> Iterator[Operation]:
    """The operations of a document that patterns of names or of `operationId` mean (all, without any), in its order.
    `headers` and `query` name what each request carries anyway. One whose body nobody can write is left out.

    Raises `ToolsMisconfigured` for what is no such document, and for more than `MOST_OPERATIONS`.
    """
    check_version(document)
    given = {*_OWN_HEADERS, *(name.lower() for name in headers)}
    count = 0
    for path, entry in mapped(document.get("paths")).items():
        item = dereferenced(document, entry)
        for method in METHODS:
            about = mapped(item.get(method))
            known = str(about.get("operationId") or f"{method} {path}")
            name = re.sub(r"[^A-Za-z0-9_-]+", "_", known).strip("_")
            if not about or (wanted and not (matches(list(wanted), name) or matches(list(wanted), known))):
                continue
            operation = _operation(document, name, method, str(path), about, item, given, query)
            if operation is None:
                continue
            count += 1
            if count > MOST_OPERATIONS:
                raise ToolsMisconfigured(
                    f"the API has more than {MOST_OPERATIONS} operations: choose some by `operations`"
                )
            yield operation


def request_of(base: str, operation: Operation, arguments: Mapping[str, Any]) -> tuple[str, dict[str, str], bytes]:
    """Address, headers and body of a call. Raises `ToolArgumentsInvalid`."""
    path, query, headers = operation.path, list[str](), dict[str, str]()
    for argument, place in operation.places.items():
        value = arguments.get(argument)
        if value is None:
            continue
        if place.kind == "path":
            path = path.replace("{" + place.name + "}", _in_path(argument, place, value))
        elif place.kind == "query":
            query += _in_query(place, value)
        else:
            headers[place.name] = re.sub(r"[^\x20-\x7e]", "", _joined(place, value, str))
    parts = urlsplit(base)
    both = "&".join(text for text in (parts.query, *query) if text)
    url = urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, query=both, fragment=""))
    if operation.media is None or operation.body not in arguments:
        return url, headers, b""
    kind, body = body_of(operation.media, arguments[operation.body])
    return url, headers | {"Content-Type": kind}, body


def _in_path(argument: str, place: Place, value: Any) -> str:
    text = _joined(place, value, lambda one: quote(one, safe=""))
    if text in ("", ".", ".."):
        # The request would be one for another path.
        raise ToolArgumentsInvalid(f"{argument} must not be {text!r}: it is a part of the address")
    return text


def _in_query(place: Place, value: Any) -> list[str]:
    if place.json:
        return [encoded_pair(place.name, orjson.dumps(value).decode())]
    if place.style == "deepObject" and isinstance(value, dict | list):
        return [encoded_pair(name, text) for name, text in bracketed(place.name, value)]
    if place.explode and isinstance(value, list):
        return [encoded_pair(place.name, text_of_value(one)) for one in listed(value)]
    if place.explode and isinstance(value, dict):
        return [encoded_pair(str(name), text_of_value(one)) for name, one in mapped(value).items()]
    return [f"{quote_plus(place.name)}={_joined(place, value, quote_plus)}"]


def _joined(place: Place, value: Any, encode: Any) -> str:
    """A value as one text, its parts encoded."""
    if place.json:
        return encode(orjson.dumps(value).decode())
    between = _DELIMITERS.get(place.style, ",")
    if isinstance(value, list):
        return between.join(encode(text_of_value(one)) for one in listed(value))
    if isinstance(value, dict):
        inner = "=" if place.explode else between
        return between.join(
            f"{encode(str(name))}{inner}{encode(text_of_value(one))}" for name, one in mapped(value).items()
        )
    return encode(text_of_value(value))


def _operation(
    document: Mapping[str, Any],
    name: str,
    method: str,
    path: str,
    about: Mapping[str, Any],
    item: Mapping[str, Any],
    headers: Collection[str],
    query: Collection[str],
) -> Operation | None:
    schemas = Schemas(document)
    properties: dict[str, Any] = {}
    required: list[str] = []
    places: dict[str, Place] = {}
    for parameter in _parameters(document, path, item, about):
        place = _place(parameter)
        if (place.kind == "header" and place.name.lower() in headers) or (
            place.kind == "query" and place.name in query
        ):
            continue
        argument = place.name if place.name not in places else f"{place.name}_{place.kind}"
        content = next(iter(mapped(parameter.get("content")).values()), None)
        schema = schemas.of(mapped(content if content is not None else parameter).get("schema") or {})
        told = {"description": str(parameter["description"])} if parameter.get("description") else {}
        properties[argument] = {**schema, **told} if isinstance(schema, dict) else told
        places[argument] = place
        if parameter.get("required") or place.kind == "path":
            required.append(argument)
    body, media = "body" if "body" not in places else "request_body", None
    written = dereferenced(document, about.get("requestBody"))
    if written:
        media = media_of(mapped(written.get("content")))
        if media is not None:
            properties[body] = schemas.of(media.schema)
            required += [body] if written.get("required") else []
        elif written.get("required"):
            return None
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    schema |= {"required": required} if required else {}
    schema |= {"$defs": defs} if (defs := schemas.collected()) else {}
    try:
        validator_of(schema)
    except ValueError as error:
        raise ToolSchemaInvalid(
            f"the OpenAPI document describes {name} by what is no JSON Schema: {error!s:.200}. Leave it out: name the"
            " others in `operations`"
        ) from None
    told = str(about.get("summary") or about.get("description") or f"{method.upper()} {path}")
    return Operation(name, method, path, told[:LONGEST_DESCRIPTION], schema, places, body, media)


def _parameters(
    document: Mapping[str, Any], path: str, item: Mapping[str, Any], about: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """What goes into path, query and headers: those of the path, in whose place may stand those of the operation, and
    what the path names and nobody describes."""
    named = re.findall(r"\{([^{}]+)\}", path)
    # First: where a parameter of another kind has the same name, it is the other one that is called otherwise.
    found: dict[tuple[str, str], Mapping[str, Any]] = {
        ("path", name): {"name": name, "in": "path", "schema": {"type": "string"}} for name in named
    }
    for given in [*listed(item.get("parameters")), *listed(about.get("parameters"))]:
        parameter = dereferenced(document, given)
        name, kind = str(parameter.get("name") or ""), str(parameter.get("in") or "")
        if name and kind in ("path", "query", "header"):
            found[kind, name] = parameter
    return [one for (kind, name), one in found.items() if kind != "path" or name in named]


def _place(parameter: Mapping[str, Any]) -> Place:
    kind = str(parameter["in"])
    style = str(parameter.get("style") or ("form" if kind == "query" else "simple"))
    explode = bool(parameter.get("explode", style == "form"))
    return Place(kind, str(parameter["name"]), style, explode, json=bool(parameter.get("content")))

"""Tools from an OpenAPI document: what they take, where it goes, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from chat_server import ChatServer

from circuit.actions.tools import Toolbox
from circuit.agents.toolbox.openapi import api_of, openapi_tools, read_document
from circuit.agents.toolbox.operation import MOST_OPERATIONS, Operation, operations, request_of, server_of
from circuit.agents.tools import RESULT_LIMIT, Tool, ToolContext, call_tool, check_arguments
from circuit.errors import (
    ToolArgumentsInvalid,
    ToolDenied,
    ToolFailed,
    ToolOutputTooLarge,
    ToolSchemaInvalid,
    ToolsMisconfigured,
)
from circuit.http import Http, Timeouts

AROUND = ToolContext("case.1", "a", "c", "case.1/abc:1")
SECRETS = ("secret-key-12345",)
DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "servers": [{"url": "https://pets.example.org/v2"}],
    "paths": {
        "/pets/{id}": {
            "parameters": [{"$ref": "#/components/parameters/Id"}],
            "get": {
                "operationId": "getPet",
                "summary": "One pet.",
                "parameters": [
                    {"name": "fields", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}
                ],
            },
        },
        "/pets": {
            "post": {
                "summary": "A new pet.",
                "parameters": [{"name": "X-Trace", "in": "header", "schema": {"type": "string"}}],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}},
                },
            }
        },
    },
    "components": {
        "parameters": {"Id": {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}},
        "schemas": {
            "Pet": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "age": {"type": "integer", "nullable": True},
                    "parent": {"$ref": "#/components/schemas/Pet"},
                },
            }
        },
    },
}


def made(http: Http, headers: dict[str, str] | None = None, **settings: Any) -> dict[str, Tool]:
    async def here(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    given = {"prefix": "pets", "document": DOCUMENT, **settings}
    api = api_of(given, settings.get("base_url"), headers or {})
    return {tool.name: tool for tool in openapi_tools(http, api, given, headers or {}, SECRETS, here)}


def test_operations_become_schemas() -> None:
    get, post = operations(DOCUMENT)
    assert (get.name, get.method, get.description) == ("getPet", "get", "One pet.")
    assert get.schema["required"] == ["id"]
    assert {name: place.kind for name, place in get.places.items()} == {"id": "path", "fields": "query"}
    assert post.name == "post_pets"
    assert post.schema["required"] == ["body"]
    check = jsonschema_rs.validator_for(dict(post.schema)).is_valid
    assert check({"body": {"name": "Rex", "age": None, "parent": {"name": "Max"}}})
    assert not check({"body": {"name": "Rex", "parent": {}}})
    assert not check({})


def test_where_arguments_go() -> None:
    get, post = operations(DOCUMENT)
    url, headers, body = request_of("https://h/v2/", get, {"id": "a/b?c", "fields": ["x", "y z"]})
    assert url == "https://h/v2/pets/a%2Fb%3Fc?fields=x&fields=y+z"
    assert (headers, body) == ({}, b"")
    url, headers, body = request_of("https://h", post, {"X-Trace": "1\r\nX-Evil: 2", "body": {"name": "Rex"}})
    assert headers == {"X-Trace": "1X-Evil: 2", "Content-Type": "application/json"}
    assert json.loads(body) == {"name": "Rex"}


async def test_calls_over_http() -> None:
    replies: list[dict[str, Any]] = [
        {"status": 200, "body": {"name": "Rex", "key": "secret-key-12345"}},
        {"status": 404, "body": "no such pet, secret-key-12345"},
        {"status": 204, "body": ""},
        {"status": 302, "body": "", "headers": {"Location": "/v1/pets/9"}},
        {"status": 200, "body": {"name": "Max"}},
        {"status": 302, "body": "", "headers": {"Location": "http://127.0.0.1:1/"}},
        {"status": 307, "body": "", "headers": {"Location": "/v1/pets/9"}},
        {"status": 200, "body": "x" * (RESULT_LIMIT + 1)},
        {"status": 200, "body": {"name": "late"}},
    ]
    # What a call may take is said by the tool, whatever is usual for others.
    http = Http(Timeouts(idle=0.0))
    async with ChatServer(replies) as server:
        tools = made(http, {"X-Api-Key": "secret-key-12345"}, base_url=server.url, private=True)
        assert set(tools) == {"pets.getPet", "pets.post_pets"}
        get, post = tools["pets.getPet"], tools["pets.post_pets"]
        with pytest.raises(ToolArgumentsInvalid):
            check_arguments(get, {})
        assert await call_tool(get, {"id": "7"}, AROUND) == {"name": "Rex", "key": "***"}
        with pytest.raises(ToolFailed, match=r"404: no such pet, \*\*\*"):
            await call_tool(get, {"id": "8"}, AROUND)
        assert await call_tool(post, {"body": {"name": "Max"}}, AROUND) == {"status": 204}
        assert await call_tool(get, {"id": "8"}, AROUND) == {"name": "Max"}
        with pytest.raises(ToolFailed, match="which is another server"):
            await call_tool(get, {"id": "8"}, AROUND)
        with pytest.raises(ToolFailed, match="followed for GET only"):
            await call_tool(post, {"body": {"name": "Max"}}, AROUND)
        with pytest.raises(ToolOutputTooLarge, match="more than 262144 bytes"):
            await call_tool(get, {"id": "8"}, AROUND)
        for part in ("", ".."):
            with pytest.raises(ToolArgumentsInvalid, match="part of the address"):
                await call_tool(get, {"id": part}, AROUND)
        first, _, last = server.requests[:3]
    await http.aclose()
    assert (first.method, first.path) == ("GET", "/v1/pets/7")
    assert first.headers["x-api-key"] == "secret-key-12345"
    assert (last.method, last.body) == ("POST", {"name": "Max"})
    assert last.headers["idempotency-key"] == "case.1/abc:1"


async def test_a_private_server_must_be_allowed() -> None:
    http = Http()
    tools = made(http)
    with pytest.raises(ToolDenied, match="private address"):
        await call_tool(tools["pets.getPet"], {"id": "7"}, AROUND)
    await http.aclose()


def test_only_the_operations_that_were_asked_for() -> None:
    assert set(made(Http(), operations=["get*"])) == {"pets.getPet"}


def test_what_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(ToolsMisconfigured, match="only OpenAPI 3"):
        list(operations({"swagger": "2.0"}))
    with pytest.raises(ToolsMisconfigured, match="cannot be read"):
        read_document(str(tmp_path / "nothing.json"))
    with pytest.raises(ToolsMisconfigured, match="base_url"):
        made(Http(), document={**DOCUMENT, "servers": []})
    (tmp_path / "api.json").write_text(json.dumps(DOCUMENT))
    assert len(list(operations(read_document(str(tmp_path / "api.json"))))) == 2


ODD = """
openapi: 3.0.3
servers: [{url: "https://{region}.example.org/{base}", variables: {region: {default: eu}, base: {default: v2}}}]
paths:
  /items/{id}:
    get:
      operationId: items/get
      parameters:
        - {name: id, in: query, schema: {type: string}}
        - {name: key, in: query, required: true, schema: {type: string}}
        - {name: X-API-KEY, in: header, required: true, schema: {type: string}}
        - {name: Authorization, in: header, required: true, schema: {type: string}}
        - {name: tags, in: query, explode: false, schema: {type: array}}
        - {name: filter, in: query, style: deepObject, schema: {type: object}}
        - {name: page, in: query, schema: {type: object}}
        - {name: query, in: query, content: {application/json: {schema: {type: object}}}}
        - {name: age, in: query, schema: {type: integer, minimum: 0, exclusiveMinimum: true}}
        - {name: kind, in: query, schema: {type: string, nullable: true, enum: [a, no]}}
    post:
      operationId: items/form
      requestBody:
        content:
          application/x-www-form-urlencoded:
            schema: {type: object}
            encoding: {metadata: {style: deepObject}}
    put:
      operationId: items/upload
      requestBody:
        content:
          multipart/form-data: {schema: {type: object, properties: {file: {type: string, format: binary}}}}
    patch:
      operationId: items/patch
      requestBody: {content: {application/merge-patch+json: {schema: {$ref: "#/components/schemas/Item"}}}}
  /raw: {post: {requestBody: {required: true, content: {application/octet-stream: {}}}}}
  /text: {post: {operationId: text, requestBody: {content: {text/plain: {}}}}}
components:
  schemas:
    Item:
      type: object
      required: [id, name]
      properties:
        id: {type: integer, readOnly: true}
        name: {type: string}
        example: {type: string, example: x}
        price: {$ref: "#/components/schemas/Price"}
        parent: {$ref: "#/components/schemas/Item", nullable: true}
        since: {type: string, default: 2020-01-01}
    Price: {type: number}
    Unused: {pattern: "(?<no"}
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Operation]:
    file = tmp_path_factory.mktemp("api") / "odd.yaml"
    file.write_text(ODD)
    document = read_document(str(file))
    assert server_of(document) == "https://eu.example.org/v2"
    return {one.name: one for one in operations(document, headers=["x-api-key"], query=["key"])}


def test_documents_as_people_write_them(odd: dict[str, Operation]) -> None:
    # What nobody could send is left out, and what the settings or HTTP give is not asked for.
    assert set(odd) == {"items_get", "items_form", "items_upload", "items_patch", "text"}
    get, patch = odd["items_get"].schema, odd["items_patch"].schema
    assert get["required"] == ["id"]
    assert set(get["properties"]) == {"id", "id_query", "tags", "filter", "page", "query", "age", "kind"}
    check = jsonschema_rs.validator_for(dict(get)).is_valid
    assert check({"id": "1", "age": 1, "kind": None})
    assert check({"id": "1", "kind": "no"})
    assert not check({"id": "1", "age": 0})
    # What one operation needs of the components, and no more; what the server sets is no part of it.
    assert set(patch["$defs"]) == {"Item", "Price"}
    assert patch["$defs"]["Item"]["required"] == ["name"]
    assert set(patch["$defs"]["Item"]["properties"]) == {"name", "example", "price", "parent", "since"}
    assert patch["$defs"]["Item"]["properties"]["since"]["default"] == "2020-01-01"
    assert jsonschema_rs.validator_for(dict(patch)).is_valid({"id": "1", "body": {"name": "x", "parent": None}})


@pytest.mark.parametrize(
    ("name", "arguments", "goes"),
    [
        ("items_get", {"id": "a/b", "id_query": "c"}, "/items/a%2Fb?key=k&id=c"),
        ("items_get", {"id": "1", "tags": ["x", "y,z"]}, "/items/1?key=k&tags=x,y%2Cz"),
        ("items_get", {"id": "1", "filter": {"a": {"b": [True]}}}, "/items/1?key=k&filter%5Ba%5D%5Bb%5D%5B0%5D=true"),
        ("items_get", {"id": "1", "page": {"n": 2, "size": 5}}, "/items/1?key=k&n=2&size=5"),
        ("items_get", {"id": "1", "query": {"a": 1}, "kind": None}, "/items/1?key=k&query=%7B%22a%22%3A1%7D"),
        ("items_form", {"id": "1", "body": {"a": "b c", "metadata": {"k": 1}, "n": [1, 2]}},
         "a=b+c&metadata%5Bk%5D=1&n=1&n=2"),
        ("items_patch", {"id": "1", "body": {"name": "x"}}, '{"name":"x"}'),
        ("text", {"body": "Grüße"}, "Grüße"),
        ("text", {}, ""),
    ],
)  # fmt: skip
def test_how_arguments_are_written(odd: dict[str, Operation], name: str, arguments: Any, goes: str) -> None:
    url, headers, body = request_of("https://h?key=k", odd[name], arguments)
    assert body.decode() == goes if name != "items_get" else url == f"https://h{goes}"
    kinds = {"items_form": "application/x-www-form-urlencoded", "items_patch": "application/merge-patch+json",
             "text": "text/plain; charset=utf-8"}  # fmt: skip
    assert headers.get("Content-Type") == (kinds.get(name) if body else None)


def test_a_form_in_parts(odd: dict[str, Operation]) -> None:
    asked = {"id": "1", "body": {"file": "a\nb", 'no"te': "x"}}
    _, headers, body = request_of("https://h", odd["items_upload"], asked)
    # A server reads it as what the email package reads it as.
    read = message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
    parts = [(part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload())
             for part in read.get_payload()]  # fmt: skip
    assert parts == [("file", "file", "a\nb"), ("no_te", None, "x")]
    assert request_of("https://h", odd["items_upload"], asked)[2] == body


async def test_a_document_is_read_once_and_its_keys_come_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(ODD)
    environment = {"KEY": "secret-key-12345"}
    box = Toolbox(tmp_path, environment=environment)
    entry = {"kind": "openapi", "document": str(file), "prefix": "odd", "base_url": "https://h?key=${KEY}",
             "headers": {"X-Api-Key": "${KEY}"}, "seconds": 5.0, "operations": ["items/g*"]}  # fmt: skip

    async def named() -> dict[str, Tool]:
        return await box.tools({"tools": [entry]}, "case")

    (first,) = (await named()).values()
    (again,) = (await named()).values()
    assert first.name == "odd.items_get"
    assert (first.seconds, first.secrets) == (5.0, ("secret-key-12345",))
    assert first.spec.parameters is again.spec.parameters
    file.write_text(ODD.replace("items/get", "items/glance"))
    assert set(await named()) == {"odd.items_glance"}
    environment.clear()
    with pytest.raises(ToolsMisconfigured, match="refer to KEY"):
        await named()
    await box.aclose()


def test_what_no_operation_can_be_made_of(tmp_path: Path) -> None:
    def document(schema: Any) -> dict[str, Any]:
        parameter = {"name": "a", "in": "query", "schema": schema}
        return {"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "a", "parameters": [parameter]}}}}

    with pytest.raises(ToolSchemaInvalid, match="describes a by what is no JSON Schema"):
        list(operations(document({"type": "nothing"})))
    for target, says in (("other.yaml#/A", "outside of itself"), ("#/components/schemas/A", "does not hold")):
        with pytest.raises(ToolsMisconfigured, match=says):
            list(operations(document({"$ref": target})))
    # Those that nobody asked for harm nobody.
    assert list(operations(document({"type": "nothing"}), ["b*"])) == []
    many = {f"/{n}": {"get": {"operationId": f"get{n}"}} for n in range(MOST_OPERATIONS + 1)}
    with pytest.raises(ToolsMisconfigured, match="more than 500 operations"):
        list(operations({"openapi": "3.1.0", "paths": many}))
    assert len(list(operations({"openapi": "3.1.0", "paths": many}, ["get1*"]))) == 111
    laughing = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 25))
    (tmp_path / "lol.yaml").write_text(laughing)
    with pytest.raises(ToolsMisconfigured, match="more than 1000000 values"):
        read_document(str(tmp_path / "lol.yaml"))


def test_a_document_may_be_yaml(tmp_path: Path) -> None:
    file = tmp_path / "pets.yaml"
    for wrong in ("- a\n- b\n", "a: [\n", "", "{"):
        file.write_text(wrong)
        with pytest.raises(ToolsMisconfigured, match=r"pets\.yaml"):
            read_document(str(file))

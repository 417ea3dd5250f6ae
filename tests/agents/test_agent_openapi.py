"""Tools from an OpenAPI document: what they take, where it goes, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from chat_server import ChatServer

from circuit.agents.toolbox.openapi import openapi_tools, operations, read_document, request_of
from circuit.agents.tools import Tool, ToolContext, call_tool, check_arguments
from circuit.errors import ToolArgumentsInvalid, ToolDenied, ToolFailed, ToolsMisconfigured
from circuit.http import Http

AROUND = ToolContext("case.1", "a", "c", "case.1/abc:1")
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
    return {tool.name: tool for tool in openapi_tools(http, given, headers or {}, here)}


def test_operations_become_schemas() -> None:
    get, post = operations(DOCUMENT)
    assert (get.name, get.method, get.description) == ("getPet", "get", "One pet.")
    assert get.schema["required"] == ["id"]
    assert get.places == {"id": "path", "fields": "query"}
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
        {"status": 200, "body": {"name": "Rex"}},
        {"status": 404, "body": "no such pet"},
        {"status": 204, "body": ""},
    ]
    http = Http()
    async with ChatServer(replies) as server:
        tools = made(http, {"X-Api-Key": "secret-key-12345"}, base_url=server.url, private=True)
        assert set(tools) == {"pets.getPet", "pets.post_pets"}
        with pytest.raises(ToolArgumentsInvalid):
            check_arguments(tools["pets.getPet"], {})
        assert await call_tool(tools["pets.getPet"], {"id": "7"}, AROUND) == {"name": "Rex"}
        with pytest.raises(ToolFailed, match="404: no such pet"):
            await call_tool(tools["pets.getPet"], {"id": "8"}, AROUND)
        assert await call_tool(tools["pets.post_pets"], {"body": {"name": "Max"}}, AROUND) == {"status": 204}
        first, _, last = server.requests
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


YAML = """
openapi: 3.1.0
servers: [{url: "https://pets.example.org"}]
paths:
  /pets:
    get: {operationId: listPets, responses: {200: {description: ok}}}
"""


def test_a_document_may_be_yaml(tmp_path: Path) -> None:
    file = tmp_path / "pets.yaml"
    file.write_text(YAML)
    assert [one.name for one in operations(read_document(str(file)))] == ["listPets"]
    for wrong in ("- a\n- b\n", "a: [\n", "", "{"):
        file.write_text(wrong)
        with pytest.raises(ToolsMisconfigured, match=r"pets\.yaml"):
            read_document(str(file))

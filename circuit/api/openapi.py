"""The OpenAPI document of the HTTP routes, served at `/openapi.json`. GraphQL has its own schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from circuit.api.openai.form import ChatForm, CompletionForm

VERSION = "3.1.0"
_OBJECT: Mapping[str, Any] = {"type": "object"}
_PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "object"},
                "timestamp": {"type": "string", "format": "date-time"},
                "type": {"type": "string", "description": "Below /v1: the kind of error that chat clients know."},
                "param": {"type": ["string", "null"], "description": "Below /v1: the parameter that is at fault."},
            },
        }
    },
}


def describe(version: str, *, chat: bool) -> dict[str, Any]:
    """The document; with `chat`, the routes of chat clients too."""
    _, definitions = models_json_schema(
        [(ChatForm, "validation"), (CompletionForm, "validation")], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = {"Problem": _PROBLEM, **(definitions["$defs"] if chat else {})}
    return {
        "openapi": VERSION,
        "info": {
            "title": "Circuit",
            "version": version,
            "description": "Workflows are driven over GraphQL, at /graphql; what agents say is read here.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"bearer": []}, {}],
        "paths": {**_paths(), **(_chat_paths() if chat else {})},
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
            "responses": {"Problem": _answer("An error, with its code.", {"$ref": "#/components/schemas/Problem"})},
        },
    }


def _paths() -> dict[str, Any]:
    execution = _parameter("execution_id", "path", "`CASE.NUMBER`.")
    after = _parameter("after", "query", "The cursor behind which to go on. `since` means the same.")
    last = _parameter("Last-Event-ID", "header", "The same, as browsers send it.")
    token = _parameter("token", "query", "A stream token, for browsers.")
    events = {
        "200": {
            "description": "The events from the cursor on, live to the terminal one.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        "204": {"description": "Nothing follows the cursor."},
        "410": {"$ref": "#/components/responses/Problem"},
    }
    health = {
        "200": _answer("Requests can be served.", _OBJECT),
        "503": _answer("They cannot, and why.", _OBJECT),
    }
    page = {"200": {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}}
    file = {"200": {"description": "The file."}, "404": {"$ref": "#/components/responses/Problem"}}
    query = {
        "type": "object",
        "required": ["query"],
        "properties": {
            "query": {"type": "string"},
            "variables": {"type": ["object", "null"]},
            "operationName": {"type": ["string", "null"]},
        },
    }
    return {
        "/": {"get": _operation("index", "Which routes there are.", {"200": _answer("The routes.", _OBJECT)})},
        "/health": {"get": {**_operation("health", "Whether requests can be served.", health), "security": []}},
        "/ready": {"get": {**_operation("ready", "The same, for load balancers.", health), "security": []}},
        "/metrics": {
            "get": _operation(
                "metrics",
                "Figures for Prometheus.",
                {"200": {"description": "The figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
            )
        },
        "/openapi.json": {
            "get": {**_operation("openapi", "This document.", {"200": _answer("It.", _OBJECT)}), "security": []}
        },
        "/graphql": {
            "post": {
                **_operation("graphql", "Queries and mutations.", {"200": _answer("The data, and errors.", _OBJECT)}),
                "requestBody": _body(query),
            }
        },
        "/explorer": {"get": {**_operation("explorer", "A page that explores GraphQL.", page), "security": []}},
        "/explorer/{name}": {
            "parameters": [_parameter("name", "path", "A file of that page.")],
            "get": {**_operation("explorerFile", "What the page needs.", file), "security": []},
        },
        "/agent-stream/{execution_id}": {
            "parameters": [execution, after, last, token],
            "get": _operation("stream", "What an agent says, as server-sent events.", events),
        },
    }


def _chat_paths() -> dict[str, Any]:
    key = _parameter("Idempotency-Key", "header", "The same key again gives the same answer.")

    def asks(name: str, summary: str, form: str) -> dict[str, Any]:
        answers = {
            "200": {
                "description": "The answer; with `stream`, its pieces.",
                "content": {
                    "application/json": {"schema": _OBJECT},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            }
        }
        body = _body({"$ref": f"#/components/schemas/{form}"})
        return {"post": {**_operation(name, summary, answers), "parameters": [key], "requestBody": body}}

    model = _parameter("model", "path", "`agent:ID`, `workflow:ID` or `TYPE:NAME`.")
    return {
        "/v1/chat/completions": asks("chat", "Ask an agent, a workflow or a model.", "ChatForm"),
        "/v1/completions": asks("complete", "The same for older clients.", "CompletionForm"),
        "/v1/models": {"get": _operation("models", "Which models there are.", {"200": _answer("Them.", _OBJECT)})},
        "/v1/models/{model}": {
            "parameters": [model],
            "get": _operation("model", "One of them.", {"200": _answer("It.", _OBJECT)}),
        },
    }


def _operation(name: str, summary: str, answers: Mapping[str, Any]) -> dict[str, Any]:
    problem = {"$ref": "#/components/responses/Problem"}
    return {"operationId": name, "summary": summary, "responses": {**answers, "default": problem}}


def _parameter(name: str, place: str, description: str) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}


def _answer(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _body(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}

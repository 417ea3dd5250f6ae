"""The reference says what the code does: kinds, fields, types, codes, limits, and examples that run."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from graphql import parse, validate
from graphql.utilities import build_schema
from served import Served
from stage import Stage

from circuit import errors, events
from circuit.api import application, metrics, problems
from circuit.api.graphql import endpoint, extent, paging, schema
from circuit.api.sse import HEARTBEAT_SECONDS, RETRY_MILLISECONDS
from circuit.app import figures as process_figures
from circuit.engine import figures
from circuit.events import StreamDelta, StreamType, encode_frame
from circuit.surface import surface

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def rows(text: str, columns: int) -> list[list[str]]:
    """The rows of every table with so many columns, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if len(row) == columns and row[0].startswith("`")]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_every_case_event_is_listed_with_its_fields() -> None:
    text = page("events.md").partition("## Case events")[2].partition("## Stream events")[0]
    listed = {
        section.partition("`")[0]: [row[0].strip("`") for row in rows(section, 2)]
        for section in text.split("\n### `")[1:]
    }
    kinds = {
        event.kind: [field.name for field in dataclasses.fields(event)]
        for event in typing.get_args(events.CaseEvent)
        if event is not events.LaterEvent
    }
    assert listed == kinds and listed.keys() == set(events.CASE_EVENTS)


def test_every_stream_event_is_listed_with_its_keys() -> None:
    text = page("events.md").partition("## Stream events")[2]
    envelope = [row[0].strip("`") for row in rows(text, 2)]
    frame = encode_frame("x", 1, 1, StreamDelta(StreamType.COMPLETED, {}), datetime.now(UTC))
    assert envelope == list(orjson.loads(frame.body))
    keys: dict[str, set[str]] = {}
    for kind, key, _ in rows(text, 3):
        keys.setdefault(kind.strip("`"), set()).add(key.strip("`"))
    assert set(keys) == {kind.value for kind in StreamType}
    for delta in (StreamDelta.content("a"), StreamDelta.thinking("a", "b", [{}])):
        assert set(delta.fields) == keys[delta.type.value]
    assert keys["failed"] == {"error"}
    assert {"final_response", "usage", "output"} == keys["completed"]


def test_every_error_is_listed_as_it_shows() -> None:
    listed = [tuple(cell.strip("`") for cell in row[:7]) for row in rows(page("errors.md"), 8)]
    expected: list[tuple[str, ...]] = []
    for cls in _tree(errors.CircuitError):
        shown = surface(cls.code)
        line = [base for base in inspect.getmro(cls) if issubclass(base, errors.CircuitError)]
        group = line[-2].__name__ if len(line) > 1 else ""
        retryable = "yes" if cls.retryable else "no"
        expected.append(
            (cls.code, cls.__name__, group, retryable, *map(str, (shown.http, shown.websocket, shown.exit)))
        )
    assert sorted(listed) == sorted(expected)
    assert f"`{problems.INTERNAL_CODE}`" in page("errors.md")


def _tree(cls: type[errors.CircuitError]) -> list[type[errors.CircuitError]]:
    found = [cls]
    for sub in cls.__subclasses__():
        if sub.__module__.startswith(f"{errors.__name__}."):
            found += _tree(sub)
    return found


def test_the_limits_of_graphql_are_those_of_the_code() -> None:
    text = page("graphql.md")
    for what, limit in [
        ("the body of a request, a message over WebSocket", f"{application.LARGEST_BODY // 2**20} MiB"),
        ("depth of a document", str(extent.DEEPEST_QUERY)),
        ("aliases", str(extent.MOST_ALIASES)),
        ("values that a query could give, by the pages that it asks for", f"{extent.MOST_VALUES:,}"),
        ("lexical tokens (a string is one)", f"{schema.MOST_TOKENS:,}"),
        ("operations under way on one WebSocket", str(endpoint.MOST_SUBSCRIPTIONS)),
    ]:
        assert f"| {what} | {limit} |" in text
    assert f"`first` is {paging.DEFAULT_PAGE} unless given and at most {paging.LARGEST_PAGE}" in text
    assert f"inside an object {paging.DEFAULT_PART} and at most {paging.LARGEST_PART:,}" in text


def test_the_spans_of_streams_are_those_of_the_code() -> None:
    text = page("streams.md")
    assert f"reconnects by itself after {RETRY_MILLISECONDS / 1000:g} s" in text
    assert f"A comment comes every {HEARTBEAT_SECONDS:g} s" in text


def test_every_operation_is_listed_and_every_example_fits_the_schema() -> None:
    text = page("graphql.md")
    built = build_schema(page("schema.graphql"))
    known = {
        name
        for root in (built.query_type, built.mutation_type, built.subscription_type)
        if root is not None
        for name in root.fields
    }
    assert {row[0].strip("`").partition("(")[0] for row in rows(text, 2)} == known
    examples = [*blocks(text, "graphql"), *blocks(page("streams.md"), "graphql")]
    assert len(examples) == 2
    for example in examples:
        assert validate(built, parse(example)) == []


async def test_the_python_client_of_the_reference_works(
    server: Served, writing: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    [source] = blocks(page("streams.md"), "python")
    names: dict[str, Any] = {}
    exec(compile(source, "streams.md", "exec"), names)  # noqa: S102 -- our own page
    told = await writing.execution()
    outlet = told.open()
    await outlet.emit(StreamDelta.content("Hello, "))
    await outlet.close()
    outlet = await told.open_again("lost")
    for piece in ("Good ", "morning"):
        await outlet.emit(StreamDelta.content(piece))
    await told.complete(await outlet.close(), "Good morning")
    answer = await asyncio.to_thread(names["answer"], server.websocket_url, str(told.name))
    assert answer == "Good morning"
    assert capsys.readouterr().out == "Hello, Good morning"


def test_every_figure_is_listed() -> None:
    text = page("metrics.md")
    sources = (inspect.getsource(module) for module in (figures, metrics, process_figures))
    named = {name for source in sources for name in re.findall(r'(?:Figure|_of_times)\(\s*"(\w+)"', source)}
    assert len(named) > 5
    for name in named:
        assert re.search(rf"`{name}(_total)?`", text), name

"""Python functions as tools: what a signature says of them, what they may give back, how long a call may take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from circuit import action
from circuit.actions.tools import Toolbox
from circuit.agents.function import function_tool
from circuit.agents.tools import DEFAULT_SECONDS, Tool, ToolContext, call_tool
from circuit.app.performers import as_tools
from circuit.errors import InvalidRequest, ToolError, ToolsMisconfigured

_ENDS = (SystemExit(3), asyncio.CancelledError(), TimeoutError("of its own"))
AROUND = ToolContext("execution", "agent", "call", "key")


class Line(BaseModel):
    title: str
    price: Decimal = Decimal("1.50")


@dataclass
class Point:
    x: int


def shadowing(schema: str, copy: int = 1, _hidden: bool = False) -> list[Any]:
    return [schema, copy, _hidden]


def placed(first: int, /, second: int = 2) -> list[int]:
    return [first, second]


class Counter:
    """Counts."""

    def __call__(self, by: int) -> int:
        return by + 1


class Later:
    async def __call__(self, by: int) -> int:
        return by + 2


def known(number: int, around: ToolContext | None = None) -> list[Any]:
    return [number, around == AROUND]


def described(
    title: str,
    count: int = 1,
    size: Annotated[int, Field(ge=1, description="As annotated.")] = 1,
    where: str = Field("here", description="As the default says."),
) -> list[Any]:
    """Finds books.

    Args:
        title (str): What stands
            on the cover.
        count: How many.
        size: Not this.
    """
    return [title, count, size, where]


def in_another_style(isbn: str) -> str:
    """Finds one book.

    :param isbn: Ten or thirteen digits.
    """
    return isbn


@pytest.mark.parametrize(
    ("call", "arguments", "gives"),
    [
        (shadowing, {"schema": "s", "_hidden": True}, ["s", 1, True]),
        (placed, {"first": 1}, [1, 2]),
        (Counter(), {"by": 1}, 2),
        (Later(), {"by": 1}, 3),
        (partial(placed, 7), {"second": 8}, [7, 8]),
        (known, {"number": 1}, [1, True]),
        (described, {"title": "t"}, ["t", 1, 1, "here"]),
    ],
)
@pytest.mark.filterwarnings("error")
async def test_whatever_the_parameters_are_called_they_get_their_arguments(
    call: Any, arguments: dict[str, Any], gives: Any
) -> None:
    tool = function_tool("f", call)
    assert set(arguments) <= set(tool.spec.parameters["properties"])
    assert "around" not in tool.spec.parameters["properties"]
    assert await call_tool(tool, arguments, AROUND) == gives


def test_docstrings_say_what_parameters_are_for() -> None:
    told = {name: one.get("description") for name, one in _properties(described).items()}
    assert told == {
        "title": "What stands on the cover.",
        "count": "How many.",
        "size": "As annotated.",
        "where": "As the default says.",
    }
    assert _properties(in_another_style)["isbn"]["description"] == "Ten or thirteen digits."


def _properties(call: Any) -> dict[str, Any]:
    return function_tool("f", call).spec.parameters["properties"]


def yields() -> Any:
    yield 1


def takes_a_function(call: type[Any]) -> None:
    """Nobody can write one as JSON."""


@pytest.mark.parametrize(("call", "says"), [(yields, "yields"), (takes_a_function, "cannot be read")])
def test_what_is_no_tool_is_said_before_any_call(call: Any, says: str) -> None:
    with pytest.raises(ToolsMisconfigured, match=says):
        function_tool("f", call)


async def test_results_take_their_json_form() -> None:
    assert await _given(Line(title="a")) == {"title": "a", "price": "1.50"}
    assert await _given([Line(title="a")]) == [{"title": "a", "price": "1.50"}]
    assert await _given({1: {Point(1).x}, "p": Path("/x"), "d": Decimal("2.0")}) == {"1": [1], "p": "/x", "d": "2.0"}
    # What only looks like a NUL is none.
    assert await _given("\\u0000") == "\\u0000"
    for nothing, code in (
        (object(), "tool_output"),
        ((n for n in (1,)), "tool_output"),
        ({"deep": b"\xff"}, "tool_output_binary"),
        ("\\\0", "tool_output_binary"),
    ):
        assert (await _given(nothing))["error"] == code


@pytest.mark.parametrize(
    ("raised", "blocking"),
    [
        *((error, blocking) for error in _ENDS for blocking in (True, False)),
        # On the event loop it is a key that somebody pressed.
        (KeyboardInterrupt(), True),
    ],
)
async def test_a_tool_ends_nothing_but_its_own_call(raised: BaseException, blocking: bool) -> None:
    def raises() -> None:
        raise raised

    async def raises_later() -> None:
        raise raised

    told = await asyncio.create_task(_called(function_tool("f", raises if blocking else raises_later)))
    assert told["error"] == "tool_failed"
    assert "did not come back" not in told["message"]


async def _given(value: Any) -> Any:
    return await _called(function_tool("f", lambda: value))


async def _called(tool: Tool) -> Any:
    try:
        return await call_tool(tool, {}, AROUND)
    except ToolError as error:
        return {"error": error.code, "message": error.message}


@action(tool_seconds=7)
def patient() -> str:
    return "here"


def ordinary() -> str:
    return "there"


async def test_how_long_a_call_may_take_is_said_by_the_function_or_by_the_agent(tmp_path: Path) -> None:
    box = Toolbox(tmp_path, functions=as_tools({}, [patient, ordinary]))

    async def seconds(*entries: dict[str, Any]) -> dict[str, float]:
        return {name: tool.seconds for name, tool in (await box.tools({"tools": list(entries)}, "case")).items()}

    names = [{"kind": "named", "name": name} for name in ("patient", "ordinary")]
    assert await seconds(*names) == {"patient": 7, "ordinary": DEFAULT_SECONDS}
    # A setting counts wherever it stands.
    limited = {"kind": "function", "name": "p*", "seconds": 600.0}
    assert await seconds(*names, limited) == {"patient": 600, "ordinary": DEFAULT_SECONDS}
    assert await seconds({"kind": "function", "name": "ordinary"}) == {"ordinary": DEFAULT_SECONDS}
    fetching = {"kind": "http", "allow": ["example.org"], "seconds": 300.0}
    assert await seconds(fetching) == {"http.fetch": 300}
    with pytest.raises(ToolsMisconfigured, match="there is no tool"):
        await seconds({"kind": "function", "name": "fs.list"})


def test_what_cannot_be_registered() -> None:
    other = partial(ordinary)
    for tools, says in (([other], "no name"), ([lambda: 1], "no name"), ([ordinary, _renamed()], "two tools")):
        with pytest.raises(InvalidRequest, match=says):
            as_tools({}, tools)
    for seconds in (0, -1, float("nan")):
        with pytest.raises(InvalidRequest, match="more than 0"):
            action(tool_seconds=seconds)(ordinary)

    def with_context(ctx: Any) -> None: ...

    with pytest.raises(InvalidRequest, match="no tool"):
        action(tool_seconds=1)(with_context)


def _renamed() -> Any:
    def ordinary() -> None: ...

    return ordinary

"""Tools from Python functions: the schema from the signature, the description from the docstring."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError, create_model

from circuit.agents.tools import DEFAULT_SECONDS, Tool, ToolContext
from circuit.errors import ToolArgumentsInvalid, ToolsMisconfigured
from circuit.providers.provider import ToolSpec
from circuit.threads import Threads

MOST_THREADS = 64
"""How many calls of functions that block may be under way in a process."""


def function_tool(
    name: str,
    call: Callable[..., Any],
    *,
    seconds: float = DEFAULT_SECONDS,
    description: str = "",
    threads: Threads | None = None,
) -> Tool:
    """`call` as a tool. One that is not asynchronous runs in one of `threads`; a parameter of the type `ToolContext`
    gets the context. Raises `ToolsMisconfigured` where the signature cannot be read."""
    model, context = _model(name, call)
    own = threads or Threads(MOST_THREADS)
    spec = ToolSpec(name, description or first_paragraph(call), schema_of(model))

    async def perform(arguments: Mapping[str, Any], around: ToolContext) -> Any:
        try:
            checked = model.validate_python(dict(arguments))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ToolArgumentsInvalid(f"{where}: {first['msg']}" if where else first["msg"]) from None
        given = {field: getattr(checked, field) for field in type(checked).model_fields}
        if context is not None:
            given[context] = around
        if inspect.iscoroutinefunction(call):
            return await call(**given)
        # Not one of asyncio's own threads: a call that never returns would keep the process, and what else needs them.
        return await own.run(name, partial(call, **given))

    return Tool(spec, perform, seconds)


def parameters_of(call: Callable[..., Any], without: Collection[str] = ()) -> dict[str, Any]:
    """The JSON Schema of the arguments of `call`, but for the parameters `without`."""
    return schema_of(_model(getattr(call, "__name__", "function"), call, without)[0])


def schema_of(model: TypeAdapter[Any]) -> dict[str, Any]:
    """The schema as models take it: without the titles that only repeat names."""
    return typing.cast("dict[str, Any]", _untitled(model.json_schema()))


def first_paragraph(call: Callable[..., Any]) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(call) or "").partition("\n\n")[0].split())


def _model(name: str, call: Callable[..., Any], without: Collection[str] = ()) -> tuple[TypeAdapter[Any], str | None]:
    """A type of the arguments, and the name of the parameter that gets the context."""
    fields: dict[str, Any] = {}
    context: str | None = None
    try:
        hints = typing.get_type_hints(call.func if isinstance(call, partial) else call, include_extras=True)
        for parameter in inspect.signature(call).parameters.values():
            annotation = hints.get(parameter.name, Any)
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                raise ToolsMisconfigured(f"the tool {name} takes *{parameter.name}; name each of its parameters")
            if annotation is ToolContext:
                context = parameter.name
            elif parameter.name not in without:
                default = ... if parameter.default is inspect.Parameter.empty else parameter.default
                fields[parameter.name] = (annotation, default)
        return TypeAdapter(create_model(name, __config__={"extra": "forbid"}, **fields)), context
    except (NameError, TypeError, ValueError, PydanticSchemaGenerationError, PydanticUserError) as error:
        raise ToolsMisconfigured(f"the signature of the tool {name} cannot be read: {error}") from None


def _untitled(value: Any) -> Any:
    if isinstance(value, dict):
        entries = typing.cast("dict[str, Any]", value)
        return {key: _untitled(item) for key, item in entries.items() if key != "title" or not isinstance(item, str)}
    return [_untitled(item) for item in typing.cast("list[Any]", value)] if isinstance(value, list) else value

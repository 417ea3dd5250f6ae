"""Tools from Python functions: the schema from the signature, the description from the docstring."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from pydantic import (
    Field,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from circuit.agents.tools import DEFAULT_SECONDS, Tool, ToolContext
from circuit.errors import ToolArgumentsInvalid, ToolsMisconfigured
from circuit.providers.provider import ToolSpec
from circuit.threads import Threads
from circuit.value import dataclass

MOST_THREADS = 64
"""How many calls of functions that block may be under way in a process."""
SECONDS_MARK = "__circuit_tool_seconds__"
"""Where a function says how long a call of it as a tool may take."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One parameter of a function. `field` is its place in the model of the arguments: there its name might mean
    something else."""

    field: str
    name: str
    positional: bool


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a function takes: its parameters, a type of the arguments, and the name of the one that gets the context."""

    parameters: tuple[_Parameter, ...]
    model: TypeAdapter[Any]
    schema: dict[str, Any]
    context: str | None


def function_tool(
    name: str,
    call: Callable[..., Any],
    *,
    seconds: float | None = None,
    description: str = "",
    threads: Threads | None = None,
) -> Tool:
    """`call` as a tool. One that is not asynchronous runs in one of `threads`; a parameter of the type `ToolContext`
    gets the context. A call may take `seconds`, or what the function says itself. Raises `ToolsMisconfigured` where
    the signature cannot be read."""
    taken = _taken(name, call)
    own = threads or Threads(MOST_THREADS)
    spec = ToolSpec(name, description or first_paragraph(call), taken.schema)

    async def perform(arguments: Mapping[str, Any], around: ToolContext) -> Any:
        try:
            checked = taken.model.validate_python(dict(arguments))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ToolArgumentsInvalid(f"{where}: {first['msg']}" if where else first["msg"]) from None
        placed = [getattr(checked, one.field) for one in taken.parameters if one.positional]
        named = {one.name: getattr(checked, one.field) for one in taken.parameters if not one.positional}
        if taken.context is not None:
            named[taken.context] = around
        if inspect.iscoroutinefunction(_written(call)):
            return await call(*placed, **named)
        # Not one of asyncio's own threads: a call that never returns would keep the process, and what else needs them.
        return await own.run(name, partial(call, *placed, **named))

    if seconds is None:
        seconds = float(getattr(call, SECONDS_MARK, DEFAULT_SECONDS))
    return Tool(spec, perform, seconds)


def parameters_of(call: Callable[..., Any], without: Collection[str] = ()) -> dict[str, Any]:
    """The JSON Schema of the arguments of `call`, but for the parameters `without`."""
    return _taken(getattr(call, "__name__", "function"), call, without).schema


def schema_of(model: TypeAdapter[Any]) -> dict[str, Any]:
    """The schema as models take it: without the titles that only repeat names."""
    return typing.cast("dict[str, Any]", _untitled(model.json_schema(schema_generator=_Schema)))


def first_paragraph(call: Callable[..., Any]) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(_docstring(call).partition("\n\n")[0].split())


class _Schema(GenerateJsonSchema):
    """Warns nobody: a default that is no JSON is left out, and that is all."""

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        return None


def _taken(name: str, call: Callable[..., Any], without: Collection[str] = ()) -> _Taken:
    """What `call` takes, but for the parameters `without`. Raises `ToolsMisconfigured`."""
    fields: dict[str, Any] = {}
    parameters: list[_Parameter] = []
    context: str | None = None
    written = _written(call)
    if inspect.isgeneratorfunction(written) or inspect.isasyncgenfunction(written):
        raise ToolsMisconfigured(f"the tool {name} yields; a tool returns its result, such as a list")
    try:
        hints = typing.get_type_hints(written, include_extras=True)
        told = _told(call)
        for parameter in inspect.signature(call).parameters.values():
            annotation = hints.get(parameter.name, Any)
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                raise ToolsMisconfigured(f"the tool {name} takes *{parameter.name}; name each of its parameters")
            if annotation is ToolContext or ToolContext in typing.get_args(annotation):
                context = parameter.name
            elif parameter.name not in without:
                field = f"parameter{len(parameters)}"
                positional = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
                parameters.append(_Parameter(field, parameter.name, positional))
                fields[field] = _field(parameter, annotation, told.get(parameter.name, ""))
        model = TypeAdapter(create_model(name, __config__={"extra": "forbid"}, **fields))
        return _Taken(tuple(parameters), model, schema_of(model), context)
    except (NameError, TypeError, ValueError, PydanticSchemaGenerationError, PydanticUserError) as error:
        said = str(error).splitlines()[0]
        raise ToolsMisconfigured(f"the signature of the tool {name} cannot be read: {said}") from None


def _field(parameter: inspect.Parameter, annotation: Any, told: str) -> tuple[Any, Any]:
    """A parameter as a field of the model: its type, and what else is known of it. What its annotation or its default
    says of it counts before what the docstring says."""
    default: Any = parameter.default
    if isinstance(default, FieldInfo):
        annotation, default = Annotated[annotation, default], inspect.Parameter.empty
    notes = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is Annotated else ()
    about: dict[str, Any] = {"alias": parameter.name}
    if told and not any(isinstance(note, FieldInfo) and note.description for note in notes):
        about["description"] = told
    return annotation, Field(**about) if default is inspect.Parameter.empty else Field(default, **about)


def _written(call: Callable[..., Any]) -> Any:
    """The function of `call`, which may be one with some arguments given, or an object that can be called."""
    while isinstance(call, partial):
        call = typing.cast("Callable[..., Any]", call.func)
    return call if inspect.isroutine(call) else type(call).__call__


def _docstring(call: Callable[..., Any]) -> str:
    while isinstance(call, partial):
        call = typing.cast("Callable[..., Any]", call.func)
    return inspect.getdoc(call) or ""


def _told(call: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says of each parameter, in whichever of the usual styles."""
    from docstring_parser import ParseError, parse

    with suppress(ParseError):
        found = parse(_docstring(call)).params
        return {one.arg_name: " ".join(one.description.split()) for one in found if one.description}
    return {}


def _untitled(value: Any) -> Any:
    if isinstance(value, dict):
        entries = typing.cast("dict[str, Any]", value)
        return {key: _untitled(item) for key, item in entries.items() if key != "title" or not isinstance(item, str)}
    return [_untitled(item) for item in typing.cast("list[Any]", value)] if isinstance(value, list) else value

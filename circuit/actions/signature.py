"""What a function takes: its parameters, and inputs checked against their annotations."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from circuit.actions.context import BlockingContext, Context
from circuit.errors import InvalidInput, InvalidRequest

_MOST_NAMED = 10
_POSITIONAL = inspect.Parameter.POSITIONAL_ONLY
_MISSING = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input of a function."""

    name: str
    adapter: TypeAdapter[Any]
    required: bool
    positional: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """`context` is the name of the parameter that gets the context, `whole` says that the only other one gets all
    inputs as one value, `rest` that inputs of any name are taken."""

    name: str
    parameters: tuple[Parameter, ...]
    context: str | None
    whole: bool
    rest: bool

    @classmethod
    def of(cls, name: str, call: Callable[..., Any]) -> Signature:
        """The signature of `call`. Raises `InvalidRequest` where inputs cannot be checked against it."""
        try:
            hints = typing.get_type_hints(call, include_extras=True)
            found = inspect.signature(call).parameters.values()
        except (NameError, TypeError, ValueError) as error:
            raise InvalidRequest(f"the annotations of action {name} cannot be read: {error}") from error
        parameters: list[Parameter] = []
        context: str | None = None
        rest = False
        for parameter in found:
            annotation = hints.get(parameter.name, Any)
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                raise InvalidRequest(f"action {name} takes *{parameter.name}; inputs have names, so they have no order")
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                rest = True
            elif annotation in (Context, BlockingContext) or parameter.name == "ctx":
                context = parameter.name
            else:
                parameters.append(_parameter(name, parameter, annotation))
        only = hints.get(parameters[0].name) if len(parameters) == 1 and not rest else None
        return cls(name, tuple(parameters), context, _is_record(only), rest)

    def arguments(self, inputs: Mapping[str, Any], context: Any) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments of a call with these inputs. Raises `InvalidInput` with all that is wrong.

        Inputs that the function does not take are left out.
        """
        faults: list[str] = []
        positional: list[Any] = []
        known = {parameter.name for parameter in self.parameters}
        named = {name: value for name, value in inputs.items() if self.rest and name not in known}
        for parameter in self.parameters:
            if self.whole:
                value = inputs
            elif parameter.name in inputs:
                value = inputs[parameter.name]
            else:
                if parameter.required:
                    faults.append(f"{parameter.name} is missing")
                continue
            try:
                checked = parameter.adapter.validate_python(value)
            except ValidationError as error:
                faults.extend(_told(parameter.name, error, whole=self.whole))
                continue
            if parameter.positional:
                positional.append(checked)
            else:
                named[parameter.name] = checked
        if faults:
            more = f"; and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
            raise InvalidInput(f"{self.name} was called with wrong inputs: {'; '.join(faults[:_MOST_NAMED])}{more}")
        if self.context is not None:
            named[self.context] = context
        return positional, named


def _parameter(action: str, parameter: inspect.Parameter, annotation: Any) -> Parameter:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise InvalidRequest(
            f"action {action}: inputs cannot be checked against the annotation of {parameter.name}: {first}"
        ) from error
    return Parameter(parameter.name, adapter, parameter.default is _MISSING, parameter.kind is _POSITIONAL)


def _is_record(annotation: Any) -> bool:
    """Whether a value of this type is made of named values: a pydantic model, a dataclass or a `TypedDict`."""
    if not isinstance(annotation, type):
        return False
    return issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation) or typing.is_typeddict(annotation)


def _told(name: str, error: ValidationError, *, whole: bool) -> list[str]:
    """The faults without the values: an input may be large, or a secret."""
    faults: list[str] = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(str(part) for part in (*(() if whole else (name,)), *fault["loc"]))
        faults.append(f"{path}: {fault['msg'][:1].lower()}{fault['msg'][1:]}" if path else fault["msg"])
    return faults

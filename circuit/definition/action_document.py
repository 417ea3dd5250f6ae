"""What a workflow file says of actions that are no agents."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from circuit.definition.execution_document import InputMappingEntries, OutputMappingEntries, RetryConfig
from circuit.definition.field import Duration, ErrorContext, Line, Part, fault

FUNCTION_NAME = r"^[A-Za-z_][A-Za-z0-9_.-]*$"


def _check_function(value: str) -> str:
    if not re.fullmatch(FUNCTION_NAME, value):
        hint = "names of functions have letters, digits, _, - and dots, and begin with a letter or _"
        raise fault("function_name", f"{value!r} is not the name of a function", hint)
    return value


FunctionName = Annotated[
    Line, AfterValidator(_check_function), Field(max_length=200, json_schema_extra={"pattern": FUNCTION_NAME})
]


class ActionEntry(Part):
    """What all actions have in common."""

    input_mapping: Annotated[
        InputMappingEntries | None, Field(description="What the action gets. Default: the token's data.")
    ] = None
    output_mapping: Annotated[
        OutputMappingEntries | None, Field(description="What of the action's output the new tokens get.")
    ] = None
    required: Annotated[
        bool | None,
        Field(description="false: if the action fails the token moves on without its output. Default: true."),
    ] = None
    timeout_seconds: Annotated[
        Duration | None, Field(description="The longest one attempt may take. Default: 300.")
    ] = None
    retry_config: Annotated[RetryConfig | None, Field(description="How often a failure is tried again.")] = None


class FunctionEntry(ActionEntry):
    """Calls a Python function that is registered with `@action`."""

    type: Annotated[Literal["function"], Field(description="A Python function, registered with @action.")]
    name: Annotated[FunctionName, Field(description="The name under which the function is registered.")]
    heartbeat_seconds: Annotated[
        Duration | None,
        Field(description="The longest it may be silent (ctx.heartbeat, emit, step). Default: no such limit."),
    ] = None


ACTIONS = ("function",)


def _action_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    named: Any = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)  # type: ignore[reportUnknownMemberType]
    return f"<{named}>" if named in ACTIONS else None


Action = Annotated[
    Annotated[FunctionName, Tag("<text>")] | Annotated[FunctionEntry, Tag("<function>")],
    Discriminator(
        _action_tag,
        custom_error_type="unknown_type",
        custom_error_message="unknown type",
        custom_error_context=ErrorContext(
            known=ACTIONS, expected="the name of a function, or a mapping like {type: function, name: NAME}"
        ),
    ),
]

"""What a workflow file says of actions that are no agents."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from circuit.definition.agent_reference import check_headers, check_reference, check_url
from circuit.definition.execution_document import (
    AgentExecution,
    InputMappingEntries,
    OutputMappingEntries,
    RetryConfig,
)
from circuit.definition.field import Duration, ErrorContext, Identifier, JsonObject, Line, Part, Text, by_kind, fault

Status = Annotated[int, Field(ge=100, le=599)]

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
        Duration | None,
        Field(description="The longest one attempt may take, a wait included. Default: 300, and for what waits none."),
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


_SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie", "x-api-key")
_HOLE = re.compile(r"(?<!\$)\{[^\W\d]\w*\}")


def _check_request_url(value: str) -> str:
    server = value.partition("://")[2].partition("/")[0].partition("?")[0]
    if _HOLE.search(server):
        hint = "write the host, or ${NAME} for one from the environment; inputs may stand in the path and the query"
        raise fault("url", "the host of a request must stand in the file", hint)
    return check_url(value)


def _check_request_headers(value: dict[str, str]) -> dict[str, str]:
    check_headers(value)
    for name, text in value.items():
        if name.lower() in _SECRET_HEADERS:
            check_reference(text)
    return value


class HttpEntry(ActionEntry):
    """Sends one request to a server. In its texts {name} is an input and ${NAME} a variable of the environment."""

    type: Annotated[Literal["http"], Field(description="A request to a server.")]
    url: Annotated[
        Line,
        AfterValidator(_check_request_url),
        Field(description="The address; inputs in it are escaped, and its host must stand in the file."),
    ]
    method: Annotated[
        Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] | None,
        Field(description="Default: POST where there is a body, else GET."),
    ] = None
    headers: Annotated[
        dict[str, Line] | None,
        AfterValidator(lambda value: value if value is None else _check_request_headers(value)),
        Field(description="HTTP headers. Those that hold secrets must refer to the environment."),
    ] = None
    query: Annotated[
        dict[Line, str | int | float | bool] | None, Field(description="Names and values that are added to the URL.")
    ] = None
    body: Annotated[
        Any,
        Field(description="What is sent: JSON, or text. Default (POST, PUT, PATCH, DELETE): the inputs as JSON."),
    ] = None
    expect: Annotated[
        Annotated[
            Annotated[Status, Tag("<number>")] | Annotated[list[Status], Tag("<list>")],
            by_kind("a status, or a list of them", "number", "list"),
        ]
        | None,
        Field(description="The statuses that are a success. Default: 200 to 299."),
    ] = None
    idempotency_header: Annotated[
        Line | None,
        AfterValidator(lambda value: value if value is None else next(iter(check_headers({value: value})))),
        Field(description="The header with the key of the request. Default: Idempotency-Key."),
    ] = None

    @model_validator(mode="after")
    def _no_body_without_method(self) -> HttpEntry:
        if "body" in self.model_fields_set and self.method in ("GET", "HEAD"):
            raise fault("misplaced", f"a {self.method} has no body", "use query, or method: POST", at=["body"])
        return self


class HumanEntry(ActionEntry):
    """A task for a person. The firing waits, without a worker, until somebody has completed it."""

    type: Annotated[Literal["human"], Field(description="A task for a person.")]
    title: Annotated[Line | None, Field(description="What is to be done, in a line; {name} is an input.")] = None
    instructions: Annotated[Text | None, Field(description="How it is done; {name} is an input.")] = None
    form: Annotated[JsonObject | None, Field(description="JSON Schema of what the person fills in.")] = None
    roles: Annotated[list[Line] | None, Field(description="Roles that may complete it. Default: everyone.")] = None


def _check_job_environment(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("CIRCUIT_"):
            raise fault("variable", f"{name!r} is not the name of a variable for a job", "CIRCUIT_* are set by Circuit")
    return value


class JobEntry(ActionEntry):
    """Runs a command for as long as it takes, while the firing waits without a worker."""

    type: Annotated[Literal["job"], Field(description="A command that may run for days.")]
    command: Annotated[
        list[Annotated[str, Field(max_length=10_000)]],
        Field(min_length=1, max_length=1_000, description="The program and its arguments; {name} is an input."),
    ]
    backend: Annotated[Literal["process"] | None, Field(description="What runs it. Default: process.")] = None
    environment: Annotated[
        dict[Line, str] | None,
        AfterValidator(lambda value: value if value is None else _check_job_environment(value)),
        Field(description="Variables of the command; ${NAME} is one of the worker's own."),
    ] = None
    working_directory: Annotated[Line | None, Field(description="Where it runs. Default: a folder of its own.")] = None
    poll_seconds: Annotated[
        Duration | None, Field(description="The longest pause between two looks at how it stands. Default: 30.")
    ] = None


class SubworkflowEntry(ActionEntry):
    """Opens a case of another workflow, and waits without a worker until it has ended."""

    type: Annotated[Literal["subworkflow"], Field(description="A case of another workflow.")]
    workflow: Annotated[
        Identifier,
        Field(description="The id of the workflow, in the version that is current when the case begins."),
    ]


ACTIONS = ("function", "http", "human", "job", "subworkflow")


def _action_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    named: Any = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)  # type: ignore[reportUnknownMemberType]
    return f"<{named}>" if named in ACTIONS else None


Action = Annotated[
    Annotated[FunctionName, Tag("<text>")]
    | Annotated[FunctionEntry, Tag("<function>")]
    | Annotated[HttpEntry, Tag("<http>")]
    | Annotated[HumanEntry, Tag("<human>")]
    | Annotated[JobEntry, Tag("<job>")]
    | Annotated[SubworkflowEntry, Tag("<subworkflow>")],
    Discriminator(
        _action_tag,
        custom_error_type="unknown_type",
        custom_error_message="unknown type",
        custom_error_context=ErrorContext(
            known=ACTIONS, expected="the name of a function, or a mapping like {type: function, name: NAME}"
        ),
    ),
]


class CompensationEntry(Part):
    """What undoes a firing: an agent or an action. It is handed what the firing consumed and what it produced."""

    agent_execution: Annotated[
        Annotated[
            Annotated[Identifier, Tag("<text>")] | Annotated[AgentExecution, Tag("<mapping>")],
            by_kind("the id of an agent, or {agent_id, input_mapping, ...}", "text", "mapping"),
        ]
        | None,
        Field(description="Runs an agent: its id, or a mapping with agent_id."),
    ] = None
    action: Annotated[
        Action | None, Field(description="Does something else: the name of a function, or a mapping with type.")
    ] = None

    @model_validator(mode="after")
    def _one(self) -> CompensationEntry:
        if (self.agent_execution is None) == (self.action is None):
            raise fault("incomplete", "one thing undoes a firing", "write action: NAME, or agent_execution: NAME")
        return self


Compensation = Annotated[
    Annotated[FunctionName, Tag("<text>")] | Annotated[CompensationEntry, Tag("<mapping>")],
    by_kind("the name of a function, or {action} or {agent_execution}", "text", "mapping"),
]

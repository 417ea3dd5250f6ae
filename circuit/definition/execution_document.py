"""What a workflow file says of running an agent or an action: what goes in, what comes out, how often it is tried."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, Tag

from circuit.definition.field import Duration, Identifier, Line, Part, by_kind


class MappingEntry(Part):
    """A path, and what counts where it leads nowhere."""

    path: Annotated[Line, Field(description="The dotted path of the value.")]
    optional: Annotated[bool | None, Field(description="Leave the entry out where the path leads nowhere.")] = None
    default: Annotated[Any, Field(description="The value where the path leads nowhere.")] = None


MappingValue = Annotated[
    Annotated[Line, Tag("<text>")] | Annotated[MappingEntry, Tag("<mapping>")],
    by_kind("a path, or {path, optional, default}", "text", "mapping"),
]
InputMappingEntries = Annotated[
    dict[Line, MappingValue],
    Field(description="{agent_input: token_path}, with paths under data, metadata or tokens.PLACE."),
]
OutputMappingEntries = Annotated[
    dict[Line, MappingValue],
    Field(description="{token_path: output}; targets under data or metadata, or to.PLACE.data of one target."),
]


class RetryConfig(Part):
    """How often a failed action is tried again."""

    max_attempts: Annotated[int | None, Field(ge=1, le=1_000, description="Attempts in all. Default: 1.")] = None
    backoff_seconds: Annotated[
        Duration | None, Field(description="The first wait; it doubles with each attempt. Default: 1.")
    ] = None
    retry_on_errors: Annotated[
        list[Line] | None,
        Field(description="Error codes that are tried again. Default: every error that calls itself retryable."),
    ] = None
    max_crashes: Annotated[
        int | None,
        Field(ge=1, le=1_000, description="Lost processes after which it fails for good. Default: 10."),
    ] = None


class AgentExecution(Part):
    """Runs an agent between taking the tokens and producing the new ones."""

    agent_id: Annotated[Identifier, Field(description="The agent (under `agents`).")]
    input_mapping: Annotated[
        InputMappingEntries | None, Field(description="What the agent gets. Default: the token's data.")
    ] = None
    output_mapping: Annotated[
        OutputMappingEntries | None, Field(description="What of the agent's output the new tokens get.")
    ] = None
    required: Annotated[
        bool | None,
        Field(description="false: if the agent fails the token moves on without its output. Default: true."),
    ] = None
    timeout_seconds: Annotated[
        Duration | None, Field(description="The longest one attempt may take. Default: 300.")
    ] = None
    retry_config: Annotated[RetryConfig | None, Field(description="How often a failure is tried again.")] = None

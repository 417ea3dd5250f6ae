"""What a workflow file says of an agent's ways of working, its tools, and the policies that gate them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag

from circuit.definition.agent_reference import Headers, SecretReference, Url
from circuit.definition.field import Duration, Identifier, JsonObject, Line, Part, by_kind, fault, seconds

CAPABILITIES = ("direct", "chain_of_thought", "react", "self_reflection")
_TOOL_KINDS = "the name of a function, fs.*, shell.run, http.fetch, or a mapping like {files: {root: data}}"
_POLICY_KEYS = ("allow", "deny", "require_approval", "require", "limit")

Turns = Annotated[int | None, Field(ge=1, le=1000, description="How often the model may be asked.")]
Pattern = Annotated[str, Field(min_length=1, max_length=200, examples=["fs.*", "shell.run"])]
Patterns = Annotated[
    Annotated[Pattern, Tag("<text>")] | Annotated[list[Pattern], Field(min_length=1), Tag("<list>")],
    by_kind("the name of a tool, a pattern like fs.*, or a list of them", "text", "list"),
]


class DirectOptions(Part):
    """Answer at once, after the calls of tools that the answer needs."""

    max_turns: Turns = None


class ReactOptions(Part):
    """Thought, action, observation, until done."""

    max_turns: Turns = None


class ChainOfThoughtOptions(Part):
    """Think first; the steps are kept. It has no options yet."""


class SelfReflectionOptions(Part):
    """Judge the answer, and improve it while the confidence is too low."""

    confidence_threshold: Annotated[
        float | None, Field(ge=0, le=1, description="Improve while the confidence is under this. Default: 0.8.")
    ] = None
    max_rounds: Annotated[int | None, Field(ge=0, le=20, description="How often at most. Default: 2.")] = None
    criteria: Annotated[list[Line] | None, Field(description="What the answer is judged by.")] = None


class CapabilityEntry(Part):
    """One way of working with its options; one key only."""

    direct: Annotated[DirectOptions | None, Field(description="Answer at once.")] = None
    chain_of_thought: Annotated[ChainOfThoughtOptions | None, Field(description="Think first.")] = None
    react: Annotated[ReactOptions | None, Field(description="Thought, action, observation.")] = None
    self_reflection: Annotated[SelfReflectionOptions | None, Field(description="Judge and improve.")] = None


def _one_key(what: str, keys: tuple[str, ...]) -> Any:
    def check(value: Part) -> Part:
        if len(value.model_fields_set & set(keys)) != 1:
            raise fault("one_key", f"{what} has exactly one of the keys {', '.join(keys)}")
        return value

    return AfterValidator(check)


Capability = Annotated[
    Annotated[Literal["direct", "chain_of_thought", "react", "self_reflection"], Tag("<text>")]
    | Annotated[CapabilityEntry, _one_key("a capability", CAPABILITIES), Tag("<mapping>")],
    by_kind("a capability like react, or a mapping like {react: {max_turns: 10}}", "text", "mapping"),
]


def _some_time(value: float | str) -> float | str:
    if not seconds(value):
        raise fault("no_time", "a call needs some time", "write 30s, say")
    return value


Longest = Annotated[Duration, AfterValidator(_some_time)]


class FunctionTools(Part):
    """Python functions that the process has."""

    name: Annotated[Pattern, Field(description="The name of a function, or a pattern.")]
    seconds: Annotated[
        Longest | None, Field(description="Longest call. Default: what the function says itself, else 120 s.")
    ] = None


class FileTools(Part):
    """Files below one directory."""

    root: Annotated[Line | None, Field(description="The directory. Default: one of the case's own.")] = None
    read_only: Annotated[list[Pattern] | None, Field(description="Paths that may not be written, as patterns.")] = None
    extensions: Annotated[list[Line] | None, Field(description="Endings that files may have. Default: all.")] = None
    max_bytes: Annotated[int | None, Field(ge=1, description="How large a file may be. Default: 10 MiB.")] = None


class ShellTools(Part):
    """A shell in a sandbox without a network, which sees the agent's files and the system's programs."""

    root: Annotated[Line | None, Field(description="The directory. Default: one of the case's own.")] = None
    seconds: Annotated[Longest | None, Field(description="Longest run of a command. Default: 60 s.")] = None
    memory_mb: Annotated[int | None, Field(ge=16, description="Memory of a command, in MiB. Default: 512.")] = None
    max_bytes: Annotated[int | None, Field(ge=1, description="Most output. Default: 64 KiB.")] = None


class HttpTools(Part):
    """Fetching from named servers; private addresses are never reached unless they are named."""

    allow: Annotated[list[Line], Field(min_length=1, description="Hosts, as patterns: example.org, *.example.org.")]
    max_bytes: Annotated[int | None, Field(ge=1, description="Most of an answer. Default: 200 KB.")] = None
    private: Annotated[bool | None, Field(description="Whether the named hosts may lie in private networks.")] = None
    seconds: Annotated[Longest | None, Field(description="Longest call. Default: 120 s.")] = None


class OpenApiTools(Part):
    """The operations of an HTTP API, from its OpenAPI document."""

    document: Annotated[Line | JsonObject, Field(description="The document: a path, or the document itself.")]
    prefix: Annotated[Identifier, Field(description="Begins the names of its tools.")]
    base_url: Annotated[Url | None, Field(description="Address of the server. Default: the document's first.")] = None
    headers: Annotated[Headers | None, Field(description="HTTP headers, as references to the environment.")] = None
    operations: Annotated[list[Pattern] | None, Field(description="Which of them, as patterns. Default: all.")] = None
    private: Annotated[bool | None, Field(description="Whether the server may lie in a private network.")] = None
    seconds: Annotated[Longest | None, Field(description="Longest call. Default: 120 s.")] = None


class McpTools(Part):
    """The tools of a server that speaks the Model Context Protocol."""

    name: Annotated[Identifier, Field(description="Begins the names of its tools.")]
    command: Annotated[
        list[Line] | None, Field(min_length=1, description="The program to start, and its arguments.")
    ] = None
    url: Annotated[Url | None, Field(description="Address of the server (streamable HTTP).")] = None
    env: Annotated[dict[str, SecretReference] | None, Field(description="Variables of the program, as references.")] = (
        None
    )
    headers: Annotated[Headers | None, Field(description="HTTP headers, as references to the environment.")] = None
    tools: Annotated[list[Pattern] | None, Field(description="Which of its tools, as patterns. Default: all.")] = None
    seconds: Annotated[Longest | None, Field(description="Longest call. Default: 60 s.")] = None
    pinned: Annotated[
        dict[str, Line] | None,
        Field(description="Hashes of tools' schemas, by tool: one that changed is not used before somebody allows it."),
    ] = None


class ToolEntry(Part):
    """Tools of one kind with their settings; one key only."""

    function: Annotated[FunctionTools | None, Field(description="A Python function.")] = None
    files: Annotated[FileTools | None, Field(description="Files below one directory.")] = None
    shell: Annotated[ShellTools | None, Field(description="A shell in a sandbox.")] = None
    http: Annotated[HttpTools | None, Field(description="Fetching over HTTP.")] = None
    openapi: Annotated[OpenApiTools | None, Field(description="An HTTP API.")] = None
    mcp: Annotated[McpTools | None, Field(description="An MCP server.")] = None
    agent: Annotated[Identifier | None, Field(description="Another agent as a tool: it is asked, and answers.")] = None
    hand_over: Annotated[
        Identifier | None, Field(description="Another agent that may take over: it goes on, and answers.")
    ] = None


FILE_TOOLS = tuple(
    f"fs.{name}"
    for name in ("read_file", "write_file", "edit_file", "list", "glob", "grep", "head", "tail", "sort", "uniq", "wc",
                 "diff", "stat", "json_query", "csv_query")
)  # fmt: skip
TOOL_KINDS = ("function", "files", "shell", "http", "openapi", "mcp", "agent", "hand_over")
Tool = Annotated[
    Annotated[Line, Tag("<text>")] | Annotated[ToolEntry, _one_key("a tool", TOOL_KINDS), Tag("<mapping>")],
    by_kind(_TOOL_KINDS, "text", "mapping"),
]


class Policy(Part):
    """Gates tools; one of allow, deny, require_approval, require and limit."""

    allow: Annotated[Patterns | None, Field(description="Nothing else may be called.")] = None
    deny: Annotated[Patterns | None, Field(description="These may not be called.")] = None
    require_approval: Annotated[Patterns | None, Field(description="A person must allow each call of these.")] = None
    roles: Annotated[list[Line] | None, Field(description="Who may allow it. Default: anybody.")] = None
    timeout: Annotated[Duration | None, Field(description="How long that is waited for. Default: for ever.")] = None
    require: Annotated[Pattern | None, Field(description="This tool must have given a result ...")] = None
    before: Annotated[Patterns | None, Field(description="... before these may be called.")] = None
    limit: Annotated[Patterns | None, Field(description="These may be called ...")] = None
    to: Annotated[int | None, Field(ge=0, description="... this often in a run, together.")] = None


def _check_policy(value: Policy) -> Policy:
    chosen = [key for key in _POLICY_KEYS if getattr(value, key) is not None]
    if len(chosen) != 1:
        raise fault("policy", f"a policy has exactly one of the keys {', '.join(_POLICY_KEYS)}")
    companions = {"roles": "require_approval", "timeout": "require_approval", "before": "require", "to": "limit"}
    for key, owner in companions.items():
        if getattr(value, key) is not None and chosen[0] != owner:
            raise fault("policy", f"{key} belongs to {owner}", at=[key])
    for owner, needed in (("require", "before"), ("limit", "to")):
        if chosen[0] == owner and getattr(value, needed) is None:
            raise fault("policy", f"{owner} needs {needed}", f"write {{{owner}: ..., {needed}: ...}}")
    return value


PolicyEntry = Annotated[Policy, AfterValidator(_check_policy)]

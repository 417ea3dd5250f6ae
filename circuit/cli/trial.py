"""Trying agents and their tools, outside of any case: `circuit agents test`, `circuit tools`.

What is said here is in no journal: a run that is interrupted is over.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.agents import AgentArgument, Chosen, SourceArgument, agents_app, chosen
from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, compact, one_line
from circuit.cli.token import parse_object
from circuit.cli.workflows import JsonOption
from circuit.errors import InvalidRequest, ToolDenied
from circuit.events import StreamDelta, StreamType
from circuit.settings import Settings, with_actions
from circuit.spend import Spend
from circuit.streams.veil import Veil

if TYPE_CHECKING:
    from circuit.actions.agent import AgentAction
    from circuit.agents.prompt import PromptTexts
    from circuit.agents.run import AgentResult
    from circuit.agents.tools import Tool, ToolContext
    from circuit.providers.messages import Message
    from circuit.security.redactor import Redaction
    from circuit.security.rules import Rule

tools_app = typer.Typer(no_args_is_help=True, help="Look at the tools of an agent, and call them.")

ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="TYPE:NAME", help="A model in place of the agent's own.")
]
ActionsOption = Annotated[
    list[str] | None,
    typer.Option("--actions", metavar="MODULE", help="A Python module (or .py file) with functions as tools."),
]
_WIDTH = 200
_ahead = bytearray()
"""What was typed, or pasted, and not yet read."""
_CASE = "cli"
"""In the place of a case: whose files they are."""


@agents_app.command("test")
def test_agent(
    source: SourceArgument,
    agent: AgentArgument = None,
    inputs: Annotated[str, typer.Option("--input", metavar="JSON", help="The mapped inputs.")] = "{}",
    model: ModelOption = None,
    actions: ActionsOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run an agent once and show what it says and calls. Nothing is stored.

    \b
    Example: circuit agents test workflows/hello.yaml --input '{"name": "Ada"}' --model openai:gpt-4.1-mini
    """
    terminal = Terminal(json=as_json)
    settings = with_actions(Settings.from_environment(), actions)
    found = chosen(source, agent, terminal)
    values = parse_object(inputs, "--input")

    async def body() -> int:
        from circuit.agents.prompt import build_messages, prompt_values

        async with staged(settings, found, model, terminal) as stage:
            given = await stage.screened(values)
            named = prompt_values(inputs=given, tokens=(), workflow_id="", history_count=0)
            result = await stage.run(build_messages(stage.texts, named, given))
            shown = stage.redaction
        if as_json:
            terminal.result(
                {
                    "text": shown.text(result.answer.text),
                    "output": shown.value(result.output),
                    "model": result.answer.model,
                    "usage": dict(result.usage),
                    "cost_usd": result.cost,
                    "reasoning": shown.value(dict(result.reasoning)),
                }
            )
        elif result.output is not None:
            terminal.line(compact(shown.value(result.output)))
        return 0

    return run_session(body, settings)


@tools_app.command("list")
def list_tools(
    source: SourceArgument,
    agent: AgentArgument = None,
    actions: ActionsOption = None,
    pins: Annotated[
        bool, typer.Option("--pins", help="Print `pinned` of each MCP server, to be pasted into the file.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """List the tools of an agent. What each takes, and whether the agent's policies let it be called.

    \b
    Example: circuit tools list clerk.yaml clerk
    Example: circuit tools list clerk.yaml clerk --json
    Example: circuit tools list clerk.yaml clerk --pins
    """
    terminal = Terminal(json=as_json)
    settings = with_actions(Settings.from_environment(), actions)
    found = chosen(source, agent, terminal)

    async def body() -> int:
        async with staged(settings, found, None, terminal) as stage:
            listed = stage.listed
        tools = [(tool.spec, found.access(tool.name, tool.doubt)) for tool in listed]
        if pins:
            _print_pins(listed, terminal)
        elif as_json:
            terminal.result(
                [
                    {
                        "name": spec.name,
                        "description": spec.description,
                        "parameters": spec.parameters,
                        "seconds": tool.seconds,
                        "access": access["access"],
                        "policies": access["policies"],
                        **({"pin": tool.pin} if tool.pin else {}),
                    }
                    for tool, (spec, access) in zip(listed, tools, strict=True)
                ]
            )
        elif not tools:
            terminal.line(one_line(f"agent {found.agent.id} has no tools"))
        else:
            rows = [
                (
                    spec.name,
                    _standing(access),
                    f"{tool.seconds:g} s",
                    ", ".join(spec.parameters.get("properties", {})),
                    spec.description,
                )
                for tool, (spec, access) in zip(listed, tools, strict=True)
            ]
            terminal.table(("tool", "access", "at most", "takes", "what it does"), rows)
        return 0

    return run_session(body, settings)


@tools_app.command("call")
def call_one_tool(
    source: SourceArgument,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="The tool's name.")],
    agent: Annotated[str | None, typer.Option("--agent", help="The agent whose tool it is.")] = None,
    arguments: Annotated[str, typer.Option("--arguments", metavar="JSON", help="What it is called with.")] = "{}",
    actions: ActionsOption = None,
) -> int:
    """Call a tool as its agent would, and print its result. It is printed as JSON. Policies hold here too.

    \b
    Example: circuit tools call clerk.yaml fs.list --arguments '{"path": "."}'
    """
    terminal = Terminal(json=True)
    settings = with_actions(Settings.from_environment(), actions)
    found = chosen(source, agent, terminal)
    given = parse_object(arguments, "--arguments")

    async def body() -> int:
        from circuit.agents.policy import Policies, Record
        from circuit.agents.tools import ToolContext, call_tool, check_arguments

        async with staged(settings, found, None, terminal) as stage:
            called = stage.tools.get(tool)
            if called is None and (colleague := stage.colleague(tool)):
                raise InvalidRequest(f"{tool} is another agent: `circuit agents test {source} {colleague}` asks it")
            if called is None:
                known = ", ".join(one.name for one in stage.listed) or "none"
                raise InvalidRequest(f"agent {found.agent.id} has no tool {tool!r}; it has: {known}")
            policies = Policies(tuple(found.agent.document.get("policies") or ()))
            policies.check(tool, Record())
            if policies.approval(tool) is not None or called.doubt:
                why = f" ({called.doubt})" if called.doubt else ""
                raise ToolDenied(f"{tool} needs somebody's approval, which only a case or a chat can ask for{why}")
            check_arguments(called, given)
            terminal.result(await call_tool(called, given, ToolContext(_CASE, found.agent.id, "call_0", _CASE)))
        return 0

    return run_session(body, settings)


class Stage:
    """An agent outside of any case: its tools, its model, and the terminal as its reader."""

    def __init__(
        self,
        config: Mapping[str, Any],
        action: AgentAction,
        tools: Mapping[str, Tool],
        terminal: Terminal,
        rules: Sequence[Rule],
        redaction: Redaction,
        screening: Mapping[str, str],
    ) -> None:
        self.tools = tools
        self._screening = screening
        self._rules = rules
        self.redaction = redaction
        self._config = config
        self._action = action
        self._terminal = terminal
        self._runs = 0

    @property
    def listed(self) -> list[Tool]:
        """Its tools, other agents among them, as a model would see them without policies."""
        from circuit.actions.delegate import agent_spec
        from circuit.actions.hand_over import hand_over_tool
        from circuit.agents.tools import Tool

        found = list(self.tools.values())
        for entry in self._config["agent"].get("tools") or ():
            if entry["kind"] in ("agent", "hand_over"):
                other = self._config["colleagues"][entry["name"]]
                asked = entry["kind"] == "agent"
                found.append(Tool(agent_spec(other), _nothing) if asked else hand_over_tool(other))
        return found

    def colleague(self, tool: str) -> str:
        """The agent that `tool` asks or hands over to, if it does."""
        kind, _, name = tool.partition(".")
        entries = self._config["agent"].get("tools") or ()
        return name if any((one["kind"], one.get("name")) == (kind, name) for one in entries) else ""

    @property
    def texts(self) -> PromptTexts:
        from circuit.actions.agent import prompt_texts

        return prompt_texts(self._config["agent"])

    async def screened(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Inputs as the agent may be told them. Raises `InputRefused`."""
        from circuit.agents.screening import settled, told_inputs

        agent = self._config["agent"]
        watch = self._action.watching(agent, self._screening, self._rules)
        reader = _Reader(self._terminal, self.redaction)
        try:
            said, _, looks = told_inputs(watch, inputs, (), agent.get("images") or ())
            await settled(watch, reader, "input", looks, str(agent["id"]))
        finally:
            reader.end()
        return said

    async def run(self, messages: tuple[Message, ...], *, schema: bool = True, recalled: int = 0) -> AgentResult:
        """Have the agent answer. So many messages behind the system's are of earlier runs: `recalled`."""
        from circuit.actions.agent import agent_run

        agent = self._config["agent"]
        run = replace(
            agent_run(agent, agent["provider"], messages),
            execution_id=_CASE,
            recalled=recalled,
            occurrence=self._runs,
        )
        self._runs += 1
        if not schema:
            run = replace(run, output_schema=None)
        reader = _Reader(self._terminal, self.redaction)
        try:
            work = self._action.work
            return await work(run, self._config, reader, _CASE, rules=self._rules, screening=self._screening)
        finally:
            reader.end()


@asynccontextmanager
async def staged(settings: Settings, found: Chosen, model: str | None, terminal: Terminal) -> AsyncGenerator[Stage]:
    """The agent with its tools and its model, or the one that `model` names."""
    from circuit.actions.agent import AgentAction
    from circuit.actions.functions import collect
    from circuit.actions.tools import Toolbox
    from circuit.app.performers import as_tools
    from circuit.engine.calls import agent_json, colleagues_json, provider_of, rules_of_agents
    from circuit.providers.registry import ProviderRegistry

    models: dict[str, Any] = {}
    if model is not None:
        from circuit.definition.model_choice import parse_model_override

        models["*"] = parse_model_override(model)[1]
    parameters = {"models": models}
    agent = agent_json(found.agent, provider_of(found.agent, parameters))
    config = {"agent": agent, "colleagues": colleagues_json(found.workflow, found.agent, parameters)}
    registry = ProviderRegistry(settings.environment, waits=settings.waits)
    functions = as_tools(collect(settings.actions), ())
    toolbox = Toolbox(settings.home / "workspaces", registry.http, settings.environment, functions=functions)
    try:
        registry.check(agent["provider"], *(() if model is not None else agent.get("fallback") or ()))
        tools = await toolbox.tools(agent, _CASE)
        redactor, rules = settings.redactor, found.workflow.redaction
        action = AgentAction(registry, toolbox=toolbox, redactor=redactor, screener=settings.screener)
        shown = redactor.at("events", (*rules, *rules_of_agents(config)))
        yield Stage(config, action, tools, terminal, rules, shown, found.workflow.screening)
    finally:
        await toolbox.aclose()
        await registry.aclose()


async def _nothing(arguments: Mapping[str, Any], around: ToolContext) -> None:
    """A tool that is shown and not called."""


def _print_pins(tools: Sequence[Tool], terminal: Terminal) -> None:
    """What `mcp` settings fix the tools of each server by, as YAML or as JSON."""
    servers: dict[str, dict[str, str]] = {}
    for tool in tools:
        if tool.pin:
            server, _, name = tool.name.partition(".")
            servers.setdefault(server, {})[name] = tool.pin
    if terminal.json:
        terminal.result(servers)
        return
    for server, pinned in servers.items():
        terminal.line(one_line(f"# {server}"))
        terminal.line(f"pinned: {compact(pinned)}")
    if not servers:
        terminal.note("none of the tools comes from an MCP server")


def _standing(access: Mapping[str, Any]) -> str:
    """Whether a tool may be called, and which policies say so, on one line."""
    grounds: list[str] = []
    for ground in access["policies"]:
        line = f" (line {ground['line']})" if "line" in ground else ""
        grounds.append(f"policy {ground['policy']}{line} {ground['says']}" if ground["policy"] else ground["says"])
    standing = str(access["access"]).replace("_", " ")
    return f"{standing}: {'; '.join(grounds)}" if grounds else standing


class _Reader:
    """Shows what an agent says, and keeps its journal in memory."""

    def __init__(self, terminal: Terminal, redaction: Redaction) -> None:
        self._terminal = terminal
        self._veil = Veil(redaction)
        self._steps: dict[str, Any] = {}
        self._thinking = ""

    async def emit(self, delta: StreamDelta) -> None:
        for told in self._veil.told(delta):
            self._show(told)

    def _show(self, delta: StreamDelta) -> None:
        fields = delta.fields
        status = str(fields["status"]) if delta.type is StreamType.THINKING else ""
        if status != self._thinking:
            self._terminal.end()
            self._terminal.aside(f"{status}: " if status else "")
            self._thinking = status
        if status:
            self._terminal.aside(str(fields.get("content") or ""))
        elif delta.type is StreamType.CONTENT_CHUNK:
            self._terminal.piece(str(fields["content"]))
        elif delta.type is StreamType.TOOL_CALL:
            self._line(f"> {fields['toolName']} {compact(fields['arguments'], _WIDTH)}")
        elif delta.type is StreamType.TOOL_RESULT:
            self._line(f"< {compact(fields['result'], _WIDTH)}")
        elif delta.type is StreamType.RESTARTED:
            self._line(f"({one_line(str(fields['reason']))})")

    def recorded(self, step: str) -> Any:
        return self._steps.get(step)

    async def record(self, step: str, value: Any) -> Any:
        return self._steps.setdefault(step, value)

    def screened(self, step: str, decision: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        self._steps.setdefault(step, decision)

    async def ask_person(self, key: str, payload: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
        self._line(f"? {payload['tool']} {compact(payload['arguments'])}")
        said = await typed("  allow it? [y/N] ")
        return {"approved": said.strip().lower() in ("y", "yes")}

    async def hold(self, most: Spend) -> int | None:
        return None

    def settle(self, charge: int, spent: Spend) -> None:
        return None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def end(self) -> None:
        for told in self._veil.end():
            self._show(told)
        self._terminal.end()

    def _line(self, text: str) -> None:
        self._terminal.line(one_line(text, _WIDTH))


async def typed(prompt: str = "you> ") -> str:
    """A line of standard input, asked for where somebody sits there; empty at its end. Nothing blocks meanwhile, so
    that whoever interrupts at the prompt is let go at once."""
    if not sys.stdin.isatty():
        return await asyncio.to_thread(sys.stdin.readline)
    sys.stderr.write(prompt)
    sys.stderr.flush()
    loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()
    while b"\n" not in _ahead:
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(terminal, lambda ready=ready: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_reader(terminal)
        piece = os.read(terminal, 4096)
        if not piece:
            # Ctrl-D is shown by nobody: what comes next begins a line.
            sys.stderr.write("\n")
            break
        _ahead.extend(piece)
    line, newline, rest = bytes(_ahead).partition(b"\n")
    _ahead[:] = rest
    return (line + newline).decode(sys.stdin.encoding or "utf-8", "replace")

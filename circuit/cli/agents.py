"""What concerns agents and their tools, without a database: look at them, try them, talk to them.

What is said here is in no journal: a run that is interrupted is over.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, clean, compact, one_line
from circuit.cli.token import parse_object
from circuit.cli.workflows import JsonOption, read_workflow
from circuit.errors import CircuitError, InvalidRequest, ToolDenied
from circuit.events import StreamDelta, StreamType
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.agents.prompt import PromptTexts
    from circuit.agents.run import AgentResult
    from circuit.agents.tools import Tool
    from circuit.definition.workflow import AgentDefinition, Workflow
    from circuit.providers.messages import Message
    from circuit.providers.registry import ProviderRegistry
    from circuit.spend import Spend

agents_app = typer.Typer(no_args_is_help=True, help="Look at the agents of a workflow file, and try them.")
tools_app = typer.Typer(no_args_is_help=True, help="Look at the tools of an agent, and call them.")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A workflow file.")]
AgentArgument = Annotated[
    str | None, typer.Argument(metavar="[AGENT]", help="The agent's id; needed where the file has several.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="TYPE:NAME", help="A model in place of the one in the file.")
]
_WIDTH = 200


@agents_app.command("list")
def list_agents(file: FileArgument, as_json: JsonOption = False) -> int:
    """List the agents of a workflow file.

    \b
    Example: circuit agents list workflows/document_review.yaml
    """
    terminal = Terminal(json=as_json)
    workflow = read_workflow(file)
    rows = [_summary(agent) for agent in workflow.agents.values()]
    if as_json:
        terminal.result({"workflow": workflow.id, "agents": rows})
    elif not rows:
        terminal.line("no agents")
    else:
        head = ("agent", "model", "capabilities", "tools")
        cells = [(row["id"], row["model"], ", ".join(row["capabilities"]), ", ".join(row["tools"])) for row in rows]
        terminal.table(head, cells)
    return 0


@agents_app.command("show")
def show_agent(file: FileArgument, agent: AgentArgument = None) -> int:
    """Print the definition of an agent as JSON.

    \b
    Example: circuit agents show workflows/document_review.yaml content-reviewer
    """
    chosen = _agent(read_workflow(file), agent)
    Terminal(json=True).result({**chosen.document, "hash": chosen.hash, "prompt_hash": chosen.prompt_hash})
    return 0


@agents_app.command("test")
def test_agent(
    file: FileArgument,
    agent: AgentArgument = None,
    inputs: Annotated[str, typer.Option("--input", metavar="JSON", help="The mapped inputs.")] = "{}",
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run an agent once with inputs of yours, and show what it says and calls. Nothing is stored.

    \b
    Example: circuit agents test workflows/hello.yaml --input '{"name": "Ada"}' --model openai:gpt-4.1-mini
    """
    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()
    chosen = _agent(read_workflow(file), agent)
    values = parse_object(inputs, "--input")

    async def body() -> int:
        from circuit.agents.prompt import build_messages, prompt_values

        async with _opened(settings, chosen, model, terminal) as stage:
            named = prompt_values(inputs=values, tokens=(), workflow_id="", history_count=0)
            result = await stage.run(build_messages(stage.texts, named))
        if as_json:
            terminal.result(
                {
                    "text": result.answer.text,
                    "output": result.output,
                    "model": result.answer.model,
                    "usage": dict(result.usage),
                    "cost_usd": result.cost,
                    "reasoning": dict(result.reasoning),
                }
            )
        elif result.output is not None:
            terminal.line(compact(result.output))
        return 0

    return run_session(body, settings)


def chat(file: FileArgument, agent: AgentArgument = None, model: ModelOption = None) -> int:
    """Talk to an agent in the terminal. Its tools are shown as it calls them. End with an empty line or Ctrl-D.

    \b
    Example: circuit chat workflows/hello.yaml --model ollama:qwen3
    """
    terminal = Terminal()
    settings = Settings.from_environment()
    chosen = _agent(read_workflow(file), agent)

    async def body() -> int:
        from circuit.agents.prompt import build_messages, prompt_values
        from circuit.providers.messages import Message, Role

        async with _opened(settings, chosen, model, terminal) as stage:
            named = prompt_values(inputs={}, tokens=(), workflow_id="", history_count=0)
            messages = tuple(one for one in build_messages(stage.texts, named) if one.role == Role.SYSTEM)
            while True:
                said = await asyncio.to_thread(_read_line)
                if not said.strip():
                    return 0
                try:
                    result = await stage.run((*messages, Message.text(Role.USER, said)), schema=False)
                except CircuitError as error:
                    # One answer failed; the conversation goes on from before it.
                    terminal.note(one_line(f"{error.code}: {error.message}"))
                    continue
                messages = result.messages

    return run_session(body, settings)


@tools_app.command("list")
def list_tools(file: FileArgument, agent: AgentArgument = None, as_json: JsonOption = False) -> int:
    """List the tools of an agent, with what each takes.

    \b
    Example: circuit tools list clerk.yaml clerk
    """
    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()
    chosen = _agent(read_workflow(file), agent)

    async def body() -> int:
        async with _opened(settings, chosen, None, terminal) as stage:
            tools = list(stage.tools.values())
        if as_json:
            specs = [tool.spec for tool in tools]
            terminal.result(
                [{"name": one.name, "description": one.description, "parameters": one.parameters} for one in specs]
            )
        else:
            rows = [
                (tool.name, ", ".join(tool.spec.parameters.get("properties", {})), tool.spec.description)
                for tool in tools
            ]
            terminal.table(("tool", "takes", "what it does"), rows)
        return 0

    return run_session(body, settings)


@tools_app.command("call")
def call_one_tool(
    file: FileArgument,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="The tool's name.")],
    agent: Annotated[str | None, typer.Option("--agent", help="The agent whose tool it is.")] = None,
    arguments: Annotated[str, typer.Option("--arguments", metavar="JSON", help="What it is called with.")] = "{}",
) -> int:
    """Call a tool of an agent as the agent would, and print its result as JSON. Policies hold here too.

    \b
    Example: circuit tools call clerk.yaml fs.list --arguments '{"path": "."}'
    """
    terminal = Terminal(json=True)
    settings = Settings.from_environment()
    chosen = _agent(read_workflow(file), agent)
    given = parse_object(arguments, "--arguments")

    async def body() -> int:
        from circuit.agents.policy import Policies, Record
        from circuit.agents.tools import ToolContext, call_tool, check_arguments

        async with _opened(settings, chosen, None, terminal) as stage:
            found = stage.tools.get(tool)
            if found is None:
                known = ", ".join(stage.tools) or "none"
                raise InvalidRequest(f"agent {chosen.id} has no tool {tool!r}; it has: {known}")
            policies = Policies(tuple(chosen.document.get("policies") or ()))
            policies.check(tool, Record())
            if policies.approval(tool) is not None:
                raise ToolDenied(f"{tool} needs somebody's approval, which only a case can ask for")
            check_arguments(found, given)
            terminal.result(await call_tool(found, given, ToolContext("cli", chosen.id, "call_0", "cli")))
        return 0

    return run_session(body, settings)


class _Stage:
    """An agent outside of any case: its tools, its model, and the terminal as its reader."""

    def __init__(
        self, agent: Mapping[str, Any], registry: ProviderRegistry, tools: Mapping[str, Tool], terminal: Terminal
    ) -> None:
        self.tools = tools
        self._agent = agent
        self._registry = registry
        self._terminal = terminal

    @property
    def texts(self) -> PromptTexts:
        from circuit.actions.agent import prompt_texts

        return prompt_texts(self._agent)

    async def run(self, messages: tuple[Message, ...], *, schema: bool = True) -> AgentResult:
        from circuit.actions.agent import agent_run
        from circuit.agents.agent import run_agent

        spec = self._agent["provider"]
        run = replace(agent_run(self._agent, spec, messages), execution_id="cli")
        if not schema:
            run = replace(run, output_schema=None)
        reader = _Reader(self._terminal)
        provider = self._registry.fallback([spec, *(self._agent.get("fallback") or ())])
        try:
            return await run_agent(run, provider, reader, tools=self.tools)
        finally:
            reader.end()


@asynccontextmanager
async def _opened(
    settings: Settings, agent: AgentDefinition, model: str | None, terminal: Terminal
) -> AsyncGenerator[_Stage]:
    from circuit.actions.tools import Toolbox
    from circuit.engine.calls import agent_json, provider_of
    from circuit.providers.registry import ProviderRegistry

    models: dict[str, Any] = {}
    if model is not None:
        from circuit.definition.model_choice import parse_model_override

        models["*"] = parse_model_override(model)[1]
    chosen = agent_json(agent, provider_of(agent, {"models": models}))
    registry = ProviderRegistry(settings.environment, connect_seconds=settings.connection_timeout)
    toolbox = Toolbox(settings.home / "workspaces", registry.http, settings.environment)
    try:
        registry.check(chosen["provider"])
        yield _Stage(chosen, registry, await toolbox.tools(chosen, "cli"), terminal)
    finally:
        await toolbox.aclose()
        await registry.aclose()


class _Reader:
    """Shows what an agent says, and keeps its journal in memory."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._steps: dict[str, Any] = {}
        self._open = False

    async def emit(self, delta: StreamDelta) -> None:
        fields = delta.fields
        if delta.type is StreamType.CONTENT_CHUNK:
            self._write(clean(str(fields["content"])))
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

    async def ask_person(self, key: str, payload: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
        self._line(f"? {payload['tool']} {compact(payload['arguments'], _WIDTH)}")
        said = await asyncio.to_thread(_read_line, "  allow it? [y/N] ")
        return {"approved": said.strip().lower() in ("y", "yes")}

    async def hold(self, most: Spend) -> int | None:
        return None

    def settle(self, charge: int, spent: Spend) -> None:
        return None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def end(self) -> None:
        if self._open:
            self._write("\n")
            self._open = False

    def _line(self, text: str) -> None:
        self.end()
        self._terminal.line(one_line(text, _WIDTH))

    def _write(self, text: str) -> None:
        stream = sys.stderr if self._terminal.json else sys.stdout
        stream.write(text)
        stream.flush()
        self._open = not text.endswith("\n")


def _read_line(prompt: str = "you> ") -> str:
    if sys.stdin.isatty():
        sys.stderr.write(prompt)
        sys.stderr.flush()
    return sys.stdin.readline()


def _summary(agent: AgentDefinition) -> dict[str, Any]:
    tools = [str(entry.get("name") or entry["kind"]) for entry in agent.document.get("tools") or ()]
    return {
        "id": agent.id,
        "name": agent.name,
        "model": f"{agent.provider.type}:{agent.provider.model}",
        "capabilities": [entry["name"] for entry in agent.document.get("capabilities") or ()],
        "tools": tools,
        "hash": agent.hash,
    }


def _agent(workflow: Workflow, name: str | None) -> AgentDefinition:
    known = ", ".join(workflow.agents) or "none"
    if name is None:
        if len(workflow.agents) != 1:
            raise InvalidRequest(f"workflow {workflow.id} has several agents or none: name one of: {known}")
        return next(iter(workflow.agents.values()))
    if name not in workflow.agents:
        raise InvalidRequest(f"workflow {workflow.id} has no agent {name!r}; it has: {known}")
    return workflow.agents[name]

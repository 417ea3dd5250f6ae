"""`circuit agents`: agents of a file, and those that are published and belong to no file; listed, shown, added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.terminal import Terminal
from circuit.cli.token import WORKFLOW_LIMIT, read_text
from circuit.cli.workflows import JsonOption, published_agents, read_workflow
from circuit.errors import DefinitionError, Fault, InvalidRequest, NotFound
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.definition.workflow import AgentDefinition, Workflow

agents_app = typer.Typer(no_args_is_help=True, help="Look at agents, try them, and publish them.")

SourceArgument = Annotated[
    str, typer.Argument(metavar="FILE|ID", help="A workflow file, or the id of a published agent.")
]
AgentArgument = Annotated[
    str | None, typer.Argument(metavar="[AGENT]", help="The agent's id; needed where the file has several.")
]
_FILES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Chosen:
    """An agent, and the workflow in which it is, or in which it would be asked. `lines` says where in its file its
    policies stand, as far as they stand there, by their number from 1."""

    workflow: Workflow
    agent: AgentDefinition
    lines: Mapping[int, int] = field(default_factory=dict[int, int])

    def access(self, tool: str, doubt: str = "") -> dict[str, Any]:
        """How the agent's policies let it use `tool`, as JSON."""
        from circuit.agents.access import access_to

        found = access_to(self.agent.document.get("policies") or (), tool, doubt).as_dict()
        for ground in found["policies"]:
            if line := self.lines.get(ground["policy"]):
                ground["line"] = line
        return found


@agents_app.command("list")
def list_agents(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A workflow file.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List the agents of a file, or those that are published.

    \b
    Example: circuit agents list workflows/document_review.yaml
    """
    terminal = Terminal(json=as_json)
    of: dict[str, Any] = {}
    if file is None:
        documents = published_agents(None, terminal)
        rows = [_summary(_published(name, documents).agent) for name in sorted(documents)]
    else:
        workflow = read_workflow(file, published=True)
        of["workflow"] = workflow.id
        rows = [_summary(agent) for agent in workflow.agents.values()]
    if as_json:
        terminal.result({**of, "agents": rows})
    elif not rows:
        terminal.line("no agents")
    else:
        head = ("agent", "model", "capabilities", "tools")
        cells = [(row["id"], row["model"], ", ".join(row["capabilities"]), ", ".join(row["tools"])) for row in rows]
        terminal.table(head, cells)
    return 0


@agents_app.command("show")
def show_agent(source: SourceArgument, agent: AgentArgument = None) -> int:
    """Print an agent, of a file or published, as JSON. With it what its policies say of its tools, and what is done
    about each kind of what screening finds here.

    \b
    Example: circuit agents show workflows/document_review.yaml content-reviewer
    """
    terminal = Terminal(json=True)
    found = chosen(source, agent, terminal)
    from circuit.agents.access import named_tools
    from circuit.security.screening.found import Screening

    known = found.agent
    access = [found.access(tool) for tool in named_tools(known.document.get("tools") or ())]
    deployment = Settings.from_environment().screener.screening
    screening = Screening(known.document.get("screening"), Screening(found.workflow.screening, deployment))
    told = {"access": access, "screening": dict(screening.actions)}
    terminal.result({**known.document, **told, "hash": known.hash, "prompt_hash": known.prompt_hash})
    return 0


@agents_app.command("add")
def add_agent(
    agent: Annotated[str, typer.Argument(metavar="ID", help="The id under which workflows and people know it.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Its definition in YAML, or a file with it under `agents`.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="TYPE:NAME", help="Which model of which provider answers.")
    ] = None,
    description: Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="Its system prompt.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="Its user template.")] = None,
    tools: Annotated[
        list[str] | None, typer.Option("--tool", metavar="NAME", help="A tool that it may call; repeatable.")
    ] = None,
    capabilities: Annotated[
        list[str] | None, typer.Option("--capability", metavar="NAME", help="A way of working; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Publish an agent that belongs to no workflow file. Workflows run it by its id, and anybody may ask it.

    Options are laid over what FILE says. Published again, it counts for workflows that are loaded after that.

    \b
    Example: circuit agents add clerk --model openai:gpt-4.1-mini --system "You are a clerk." --tool "fs.*"
    Example: circuit agents add clerk clerk.yaml
    """
    from circuit.cli.session import run_session
    from circuit.providers.profiles import misfits

    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()
    said = {} if file is None else _fragment(file, agent)
    if model is not None:
        from circuit.definition.model_choice import parse_model_override

        said["llm_provider"] = _flat(parse_model_override(model)[1])
    told = {"system": system, "user_template": prompt}
    if any(told.values()):
        said["prompts"] = {**(said.get("prompts") or {}), **{key: text for key, text in told.items() if text}}
    given = {"description": description, "tools": tools, "capabilities": capabilities}
    said |= {key: value for key, value in given.items() if value}

    async def body() -> int:
        from functools import partial

        from circuit.agents.toolbox.openapi import api_fault
        from circuit.app import Circuit
        from circuit.definition import load_workflow

        async with Circuit.open(settings=settings, worker=False, progress=terminal.note) as circuit:
            known = await circuit.engine.consultations.agent(circuit.principal.tenant, agent)
            load = partial(load_workflow, models=misfits, rules=settings.redactor.rules, apis=api_fault)
            try:
                made = await circuit.engine.publishing.publish_agent(agent, said, load, principal=circuit.principal)
            except DefinitionError as error:
                raise _placed(error, agent, file) from None
        new = known is None or known.hash != made.hash
        if as_json:
            terminal.result({"agent": made.id, "hash": made.hash, "new": new})
        else:
            what = "published" if new else "is already published"
            terminal.line(f"agent {made.id} {what} as version {made.hash[:12]}")
        return 0

    return run_session(body, settings)


@agents_app.command("delete")
def delete_agent(
    agent: Annotated[str, typer.Argument(metavar="ID", help="The id of a published agent.")],
    as_json: JsonOption = False,
) -> int:
    """Take a published agent away: nobody can ask it any more. Workflows that have it keep it.

    \b
    Example: circuit agents delete clerk
    """
    from circuit.cli.session import run_session

    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(settings=settings, worker=False, progress=terminal.note) as circuit:
            await circuit.engine.publishing.delete_agent(agent, principal=circuit.principal)
        terminal.result({"agent": agent, "deleted": True}) if as_json else terminal.line(f"agent {agent} is deleted")
        return 0

    return run_session(body, settings)


def _fragment(file: Path, agent: str) -> dict[str, Any]:
    """The definition of `agent` that a YAML file holds, by itself or under `agents`. Raises `InvalidRequest`."""
    from circuit.definition.document import ALIASES
    from circuit.definition.loader import parse

    tree, faults = parse(read_text(file, WORKFLOW_LIMIT, "File"), str(file), ALIASES)
    if faults:
        raise DefinitionError(faults)
    whole: dict[str, Any] = tree.root.value
    if "agents" not in whole:
        return dict(whole)
    named: Any = whole["agents"]
    if not isinstance(named, dict) or agent not in named:
        raise InvalidRequest(f"{file} has no agent {agent!r} under `agents`")
    return dict(named[agent] or {})


def _placed(error: DefinitionError, agent: str, file: Path | None) -> DefinitionError:
    """The same faults where they stand in the file that was given. What came from an option stands nowhere."""
    from circuit.definition.document import ALIASES
    from circuit.definition.loader import parse
    from circuit.definition.tree import path_of, path_text

    tree = None if file is None else parse(read_text(file, WORKFLOW_LIMIT, "File"), str(file), ALIASES)[0]
    found: list[Fault] = []
    for fault in error.faults:
        inside = path_of(fault.path)
        inside = inside[2:] if inside[:2] == ("agents", agent) else inside
        source, line, column = f"agent {agent}", 0, 0
        if tree is not None:
            whole = ("agents", agent, *inside) if "agents" in tree.root.children else inside
            if whole and tree.node(whole[: len(whole) - len(inside) + 1]) is not None:
                source, (line, column) = str(file), tree.where(whole)
        found.append(replace(fault, source=source, line=line, column=column, path=path_text(inside)))
    return DefinitionError(found)


def _flat(provider: Mapping[str, Any]) -> dict[str, Any]:
    """A provider as a file says it."""
    return {"type": provider["type"], "model": provider["model"], **(provider.get("options") or {})}


def chosen(source: str, agent: str | None, terminal: Terminal) -> Chosen:
    """The agent of a file, or the published one of that id. Raises `InvalidRequest`, `NotFound`."""
    path = Path(source)
    if agent is not None or path.suffix in _FILES or path.is_file():
        workflow = read_workflow(path, published=True)
        found = _of_file(workflow, agent)
        return Chosen(workflow, found, _policy_lines(path, found.id))
    return _published(source, published_agents([source], terminal))


def _published(agent: str, documents: dict[str, Any]) -> Chosen:
    from circuit.definition.adoption import colleagues
    from circuit.definition.compiler import compile_document
    from circuit.definition.consultation import consultation

    if agent not in documents:
        raise NotFound(f"there is no file and no published agent {agent!r}; `circuit agents list` has those")
    wanted, pending = {agent: documents[agent]}, colleagues(documents[agent])
    while pending:
        name = pending.pop()
        if name not in wanted and name in documents:
            wanted[name] = documents[name]
            pending += colleagues(documents[name])
    workflow = compile_document(consultation(agent, wanted))
    return Chosen(workflow, workflow.agents[agent])


def _policy_lines(file: Path, agent: str) -> dict[int, int]:
    """The lines of an agent's policies in a file, by their number; none of those that it takes from elsewhere."""
    from circuit.definition.document import ALIASES
    from circuit.definition.loader import parse

    tree, _ = parse(read_text(file, WORKFLOW_LIMIT, "Workflow file"), str(file), ALIASES)
    node = tree.node(("agents", agent, "policies"))
    return {number: tree.position(item.start)[0] for number, item in enumerate(node.items if node else (), 1)}


def _of_file(workflow: Workflow, name: str | None) -> AgentDefinition:
    known = ", ".join(workflow.agents) or "none"
    if name is None:
        if len(workflow.agents) != 1:
            raise InvalidRequest(f"workflow {workflow.id} has several agents or none: name one of: {known}")
        return next(iter(workflow.agents.values()))
    if name not in workflow.agents:
        raise InvalidRequest(f"workflow {workflow.id} has no agent {name!r}; it has: {known}")
    return workflow.agents[name]


def _summary(agent: AgentDefinition) -> dict[str, Any]:
    from circuit.agents.access import named_tools

    tools: list[str] = []
    for entry in agent.document.get("tools") or ():
        pattern = {"named": entry.get("name"), "files": "fs.*"}.get(entry["kind"])
        tools += [str(pattern)] if pattern else named_tools([entry])
    return {
        "id": agent.id,
        "name": agent.name,
        "model": f"{agent.provider.type}:{agent.provider.model}",
        "capabilities": [entry["name"] for entry in agent.document.get("capabilities") or ()],
        "tools": tools,
        "hash": agent.hash,
    }

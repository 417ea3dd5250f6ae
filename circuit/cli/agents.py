"""`circuit agents`: agents of a file, and those that are published and belong to no file; listed, shown, added."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.terminal import Terminal
from circuit.cli.workflows import JsonOption, published_agents, read_workflow
from circuit.errors import InvalidRequest, NotFound

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
    """An agent, and the workflow in which it is, or in which it would be asked."""

    workflow: Workflow
    agent: AgentDefinition


@agents_app.command("list")
def list_agents(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A workflow file.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List the agents of a workflow file, or without one those that are published.

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
    """Print the definition of an agent, of a file or published, as JSON.

    \b
    Example: circuit agents show workflows/document_review.yaml content-reviewer
    """
    terminal = Terminal(json=True)
    found = chosen(source, agent, terminal).agent
    terminal.result({**found.document, "hash": found.hash, "prompt_hash": found.prompt_hash})
    return 0


def chosen(source: str, agent: str | None, terminal: Terminal) -> Chosen:
    """The agent of a file, or the published one of that id. Raises `InvalidRequest`, `NotFound`."""
    path = Path(source)
    if agent is not None or path.suffix in _FILES or path.is_file():
        workflow = read_workflow(path, published=True)
        return Chosen(workflow, _of_file(workflow, agent))
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
    tools = [str(entry.get("name") or entry["kind"]) for entry in agent.document.get("tools") or ()]
    return {
        "id": agent.id,
        "name": agent.name,
        "model": f"{agent.provider.type}:{agent.provider.model}",
        "capabilities": [entry["name"] for entry in agent.document.get("capabilities") or ()],
        "tools": tools,
        "hash": agent.hash,
    }

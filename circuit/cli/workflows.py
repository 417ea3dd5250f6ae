"""What concerns workflow files: `validate`, `load`, `draw`, `schema`. Only `load` needs a database."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.failure import report
from circuit.cli.terminal import Terminal, clean
from circuit.cli.token import WORKFLOW_LIMIT, read_text
from circuit.errors import CircuitError, DefinitionError, InvalidRequest
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.definition.workflow import Workflow

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]


class DrawingFormat(StrEnum):
    MERMAID = "mermaid"
    DOT = "dot"


def shipped(name: str) -> Path | None:
    """The workflow of that file name or stem that ships with the package, if there is one."""
    import circuit

    package = Path(circuit.__file__).parent
    stem = Path(name).stem
    for folder in (package / "workflows", package.parent / "workflows"):
        file = folder / f"{stem}.yaml"
        if stem and file.is_file():
            return file
    return None


def read_workflow(file: Path) -> Workflow:
    """The workflow in `file`, with nothing wrong in it. Raises `DefinitionError` with all of its faults."""
    from circuit.definition import load_workflow
    from circuit.providers.profiles import misfits

    try:
        text = read_text(file, WORKFLOW_LIMIT, "Workflow file")
    except InvalidRequest as error:
        known = shipped(file.name)
        if known is not None and not file.exists():
            raise InvalidRequest(f"{error.message} Circuit ships one of that name: {known}") from None
        raise
    return load_workflow(text, str(file), misfits)


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Workflow files.")],
    as_json: JsonOption = False,
) -> int:
    """Check workflow files and report every fault with its place. Needs no database.

    \b
    Example: circuit validate workflows/document_review.yaml
    """
    terminal = Terminal(json=as_json)
    checked: list[dict[str, Any]] = []
    status = 0
    for file in files:
        try:
            workflow = read_workflow(file)
        except CircuitError as error:
            if as_json:
                faults = error.details["faults"] if isinstance(error, DefinitionError) else []
                message = "" if faults else error.message
                checked.append({"file": str(file), "valid": False, "faults": faults, "message": message})
            else:
                report(error, terminal)
            status = 2
        else:
            checked.append({"file": str(file), "valid": True, "workflow": workflow.id, "hash": workflow.hash})
            if not as_json:
                net = workflow.net
                terminal.line(
                    clean(
                        f"{file}: workflow {workflow.id} is valid ({len(net.places)} places,"
                        f" {len(net.transitions)} transitions, {len(workflow.agents)} agents)"
                    )
                )
    if as_json:
        terminal.result({"valid": status == 0, "files": checked})
    return status


def load(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A workflow file.")],
    as_json: JsonOption = False,
) -> int:
    """Publish a workflow, so that its cases can be started.

    \b
    Example: circuit load workflows/hello.yaml
    """
    from circuit.cli.session import run_session

    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()
    workflow = read_workflow(file)

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(settings=settings, worker=False, progress=terminal.note) as circuit:
            published = await circuit.publish(workflow)
        if as_json:
            terminal.result(
                {"workflow": published.workflow_id, "hash": published.hash, "new": published.new, "file": str(file)}
            )
        else:
            what = "published" if published.new else "is already published"
            terminal.line(f"workflow {published.workflow_id} {what} as version {published.hash[:12]}")
        return 0

    return run_session(body, settings)


def draw(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A workflow file.")],
    form: Annotated[DrawingFormat, typer.Option("--format", help="What to write.")] = DrawingFormat.MERMAID,
) -> int:
    """Draw the net of a workflow as text for Mermaid or Graphviz. Needs no database.

    \b
    Example: circuit draw workflows/hello.yaml --format dot | dot -Tsvg > hello.svg
    """
    from circuit.net import drawing

    workflow = read_workflow(file)
    agents = {name: str(action.config["agent_id"]) for name, action in workflow.actions.items()}
    draw = drawing.mermaid if form is DrawingFormat.MERMAID else drawing.dot
    text = draw(workflow.net, agents=agents)
    Terminal().line(text.rstrip("\n"))
    return 0


def schema() -> int:
    """Print the JSON Schema of workflow files, for editors.

    \b
    Example: circuit schema > workflow.schema.json
    """
    from circuit.definition import json_schema

    Terminal().result(json_schema())
    return 0

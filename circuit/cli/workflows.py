"""What concerns workflow files: `validate`, `load`, `schema`. Only `load` needs a database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.failure import report
from circuit.cli.terminal import Terminal, clean
from circuit.cli.token import WORKFLOW_LIMIT, read_text
from circuit.errors import CircuitError, DefinitionError, InvalidRequest, StorageError
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.definition.workflow import Workflow

AllowOption = Annotated[
    bool,
    typer.Option("--allow-unsound", help="Take a workflow that may deadlock, grow without bound or never end."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]


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


def read_workflow(file: Path, *, published: bool = False, offline: bool = False, here: bool = False) -> Workflow:
    """The workflow in `file`, with nothing wrong in it. With `published`, agents that it names and does not define are
    taken from the database; nothing is asked of that where it names none. With `offline` a database that cannot be
    asked is no failure: it is noted why, and the agents are missing. Where it runs `here`, files that its agents need
    must be here too. Raises `DefinitionError` with all of its faults.
    """
    from circuit.agents.toolbox.openapi import api_fault
    from circuit.definition import load_workflow
    from circuit.definition.adoption import borrowed
    from circuit.fragments import beside
    from circuit.providers.profiles import misfits

    try:
        text = read_text(file, WORKFLOW_LIMIT, "Workflow file")
    except InvalidRequest as error:
        known = shipped(file.name)
        if known is not None and not file.exists():
            raise InvalidRequest(f"{error.message} Circuit ships one of that name: {known}") from None
        raise
    names = borrowed(text, str(file), beside(file)) if published else []
    agents: dict[str, Any] = {}
    if names:
        terminal = Terminal(json=True)
        try:
            agents = published_agents(names, terminal, offline=offline)
        except StorageError as error:
            if not offline:
                raise
            missing = f"{file} does not define {', '.join(names)}, and no database could be asked for"
            terminal.note(clean(f"{missing} published agents: {error.message}"))
    rules = Settings.from_environment().redactor.rules
    return load_workflow(text, str(file), misfits, agents, beside(file), rules, partial(api_fault, here=here))


def published_agents(ids: Sequence[str] | None, terminal: Terminal, *, offline: bool = False) -> dict[str, Any]:
    """Those of these agents (all, for None) that are published, by id, and all whom they may ask or hand over to. With
    `offline` no database is made for that. Raises `StorageError`."""
    from circuit.app.home import is_new
    from circuit.cli.session import run_session

    settings = Settings.from_environment()
    if offline and settings.database_url is None and is_new(settings.home):
        raise StorageError(f"there is no database in {settings.home} yet")
    found: dict[str, Any] = {}

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(settings=settings, worker=False, progress=terminal.note) as circuit:
            wanted = ids
            if wanted is None:
                wanted = [one.id for one in await circuit.engine.consultations.agents(circuit.principal.tenant)]
            found.update(await circuit.agents(wanted))
        return 0

    run_session(body, settings)
    return found


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Workflow files.")],
    allow_unsound: AllowOption = False,
    published: Annotated[
        bool, typer.Option("--published", help="Take agents that a file does not define from the database.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Check workflow files: every fault with its place. Prove that they end, too. Needs no database.

    \b
    Example: circuit validate workflows/document_review.yaml
    """
    from circuit.definition.admission import admit

    terminal = Terminal(json=as_json)
    checked: list[dict[str, Any]] = []
    status = 0
    for file in files:
        try:
            workflow = read_workflow(file, published=published)
            warnings = admit(workflow, str(file), monotonic, unsound=allow_unsound)
        except CircuitError as error:
            if as_json:
                faults = error.details["faults"] if isinstance(error, DefinitionError) else []
                message = "" if faults else error.message
                checked.append({"file": str(file), "valid": False, "faults": faults, "message": message})
            else:
                report(error, terminal)
            status = 2
        else:
            found = {"file": str(file), "valid": True, "workflow": workflow.id, "hash": workflow.hash}
            checked.append(found | ({"warnings": warnings} if warnings else {}))
            for warning in [] if as_json else warnings:
                terminal.note(clean(f"warning: {file}: {warning}"))
            if not as_json:
                net = workflow.net
                terminal.line(
                    clean(
                        f"{file}: workflow {workflow.id} is valid ({_count(net.places, 'place')},"
                        f" {_count(net.transitions, 'transition')}, {_count(workflow.agents, 'agent')})"
                    )
                )
    if as_json:
        terminal.result({"valid": status == 0, "files": checked})
    return status


def _count(things: Collection[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def load(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A workflow file.")],
    allow_unsound: AllowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Publish a workflow, so that its cases can be started. It must be bounded, free of deadlocks and sound.

    \b
    Example: circuit load workflows/hello.yaml
    """
    from circuit.cli.session import run_session
    from circuit.definition.admission import admit

    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()
    workflow = read_workflow(file, published=True)
    for warning in admit(workflow, str(file), monotonic, unsound=allow_unsound):
        terminal.note(clean(f"warning: {warning}"))

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


WorkflowArgument = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The id of a published workflow.")]


def retire(workflow: WorkflowArgument, as_json: JsonOption = False) -> int:
    """Let no new cases of a workflow begin. Those that run go on to their end.

    \b
    Example: circuit retire hello
    """
    return _retired(workflow, True, as_json)


def unretire(workflow: WorkflowArgument, as_json: JsonOption = False) -> int:
    """Let cases of a retired workflow begin again.

    \b
    Example: circuit unretire hello
    """
    return _retired(workflow, False, as_json)


def _retired(workflow: str, retired: bool, as_json: bool) -> int:
    from circuit.cli.session import run_session

    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(settings=settings, worker=False, progress=terminal.note) as circuit:
            changed = await circuit.commands.retire(workflow, circuit.principal, retired=retired)
        if as_json:
            terminal.result({"workflow": workflow, "retired": retired, "changed": changed})
        else:
            already = "" if changed else " already"
            what = "retired: its cases go on, and no new ones begin" if retired else "in use: new cases can begin"
            terminal.line(clean(f"workflow {workflow} is{already} {what}"))
        return 0

    return run_session(body, settings)


def schema(
    fragment: Annotated[
        bool, typer.Option("--fragment", help="That of fragments, which workflow files include.")
    ] = False,
) -> int:
    """Print the JSON Schema of workflow files, for editors. Or that of fragments.

    \b
    Example: circuit schema > workflow.schema.json
    Example: circuit schema --fragment > fragment.schema.json
    """
    from circuit.definition import fragment_schema, json_schema

    Terminal().result(fragment_schema() if fragment else json_schema())
    return 0

"""`circuit workflows`: what is published, version by version; an earlier one made current again, and workflows taken
away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, one_line
from circuit.cli.workflows import JsonOption, WorkflowArgument
from circuit.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.views import WorkflowView

app = typer.Typer(no_args_is_help=True, help="Look at published workflows and versions, choose, delete.")

MOST_VERSIONS = 1_000


@app.command("list")
def list_workflows(as_json: JsonOption = False) -> int:
    """List the workflows that are published.

    \b
    Example: circuit workflows list
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.views import instant

        found = await circuit.queries.workflows(circuit.principal.tenant)
        if as_json:
            terminal.result([one.as_dict() for one in found])
        elif not found:
            terminal.line("no workflows; `circuit load FILE` publishes one")
        else:
            rows = [
                (
                    one.id,
                    one.hash[:12],
                    instant(one.published_at),
                    one.published_by,
                    "retired" if one.retired_at is not None else "-",
                    one.description,
                )
                for one in found
            ]
            terminal.table(("workflow", "version", "published", "by", "state", "description"), rows, whole="workflow")
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("versions")
def versions(
    workflow: WorkflowArgument,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MOST_VERSIONS, help="At most so many.")] = 50,
    as_json: JsonOption = False,
) -> int:
    """List the published versions of a workflow, newest first.

    \b
    Example: circuit workflows versions hello
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.views import instant

        current = await _current(circuit, workflow)
        found = await _versions(circuit, workflow, limit)
        if as_json:
            terminal.result([{**one.as_dict(), "current": one.hash == current.hash} for one in found])
        else:
            rows = [
                (
                    one.hash[:12],
                    "current" if one.hash == current.hash else "-",
                    instant(one.published_at),
                    one.published_by,
                )
                for one in found
            ]
            terminal.table(("version", "state", "published", "by"), rows, whole="version")
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("publish")
def publish(
    workflow: WorkflowArgument,
    version: Annotated[str, typer.Argument(metavar="HASH", help="The version: its hash, or the beginning of it.")],
    as_json: JsonOption = False,
) -> int:
    """Make a version that was published before current again. New cases begin with it, and those that run stay on
    theirs.

    \b
    Example: circuit workflows publish hello 8f14e45fceea
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        await _current(circuit, workflow)
        meant = [one.hash for one in await _versions(circuit, workflow, MOST_VERSIONS) if one.hash.startswith(version)]
        if not version or not meant:
            raise NotFound(
                f"workflow {workflow} has no version {version!r}: see `circuit workflows versions {workflow}`"
            )
        if len(meant) > 1:
            raise InvalidRequest(f"{len(meant)} versions of workflow {workflow} begin with {version}: write more of it")
        changed = await circuit.engine.publishing.make_current(workflow, meant[0], principal=circuit.principal)
        if as_json:
            terminal.result({"workflow": workflow, "hash": meant[0], "changed": changed})
        else:
            already = "" if changed else " already"
            terminal.line(one_line(f"version {meant[0][:12]} of workflow {workflow} is{already} the current one"))
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("delete")
def delete(workflow: WorkflowArgument, as_json: JsonOption = False) -> int:
    """Take a workflow away, of which no case runs. No list shows it, and no case of it can begin. Cases that have ended
    keep the version that they ran.

    \b
    Example: circuit workflows delete hello
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        await _current(circuit, workflow)
        await circuit.engine.publishing.delete(workflow, principal=circuit.principal)
        if as_json:
            terminal.result({"workflow": workflow, "deleted": True})
        else:
            terminal.line(one_line(f"workflow {workflow} is deleted; its cases that have ended stay"))
        return 0

    return with_circuit(body, as_json=as_json)


async def _current(circuit: Circuit, workflow_id: str) -> WorkflowView:
    """The current version. Raises `NotFound`."""
    found = await circuit.queries.workflow(circuit.principal.tenant, workflow_id)
    if found is None:
        from circuit.engine.asking import meant

        known = [one.id for one in await circuit.queries.workflows(circuit.principal.tenant)]
        raise NotFound(
            f"there is no workflow {workflow_id!r}{meant(workflow_id, known)}; `circuit workflows list` has them"
        )
    return found


async def _versions(circuit: Circuit, workflow_id: str, limit: int) -> list[WorkflowView]:
    return (await circuit.engine.pages.versions(circuit.principal.tenant, [workflow_id], limit))[workflow_id]

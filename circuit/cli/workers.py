"""`circuit workers`: who works on this database, and how one is asked to end or to give cases up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, one_line
from circuit.errors import InvalidRequest

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.fleet import WorkerView

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
WaitOption = Annotated[float, typer.Option("--wait", min=0.0, help="Wait so many seconds for the answer.")]

app = typer.Typer(rich_markup_mode=None)

_ACCEPTED = 3
"""The exit code where the worker was asked and has not answered yet."""


@app.callback(invoke_without_command=True)
def workers(
    context: typer.Context,
    ended: Annotated[bool, typer.Option("--all", help="Also those that ended within the last week.")] = False,
    watch: Annotated[float | None, typer.Option("--watch", min=0.1, help="Look again every so many seconds.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List the workers of this database. Where they run, how old they are, what is left of their lease, what they do.

    \b
    Examples:
      circuit workers
      circuit workers --watch 2
      circuit workers drain 0199f3a2
      circuit workers release 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
    """
    if context.invoked_subcommand is not None:
        return 0
    if watch is not None and as_json:
        raise InvalidRequest("--json prints one value; leave out --watch.")

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        while True:
            found = await circuit.fleet.workers(ended=ended)
            if as_json:
                terminal.result([worker.as_dict() for worker in found])
            else:
                _show(found, terminal)
            if watch is None:
                return 0
            terminal.line()
            await asyncio.sleep(watch)

    return with_circuit(body, as_json=as_json)


@app.command("drain")
def drain(
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="The id of a worker, or its beginning.")],
    within: Annotated[float, typer.Option("--within", min=0.0, help="What runs gets so many seconds.")] = 60.0,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> int:
    """Have a worker end in good order. It claims nothing more, what runs gets its time, the rest goes to other workers.

    Exit code 0 if it has ended, 3 if it was asked and goes on for now.

    \b
    Example: circuit workers drain 0199f3a2 --within 120 --wait 150
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.fleet.drain(worker, circuit.principal, within)
        over = await circuit.fleet.drained(found.id, wait)
        if as_json:
            terminal.result({"worker_id": str(found.id), "ended": over})
        else:
            told = "has ended" if over else f"was asked to end within {within:g} s"
            terminal.line(f"worker {found.id} {told}")
        return 0 if over else _ACCEPTED

    return with_circuit(body, as_json=as_json)


@app.command("release")
def release(
    target: Annotated[str, typer.Argument(metavar="WORKER|CASE", help="A worker (or its beginning), or a case.")],
    fence: Annotated[bool, typer.Option("--fence", help="The worker is dead: take its cases over now.")] = False,
    wait: WaitOption = 10.0,
    as_json: JsonOption = False,
) -> int:
    """Have a worker give up all its cases, or one, to other workers. What runs in them goes on there, with its journal.

    Exit code 0 if they are free, 3 if the worker was asked and has not answered yet.

    \b
    Examples:
      circuit workers release 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
      circuit workers release 0199f3a2 --fence
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        if fence:
            freed = await circuit.fleet.fence(target, circuit.principal)
            if as_json:
                terminal.result({"fenced": True, "cases": freed})
            else:
                terminal.line(f"{freed} cases are free")
            return 0
        answer = await circuit.fleet.release(target, circuit.principal, wait_seconds=wait)
        if as_json:
            terminal.result({"state": "pending"} if answer is None else {"state": "done", **answer})
        elif answer is None:
            terminal.line("the worker was asked, and has not answered yet")
        else:
            cases: Sequence[str] = answer.get("released", ())
            terminal.line(one_line(f"worker {answer['worker_id']} gave up {len(cases)} cases"))
        return _ACCEPTED if answer is None else 0

    return with_circuit(body, as_json=as_json)


def _show(found: Sequence[WorkerView], terminal: Terminal) -> None:
    if not found:
        terminal.line("no workers; `circuit worker` starts one")
        return
    rows = [
        (
            str(worker.id),
            worker.state.value,
            worker.row.host,
            str(worker.row.pid),
            _span(worker.age_seconds),
            "-" if worker.lease_seconds is None else f"{worker.lease_seconds:.1f} s",
            str(worker.row.cases),
            str(worker.row.executions),
            ", ".join(worker.row.pools) or "-",
        )
        for worker in found
    ]
    terminal.table(
        ("worker", "state", "host", "pid", "age", "lease", "cases", "running", "pools"), rows, whole="worker"
    )


def _span(seconds: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"

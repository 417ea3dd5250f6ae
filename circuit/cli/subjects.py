"""`circuit subjects`: whom cases are about; what is held of them exported, and erased."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, compact, one_line
from circuit.errors import InvalidRequest

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.subjects import Erasure

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
SubjectArgument = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="The person, by the name that cases have: a number, an address, ...")
]
_LEFT = 1

app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Find, export and erase what cases hold of a person."
)


@app.command("add")
def add(
    subject: SubjectArgument,
    cases: Annotated[list[str], typer.Argument(metavar="CASE...", help="The ids of cases.")],
    as_json: JsonOption = False,
) -> int:
    """Say that cases are about a person. Beside those that their workflows find in their tokens (`subject:`).

    \b
    Example: circuit subjects add customer-1815 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        for case in cases:
            await circuit.subjects.add(circuit.key(case), [subject], circuit.principal)
        terminal.result({"cases": len(cases)}) if as_json else terminal.line(
            f"{len(cases)} cases are about this person"
        )
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("cases")
def cases_of(subject: SubjectArgument, as_json: JsonOption = False) -> int:
    """List the cases about a person, the oldest first. Also those that they opened.

    \b
    Example: circuit subjects cases customer-1815
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.subjects.cases(subject, circuit.principal)
        if as_json:
            terminal.result([one.as_dict() for one in found])
        elif not found:
            terminal.line("no cases are about this person")
        else:
            told = [one.as_dict() for one in found]
            rows = [
                (one["case_id"], one["workflow"] or "-", one["status"] or "archived", one["erased_at"] or "-")
                for one in told
            ]
            terminal.table(("case", "workflow", "status", "erased"), rows, whole="case")
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("export")
def export(
    subject: SubjectArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to; it must not be there yet.")],
    as_json: JsonOption = False,
) -> int:
    """Write all rows of the cases about a person as JSON lines. Archived cases too: {"table": ..., "row": {...}}.

    \b
    Example: circuit subjects export customer-1815 --out customer-1815.jsonl
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        counted = 0
        try:
            with out.open("x", encoding="utf-8") as file:
                out.chmod(0o600)
                async for table, row in circuit.subjects.export(subject, circuit.principal):
                    file.write(compact({"table": table, "row": row}) + "\n")
                    counted += 1
        except OSError as error:
            raise InvalidRequest(f"{str(out)!r} cannot be written: {error.strerror}") from None
        told = {"file": str(out), "rows": counted}
        terminal.result(told) if as_json else terminal.line(one_line(f"{counted} rows are in {out}"))
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("erase")
def erase(
    subject: SubjectArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; count what would be erased.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel cases that have not ended first.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Erase what the cases about a person hold. Their rows stay, each with the hash of what was there.

    Exit code 0 if nothing is left, 1 if weeks of the archive lie where this machine cannot open them.

    \b
    Examples:
      circuit subjects erase customer-1815 --dry-run
      circuit subjects erase customer-1815 --cancel
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        if cancel:
            for one in await circuit.subjects.cases(subject, circuit.principal):
                if one.open:
                    circuit.take(str(one.key))
        done = await circuit.subjects.erase(subject, circuit.principal, cancel=cancel, dry_run=dry_run)
        terminal.result(done.as_dict()) if as_json else _tell(done, terminal)
        return 0 if done.whole else _LEFT

    return with_circuit(body, as_json=as_json, only=[] if cancel and not dry_run else None)


def _tell(done: Erasure, terminal: Terminal) -> None:
    would = "would be erased" if done.dry_run else "erased"
    rows = ", ".join(f"{count} of {table}" for table, count in sorted(done.rows.items()) if count)
    terminal.line(f"{done.cases} cases in the database and {done.archived} in the archive: {would}")
    terminal.line(f"rows {would}: {rows or 'none'}")
    if not done.dry_run:
        terminal.line(f"forgotten: {done.cached_answers} cached answers, {done.messages} messages that nobody took")
    for place in done.unreachable:
        terminal.line(one_line(f"not erased: the week in {place}, which is not on this machine; run this where it is"))

"""`circuit migrate`: the live cases of a workflow go to another of its versions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, one_line
from circuit.cli.token import TOKEN_LIMIT, parse_object, read_text
from circuit.cli.workflows import read_workflow
from circuit.errors import InvalidRequest
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.migrator import MigrationReport, Take, Wanted

_SHOWN = 20
_ENDS = (".yaml", ".yml", ".json")


def migrate(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="WORKFLOW@HASH; without @HASH: every version but the new one.")
    ],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="WORKFLOW@HASH, WORKFLOW (its current version), or a workflow FILE.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge the cases, and move none.")] = False,
    places: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="PLACE=PLACE", help="A place and its name in the new version, where it differs."),
    ] = None,
    map_file: Annotated[
        Path | None, typer.Option("--map-file", metavar="FILE", help="The same as a JSON object in a file.")
    ] = None,
    restart_firings: Annotated[
        bool,
        typer.Option("--restart-firings", help="Cancel firings that cannot go along; they begin anew there."),
    ] = False,
    allow_unproven: Annotated[
        bool, typer.Option("--allow-unproven", help="Move also where it was not decided whether a case can end.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")
    ] = False,
) -> int:
    """Bring live cases of a workflow to another version. Each goes only if it is proven that from its marking the new
    version can always come to an end; the rest is listed with the reasons. To interrupt it and to repeat it is safe.
    Exit code 0 if every case went (or, with --dry-run, would go), else 1.

    \b
    Example: circuit migrate triage@3f2a91c0 triage --dry-run
    Example: circuit migrate triage triage --map review=second_review --restart-firings
    """
    wanted = _wanted(old, new, _mapping(places or [], map_file), restart_firings, allow_unproven, dry_run)
    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()

    async def session() -> int:
        from circuit.app import Circuit

        async with Circuit.open(settings=settings, worker=not dry_run, only=[], progress=terminal.note) as circuit:
            report = await circuit.migrator.migrate(
                wanted,
                principal=circuit.principal,
                take=await _taking(circuit, wanted),
                progress=lambda found: terminal.note(f"{found.cases} cases looked at"),
            )
        if as_json:
            terminal.result(report.as_dict())
        else:
            print_report(report, terminal)
        return 1 if report.left or report.pending else 0

    return run_session(session, settings)


def _wanted(old: str, new: str, places: dict[str, str], restart: bool, unproven: bool, dry_run: bool) -> Wanted:
    from circuit.engine.migrator import Wanted

    workflow_id, at, version = old.partition("@")
    if not workflow_id or (at and not version):
        raise InvalidRequest(f"OLD is {old!r}: write WORKFLOW@HASH, or WORKFLOW for every version but the new one.")
    if new.endswith(_ENDS):
        target = read_workflow(Path(new), published=True)
        other = target.id
    else:
        other, at, named = new.partition("@")
        target = named or None
        if not other or (at and not named):
            raise InvalidRequest(f"NEW is {new!r}: write WORKFLOW@HASH, WORKFLOW, or the path of a workflow file.")
    if other != workflow_id:
        raise InvalidRequest(f"cases of {workflow_id} do not go to another workflow, {other}.")
    return Wanted(workflow_id, version or None, target, places, restart, unproven, dry_run)


def _mapping(given: Sequence[str], file: Path | None) -> dict[str, str]:
    found: dict[str, str] = {}
    if file is not None:
        for place, name in parse_object(read_text(file, TOKEN_LIMIT, "Map"), "--map-file").items():
            if not isinstance(name, str):
                raise InvalidRequest(f"--map-file: the place for {place!r} must be a name, as text.")
            found[place] = name
    for text in given:
        place, equals, name = text.partition("=")
        if not equals or not place or not name:
            raise InvalidRequest(f"--map {text!r} maps no place: write PLACE=PLACE, the old one first.")
        found[place] = name
    return found


async def _taking(circuit: Circuit, wanted: Wanted) -> Take:
    """Where no worker lives, this process moves the cases itself, and leaves it to the next worker to go on with them.
    A workflow whose functions it does not know it does not touch."""
    living = [one for one in await circuit.fleet.workers() if one.state.value == "alive"]
    others = [one for one in living if one.row.pid != os.getpid()]
    if wanted.dry_run or others:
        return lambda key: nullcontext()
    try:
        circuit.check_actions(await circuit.migrator.target(circuit.principal.tenant, wanted))
    except InvalidRequest:
        return lambda key: nullcontext()
    return lambda key: circuit.taken(str(key))


def print_report(report: MigrationReport, terminal: Terminal) -> None:
    """What went and what stays, and why, for people."""
    what = "would go" if report.dry_run else "went"
    terminal.line(f"{report.cases} live cases of {report.workflow_id}, to version {report.version[:12]}")
    if report.markings:
        rows = [
            (one.version[:12], one_line(", ".join(f"{place}: {count}" for place, count in one.marking.items()), 60),
             str(one.cases), one.verdict)
            for one in report.markings
        ]  # fmt: skip
        terminal.table(("from version", "marking", "cases", "completion"), rows)
    pending = f", {report.pending} asked and not answered yet" if report.pending else ""
    terminal.line(f"{report.moved} {what}, {report.left} stay{pending}")
    for reason, count in Counter(report.stay.values()).most_common(_SHOWN):
        cases = [str(key) for key, told in report.stay.items() if told == reason]
        more = f" and {count - 1} more" if count > 1 else ""
        terminal.line(one_line(f"  {cases[0]}{more}: {reason}", 400))
    if not report.dry_run and (report.left or report.pending):
        terminal.line("the same command again, when they rest or are put right, moves those that did not go")

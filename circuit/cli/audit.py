"""`circuit fsck`: whether the database holds what Circuit promises."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.failure import report as report_error
from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, one_line
from circuit.errors import CircuitError, InvalidRequest
from circuit.settings import Settings, debug_wanted

if TYPE_CHECKING:
    from circuit.engine.audit.inspection import Report

CLEAN, FAULTY, UNCHECKED = 0, 1, 3
_TOLD_EVERY = 1_000


def fsck(
    tenant: Annotated[int | None, typer.Option("--tenant", min=0, help="Only the cases of this tenant.")] = None,
    case: Annotated[str | None, typer.Option("--case", metavar="CASE", help="Only this case.")] = None,
    sample: Annotated[
        float, typer.Option("--sample", min=0.0, max=1.0, help="A share of the cases, drawn at random: 0.01 is 1 %.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option("--seed", help="Draw the same share again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> int:
    """Check the ten invariants on a live database. Every case is replayed, and each row that breaks one is named.

    Writes nothing and stops nobody. Exit code 0 if all is well, 1 if there are faults, 3 if something could not be
    checked.

    \b
    Example: circuit fsck
    Example: circuit fsck --sample 0.05 --json
    """
    terminal = Terminal(json=as_json)
    if case is not None and sample < 1:
        raise InvalidRequest("--sample draws among many cases; leave it out with --case.")
    drawn = seed if seed is not None else secrets.randbits(31)
    try:
        settings = Settings.from_environment()
        return run_session(lambda: _inspect(settings, terminal, tenant, case, sample, drawn), settings)
    except CircuitError as error:
        if isinstance(error, InvalidRequest):
            raise
        report_error(error, terminal, debug=debug_wanted())
        return UNCHECKED


async def _inspect(
    settings: Settings, terminal: Terminal, tenant: int | None, case: str | None, share: float, seed: int
) -> int:
    from circuit.app import Circuit, database_url
    from circuit.engine.audit.inspection import inspect_at
    from circuit.ids import DEFAULT_TENANT

    wanted = Circuit.key(case).case if case is not None else None
    of_tenant = DEFAULT_TENANT if wanted is not None and tenant is None else tenant
    told = 0

    def progress(found: Report, total: int) -> None:
        nonlocal told
        if found.cases - told >= _TOLD_EVERY:
            told = found.cases
            share_of = f" (of {total}, a share of {share:g} with seed {seed})" if share < 1 else f" of {total}"
            terminal.note(f"{found.cases}{share_of} cases checked, {found.found} faults")

    async with database_url(settings, progress=terminal.note) as url:
        found = await inspect_at(url, tenant=of_tenant, case=wanted, share=share, seed=seed, progress=progress)
    if wanted is not None and not found.cases:
        raise InvalidRequest(f"there is no case {case}; `circuit cases` lists them")
    _show(found, terminal, share, seed)
    if found.found:
        return FAULTY
    return CLEAN if found.clean else UNCHECKED


def _show(found: Report, terminal: Terminal, share: float, seed: int) -> None:
    if terminal.json:
        terminal.result({**found.as_dict(), "share": share, "seed": seed if share < 1 else None})
        return
    for fault in found.faults:
        terminal.line(one_line(str(fault)))
        terminal.line(one_line(f"    what to do: {fault.remedy}"))
    if found.found > len(found.faults):
        terminal.line(f"... and {found.found - len(found.faults)} more faults")
    for key, reason in found.unchecked.items():
        terminal.line(one_line(f"not checked: case {key}: {reason}"))
    for note in found.notes:
        terminal.line(one_line(f"note: {note}"))
    of = f" (a share of {share:g}, seed {seed})" if share < 1 else ""
    verdict = "no fault" if not found.found else f"{found.found} fault{'' if found.found == 1 else 's'}"
    left = f", {len(found.unchecked)} could not be checked" if found.unchecked else ""
    erased = f" ({found.erased} of them erased: by the hashes of what they held)" if found.erased else ""
    terminal.line(f"{found.cases} cases{erased} and {found.events} events checked{of}: {verdict}{left}")

"""`circuit explain`: a workflow in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.terminal import Terminal, clean
from circuit.cli.workflows import JsonOption, read_workflow
from circuit.errors import InvalidRequest

if TYPE_CHECKING:
    from circuit.definition.account import Entry

_WIDTH = 13


def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A workflow file.")],
    transition: Annotated[
        str | None, typer.Argument(metavar="[TRANSITION]", help="Tell of this transition only.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Say in words what a workflow does. When each transition fires, what it takes, and what comes of it.

    Only a file that names agents and does not define them needs a database.

    \b
    Example: circuit explain workflows/document_review.yaml
    Example: circuit explain workflows/document_review.yaml ai_review
    """
    from circuit.definition.account import account_of

    account = account_of(read_workflow(file, published=True, offline=True))
    entries = [entry for entry in account.transitions if transition in (None, entry.transition, *entry.choices)]
    if not entries:
        known = ", ".join(entry.transition for entry in account.transitions)
        raise InvalidRequest(f"{account.workflow} has no transition {transition!r}; it has {known or 'none'}.")
    terminal = Terminal(json=as_json)
    if as_json:
        terminal.result(account.as_dict() | {"transitions": [entry.as_dict() for entry in entries]})
        return 0
    if transition is None:
        terminal.line(clean(f"{account.workflow}: {account.name}"))
        for line in filter(None, (account.description, *account.cases)):
            terminal.line(clean(f"  {line}"))
    for number, entry in enumerate(entries):
        if number or transition is None:
            terminal.line()
        _tell(entry, terminal)
    return 0


def _tell(entry: Entry, terminal: Terminal) -> None:
    terminal.line(clean(entry.transition + (f": {entry.description}" if entry.description else "")))
    then = "\n" + " " * (_WIDTH + 2) + "and "
    together = "all at once: " if len(entry.takes) > 1 else ""
    for head, lines in (
        ("fires", (entry.fires,)),
        ("takes", (together + then.join(entry.takes),)),
        ("only if", (then.join(entry.only_if),)),
        ("does", (entry.does,)),
        ("gives", (then.join(entry.gives) or "nothing",)),
        ("if it fails", (entry.if_it_fails,)),
        ("also", entry.also),
        (
            "is",
            (f"{len(entry.choices)} choices, counted together: {', '.join(entry.choices)}",) if entry.choices else (),
        ),
    ):
        for line in filter(None, lines):
            terminal.line(clean(f"  {head:<{_WIDTH}}{line}"))

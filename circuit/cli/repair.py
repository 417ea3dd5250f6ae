"""`circuit modify`: tokens of a live case put, taken, moved and changed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.cases import ask
from circuit.cli.token import token_changes, token_parts
from circuit.errors import InvalidRequest

if TYPE_CHECKING:
    from circuit.engine.modification import Move, NewToken

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
CaseArgument = Annotated[str, typer.Argument(metavar="CASE", help="The id of a case.")]


def modify(
    case_id: CaseArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; its history keeps it.")],
    put: Annotated[
        list[str] | None,
        typer.Option("--put", metavar="PLACE[=JSON]", help="Put a new token, with this data, into a place."),
    ] = None,
    take: Annotated[
        list[int] | None, typer.Option("--take", metavar="N", min=1, help="Take the token of this number out.")
    ] = None,
    move: Annotated[
        list[str] | None, typer.Option("--move", metavar="N:PLACE", help="Move the token of this number to a place.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[TOKEN:]PATH=VALUE",
            help="Set data.PATH or metadata.PATH; TOKEN is a token's number or a place, where there are several.",
        ),
    ] = None,
    cancel_firings: Annotated[
        bool, typer.Option("--cancel-firings", help="Cancel firings that hold tokens which change.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Change the tokens of a live case by hand. All of it or nothing, under the colours and capacities of its places.
    Its history keeps who did it and why. Exit code 0 if it was done, 1 if the case refused it.

    \b
    Example: circuit modify 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --move 3:review --reason "sent on too early"
    Example: circuit modify 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --take 4 --put open='{"n": 1}' --reason "twice"
    """
    from circuit.engine.modification import Modification

    wanted = Modification(
        reason,
        _put(put or []),
        take or [],
        _moves(move or []),
        token_changes(changes or []),
        cancel_firings,
    )
    wanted.as_payload()
    return ask(case_id, lambda circuit: circuit.modify(case_id, wanted), "modify", as_json)


def _put(given: Sequence[str]) -> list[NewToken]:
    from circuit.engine.modification import NewToken

    found: list[NewToken] = []
    for text in given:
        place, equals, token = text.partition("=")
        if not place:
            raise InvalidRequest(f"--put {text!r} names no place: write PLACE, or PLACE=JSON.")
        parts = token_parts(token if equals else None, None, [])
        found.append(NewToken(place) if parts is None else NewToken(place, parts.data, parts.metadata))
    return found


def _moves(given: Sequence[str]) -> list[Move]:
    from circuit.engine.modification import Move

    found: list[Move] = []
    for text in given:
        number, _, place = text.partition(":")
        if not (number.isascii() and number.isdigit()) or not place:
            raise InvalidRequest(f"--move {text!r} is no move: write the token's number and a place, as 3:review.")
        found.append(Move(int(number), place))
    return found

"""Messages from outside: `circuit send` and `circuit messages`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from circuit.cli.cases import JsonOption
from circuit.cli.outcome import marking_text, standing
from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, compact, one_line
from circuit.cli.token import parse_object, put_together
from circuit.errors import InvalidRequest

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.messages import MessageView

STATES = ("new", "kept", "assigned", "delivered", "refused", "expired")


def send(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that transitions wait for.")],
    data: Annotated[str, typer.Option("--data", metavar="JSON", help="What it says: a JSON object.")] = "{}",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Set one field of the data; repeatable.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="What it is about, as `correlate` asks for it; repeatable where that has parts."),
    ] = None,
    delivery: Annotated[
        str | None, typer.Option("--id", metavar="DELIVERY", help="Sent again with the same id, it counts once.")
    ] = None,
    lifetime: Annotated[
        str | None, typer.Option("--lifetime", help="How long it is kept until a case waits for it. Default: 7d.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Send a message to whichever case waits for it. Exit code 1 if the case refused it.

    \b
    Example: circuit send payment_received --key 4711 --data '{"amount": 12}' --id bank-0815
    """
    said = put_together(parse_object(data, "--data"), assignments or [])
    seconds = _lifetime(lifetime)

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        sent = await circuit.send(
            name, said, key=key or (), delivery_id=delivery, lifetime_seconds=seconds, placed=True
        )
        if sent.case_id is None:
            _print(sent, terminal)
            return 0
        with circuit.taken(sent.case_id):
            outcome = replace(await circuit.sent(sent.id), duplicate=sent.duplicate)
            view = await circuit.wait(sent.case_id) if circuit.busy else await circuit.case(sent.case_id)
        _print(outcome, terminal)
        if not as_json:
            terminal.line(one_line(f"case {view.case_id} {standing(view.status)}: {marking_text(view)}"))
        return 1 if outcome.state == "refused" else 0

    return with_circuit(body, as_json=as_json, only=[])


def messages(
    name: Annotated[str | None, typer.Option("--name", help="Only messages of this name.")] = None,
    state: Annotated[str | None, typer.Option("--state", help=f"Only those that are {', '.join(STATES)}.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many, the newest first.")] = 50,
    before: Annotated[
        str | None, typer.Option("--before", metavar="ID", help="Only those sent before this one.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """List messages, the newest first, with what became of them.

    \b
    Example: circuit messages --state kept --json
    """
    last = None if before is None else _identity(before)

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.messages.list(circuit.principal, name=name, state=state, limit=limit, before=last)
        if as_json:
            terminal.result([one.as_dict() for one in found])
        elif not found:
            terminal.line("no messages")
        else:
            rows = [
                (one.id, one.state, one.name, one.as_dict()["key"] or "", one.case_id or "", compact(one.data, 60))
                for one in found
            ]
            terminal.table(("message", "state", "name", "key", "case", "data"), rows, whole="message")
        return 0

    return with_circuit(body, as_json=as_json)


def _print(sent: MessageView, terminal: Terminal) -> None:
    if terminal.json:
        terminal.result(sent.as_dict())
        return
    again = " (it was sent before)" if sent.duplicate else ""
    what = {
        "new": "is stored: no worker has looked for a case that waits for it yet",
        "kept": "is kept: no case waits for it yet",
        "assigned": f"is on its way to case {sent.case_id}",
        "delivered": f"went to case {sent.case_id}",
        "refused": f"was refused by case {sent.case_id}: {(sent.error or {}).get('message', '')}",
        "expired": "was kept for its lifetime, and no case waited for it",
    }[sent.state]
    terminal.line(one_line(f"message {sent.name} {what}{again}"))


def _lifetime(text: str | None) -> float | None:
    if text is None:
        return None
    from circuit.definition.field import seconds

    try:
        return seconds(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise InvalidRequest(f"--lifetime: {error}; write seconds, or 10s, 5m, 2h, 14d") from None


def _identity(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest(f"--before {text!r} is not the id of a message; `circuit messages` lists them") from None

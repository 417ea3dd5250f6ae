"""`circuit conversations`: what agents remember of earlier runs; listed, shown, forked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.session import with_circuit
from circuit.cli.terminal import Terminal, one_line

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.conversations import ConversationView, MessageView

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of a conversation.")]
_LONGEST = 2_000

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look at what agents remember, and fork it.")


@app.command("list")
def list_conversations(
    agent: Annotated[str | None, typer.Option("--agent", metavar="ID", help="Those of one agent.")] = None,
    case: Annotated[str | None, typer.Option("--case", metavar="ID", help="Those of one case.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> int:
    """List conversations, the youngest first.

    \b
    Example: circuit conversations list --agent content-reviewer
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        about = None if case is None else circuit.key(case).case
        found = await circuit.conversations.list(circuit.principal, agent_id=agent, case=about, limit=limit)
        if as_json:
            terminal.result([one.as_dict() for one in found])
        else:
            print_list(found, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("show")
def show(
    conversation: IdArgument,
    after: Annotated[int, typer.Option("--after", min=0, metavar="N", help="Only what was said behind N.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many messages at most.")] = 1000,
    as_json: JsonOption = False,
) -> int:
    """Show what was said in a conversation. With the number of each message.

    \b
    Example: circuit conversations show 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.conversations.find(circuit.principal, conversation)
        said = await circuit.conversations.messages(circuit.principal, conversation, after=after, limit=limit)
        if as_json:
            terminal.result({**found.as_dict(), "said": [one.as_dict() for one in said]})
            return 0
        terminal.line(one_line(f"conversation {found.id} of {found.agent_id}, {found.messages} messages"))
        for one in said:
            print_message(one, terminal)
        return 0

    return with_circuit(body, as_json=as_json)


@app.command("fork")
def fork(
    conversation: IdArgument,
    after: Annotated[
        int | None, typer.Option("--after", min=1, metavar="N", help="Keep the messages up to N. Default: all.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Copy a conversation, or its beginning. A case may go on from the copy: circuit run --conversation AGENT=ID

    \b
    Example: circuit conversations fork 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --after 4
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        made = await circuit.conversations.fork(circuit.principal, conversation, after)
        if as_json:
            terminal.result(made.as_dict())
        else:
            terminal.line(f"conversation {made.id}, {made.messages} messages")
        return 0

    return with_circuit(body, as_json=as_json)


def print_list(found: Sequence[ConversationView], terminal: Terminal) -> None:
    """Conversations as a table."""
    if not found:
        terminal.line("no conversations")
        return
    cells = [(one.id, one.agent_id, _about(one), str(one.messages)) for one in found]
    terminal.table(("conversation", "agent", "about", "messages"), cells)


def _about(one: ConversationView) -> str:
    fork = None if one.forked_from is None else f"fork of {one.forked_from}"
    return one.token or one.case_id or fork or "chat"


def print_message(said: MessageView, terminal: Terminal) -> None:
    """A message, each part on a line."""
    for part in said.parts:
        text = _text(part)
        if text:
            terminal.line(one_line(f"{said.number} {said.role}: {text}", _LONGEST))


def _text(part: Mapping[str, Any]) -> str:
    match part["type"]:
        case "text":
            return str(part["text"])
        case "reasoning":
            return f"(thinks) {part['text']}" if part["text"] else ""
        case "tool_call":
            return f"> {part['name']} {part.get('arguments', '')}"
        case "tool_result":
            return f"< {part['name']} {part.get('content', '')}"
        case kind:
            return f"({kind})"

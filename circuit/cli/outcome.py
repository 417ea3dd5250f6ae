"""Where a case stands, for people: its marking and tokens, why it rests there, and what may be done next."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from circuit.cli.terminal import Terminal, clean, compact, one_line

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.views import CaseView, CaseWhy, TokenView

_STATUS_CODES = {"completed": 0, "failed": 1, "cancelled": 1, "attention": 1, "stuck": 3, "waiting": 3, "running": 3}
_TOKEN_WIDTH = 160
_MOST_SHOWN = 100


def run_status(status: str) -> int:
    """The exit code of `circuit run` for a case of this status."""
    return _STATUS_CODES[str(status)]


def standing(status: str) -> str:
    """A status as part of a sentence about its case."""
    return "needs attention" if status == "attention" else f"is {status}"


async def print_outcome(circuit: Circuit, view: CaseView, terminal: Terminal) -> None:
    """The end of a run: the case as JSON, or its tokens and what is next in words."""
    if terminal.json:
        terminal.result(view.as_dict())
        return
    print_tokens(view, terminal)
    terminal.line(f"{view.status}: {marking_text(view)}")
    if not view.status.terminal:
        print_why(await circuit.why(view.case_id), terminal)
    if any(incident.open for incident in view.incidents):
        terminal.line(f"when the cause is gone: circuit retry {view.case_id}")
    terminal.line(f"the whole case: circuit show {view.case_id}")


def marking_text(view: CaseView) -> str:
    """The marking of a case in words."""
    words = [f"{count} token{'' if count == 1 else 's'} in {place}" for place, count in view.marking.items()]
    return clean(", ".join(words), keep="") or "no tokens"


def print_tokens(view: CaseView, terminal: Terminal, *, width: int = 0) -> None:
    """The tokens of a case as a table, their data cut to `width` characters, or to what fits on a line; of very many
    the first ones of each place."""
    if not view.tokens:
        return
    width = width or max(40, min(_TOKEN_WIDTH, terminal.width - 40))
    seen: Counter[str] = Counter()
    shown: list[TokenView] = []
    for token in view.tokens:
        seen[token.place] += 1
        if seen[token.place] <= _MOST_SHOWN:
            shown.append(token)
    terminal.table(
        ("place", "token", "data", "metadata"),
        [
            (token.place, token.id.rpartition(".")[2], compact(token.data, width), compact(token.metadata, width // 2))
            for token in shown
        ],
    )
    for place, times in seen.items():
        if times > _MOST_SHOWN:
            terminal.line(
                one_line(f"{times - _MOST_SHOWN:,} tokens more in {place}: circuit show {view.case_id} --json")
            )


def print_why(why: CaseWhy, terminal: Terminal) -> None:
    """Why a case does not go on by itself, transition by transition."""
    terminal.line(one_line(why.summary))
    for transition in why.transitions:
        reasons = "; ".join(obstacle.message for obstacle in transition.obstacles)
        state = "can fire" if transition.enabled else "cannot fire"
        terminal.line("  " + one_line(f"{transition.transition} {state}{': ' + reasons if reasons else ''}"))
        for obstacle in transition.obstacles:
            if obstacle.kind == "suspended":
                terminal.line(f"    circuit signal {why.key} {obstacle.subject.rpartition('.')[2]} --data '...'")
            if obstacle.kind == "approval":
                terminal.line(f"    circuit approvals --case {why.key}")
            if obstacle.kind == "child":
                terminal.line(f"    circuit why {obstacle.subject}")
        if transition.enabled and any(obstacle.kind == "person" for obstacle in transition.obstacles):
            terminal.line(f"    circuit fire {why.key} {one_line(transition.transition)} --form '{{...}}'")

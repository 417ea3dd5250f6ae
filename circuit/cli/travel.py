"""Time travel: `fork` starts a case from where another one stood, `diff` holds two cases against each other; and a case
as it was, for `show --at`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.narration import Narrator
from circuit.cli.outcome import standing
from circuit.cli.run import follow, opened
from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, clean, compact, one_line
from circuit.cli.token import token_changes
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.comparison import Difference, Stretch
    from circuit.engine.past import Moment

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
CaseArgument = Annotated[str, typer.Argument(metavar="CASE", help="The id of a case.")]

_MOST_STEPS = 12
_SHOWN_WIDTH = 10_000


def fork(
    case_id: CaseArgument,
    at: Annotated[
        int | None,
        typer.Option(
            "--at", metavar="N", min=1, help="Start from where it stood after its event N [default: the last]."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[TOKEN:]PATH=VALUE",
            help="Set data.PATH or metadata.PATH first; TOKEN is a token's number or a place, where there are several.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="[AGENT=]TYPE:NAME", help="A model in place of those of the case."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Start a new case from where another one stood. What happens is shown live. What was done by then is not done
    again; what ran then begins anew. The other case is not touched.

    Exit codes: 0 completed, 1 failed or attention, 2 bad usage, 3 stuck or waiting.

    \b
    Example: circuit fork 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --at 5 --set data.tone=formal
    Example: circuit fork 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --at 5 --model openai:gpt-4.1-mini
    """
    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()
    wanted = token_changes(changes or [])

    async def session() -> int:
        async with opened(settings, terminal) as circuit:
            chosen = await _models(circuit, await circuit.at(case_id, at), models or [])
            new = await circuit.fork(case_id, at, changes=wanted, models=chosen)
            terminal.line(one_line(f"case {new}, a fork of case {case_id}"))
            return await follow(circuit, new, terminal)

    return run_session(session, settings)


def diff(
    first: Annotated[str, typer.Argument(metavar="CASE1", help="The id of a case.")],
    second: Annotated[str, typer.Argument(metavar="CASE2", help="The id of another case.")],
    as_json: JsonOption = False,
) -> int:
    """Show how two cases differ. Their marking, the data of their tokens, the path that they went, and what they cost.
    Exit code 0 if marking, data and path are the same, 1 if not.

    \b
    Example: circuit diff 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 0199f3a2-8d00-7a10-8f11-0a2b3c4d5e6f
    """
    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()

    async def session() -> int:
        from circuit.app import Circuit

        async with Circuit.open(settings=settings, worker=False, progress=terminal.note) as circuit:
            found = await circuit.diff(first, second)
        if as_json:
            terminal.result(found.as_dict())
        else:
            _print_difference(found, terminal)
        return 0 if found.same else 1

    return run_session(session, settings)


def print_moment(found: Moment, terminal: Terminal) -> None:
    """A case as it was: what happened then, and where that left its tokens."""
    from circuit.engine.views import instant

    if terminal.json:
        terminal.result(found.as_dict())
        return
    event = found.event
    terminal.line(
        one_line(
            f"case {found.key} of the workflow {found.workflow_id} after its event {event.seq} of {found.last},"
            f" {instant(event.at)}"
        )
    )
    for line in Narrator().event(event.at, event.event):
        terminal.line(line.text)
    marking = ", ".join(f"{count} token{'' if count == 1 else 's'} in {name}" for name, count in found.marking.items())
    terminal.line(f"marking: {clean(marking, keep='') or 'no tokens'}")
    if found.tokens:
        rows = [
            (one.place, one.id.rpartition(".")[2], str(one.version), (one.execution_id or "").rpartition(".")[2],
             compact(one.data, _SHOWN_WIDTH), compact(one.metadata, _SHOWN_WIDTH // 2))
            for one in found.tokens
        ]  # fmt: skip
        terminal.table(("place", "token", "version", "held by", "data", "metadata"), rows)
    for firing in found.firings:
        what = {"running": "ran", "suspended": "waited", "offered": "was to be tried again"}[firing.state.value]
        terminal.line(one_line(f"execution {firing.execution_id} of {firing.transition} {what} (try {firing.attempt})"))
    for number in found.incidents:
        terminal.line(f"incident {number} was open")
    terminal.line(f"go on from here in a new case: circuit fork {found.key} --at {event.seq}")


async def _models(circuit: Circuit, moment: Moment, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `--model` asks for, checked against the version that the case had, before anything starts."""
    from circuit.definition import model_overrides
    from circuit.engine.versions import VersionKey

    version = VersionKey(moment.key.tenant, moment.workflow_id, moment.workflow_hash)
    workflow = await circuit.queries.version(version)
    chosen = model_overrides(models, workflow)
    if chosen:
        circuit.check_models(workflow, chosen)
    circuit.check_actions(workflow)
    return chosen


def _print_difference(found: Difference, terminal: Terminal) -> None:
    sides = (("first", found.first), ("second", found.second))
    for name, side in sides:
        origin = side.origin
        of = f", a fork of case {origin.case_id} after its event {origin.seq}" if origin else ""
        hash_ = side.row.workflow_hash[:12]
        about = f"case {side.key} of {side.row.workflow_id} in version {hash_}{of} {standing(side.row.status)}"
        terminal.line(one_line(f"{name}: {about}", 400))
    if found.marking:
        rows = [(place, str(one), str(other)) for place, (one, other) in found.marking.items()]
        terminal.table(("place", "tokens in first", "in second"), rows)
    else:
        terminal.line("marking: the same")
    if found.values:
        width = max(20, min(60, (terminal.width - 40) // 2))
        rows = [
            (_token(one.tokens, one.places), one.path, compact(one.first, width) if one.tokens[0] is not None else "-",
             compact(one.second, width) if one.tokens[1] is not None else "-")
            for one in found.values
        ]  # fmt: skip
        terminal.table(("token", "path", "first", "second"), rows)
    else:
        terminal.line("data: the same")
    terminal.line("path:" if found.path else "path: neither has fired anything")
    for stretch in found.path:
        for line in _stretch(stretch):
            terminal.line("  " + one_line(line, 400))
    rows = [
        (name, str(cost.executions), str(cost.input_tokens), str(cost.output_tokens),
         "-" if cost.usd is None else f"{cost.usd:.6f}", f"{cost.seconds:.1f}")
        for name, cost in ((name, side.cost) for name, side in sides)
    ]  # fmt: skip
    terminal.table(("cost", "executions", "tokens in", "tokens out", "US dollars", "seconds"), rows)


def _token(numbers: tuple[int | None, int | None], places: tuple[str | None, str | None]) -> str:
    shown = [f"{number} in {place}" for number, place in zip(numbers, places, strict=True) if number is not None]
    return one_line(" / ".join(dict.fromkeys(shown)))


def _stretch(stretch: Stretch) -> list[str]:
    if stretch.same:
        return [f"both: {_steps(stretch.first)}"]
    parts = (("first", stretch.first), ("second", stretch.second))
    return [f"only {name}: {_steps(steps)}" for name, steps in parts if steps]


def _steps(steps: Sequence[str]) -> str:
    if len(steps) <= _MOST_STEPS:
        return ", ".join(steps)
    half = _MOST_STEPS // 2
    return f"{', '.join(steps[:half])}, ... {len(steps) - 2 * half} more ..., {', '.join(steps[-half:])}"

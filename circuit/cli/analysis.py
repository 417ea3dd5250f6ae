"""`circuit analyse`: what can be proven of a net, be it a workflow or a PNML file.

Only a file that names agents and does not define them asks a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.terminal import Terminal, clean
from circuit.cli.token import read_bytes
from circuit.cli.workflows import JsonOption, read_workflow
from circuit.errors import CircuitError, InvalidRequest

if TYPE_CHECKING:
    from circuit.net.analysis.limits import Limits
    from circuit.net.analysis.proofs import Analysis
    from circuit.net.analysis.verdict import Verdict

PNML_LIMIT = 64 * 1024 * 1024
_PROGRESS_SECONDS = 2.0
_SHOWN_STEPS = 40


def analyse(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Workflow files and PNML files.")],
    as_json: JsonOption = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PROPERTY", help="This property only; may be repeated.")
    ] = None,
    net_id: Annotated[str | None, typer.Option("--net", metavar="ID", help="Which net of a PNML file.")] = None,
    max_states: Annotated[int, typer.Option("--max-states", min=1, help="The most markings to look at.")] = 1_000_000,
    memory: Annotated[int, typer.Option("--memory", min=16, metavar="MIB", help="The most memory to use.")] = 1_024,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, help="The most time for a file.")] = 60.0,
) -> int:
    """Prove what can be proven of nets. Soundness, boundedness, deadlocks and more.

    Needs no database, but for agents that a file names and does not define.

    Exit code 1 if soundness, boundedness or deadlock freedom is violated, 2 for a file that cannot be read.

    \b
    Example: circuit analyse workflows/document_review.yaml
    """
    from circuit.definition.proof import DECISIVE
    from circuit.net.analysis.limits import MEGABYTE, Limits

    terminal = Terminal(json=as_json)
    limits = Limits(monotonic, max_states, memory * MEGABYTE, seconds, _progress(terminal))
    results: list[dict[str, Any]] = []
    status = 0
    for file in files:
        try:
            analysis, more = analyse_file(file, limits, only or (), net_id)
        except CircuitError as error:
            if len(files) == 1:
                raise
            status = 2
            results.append({"file": str(file), "error": error.as_dict()})
            terminal.note(clean(f"{file}: {error.message}"))
            continue
        if status == 0 and any(name in DECISIVE and one.violated for name, one in analysis.verdicts.items()):
            status = 1
        if as_json:
            results.append({"file": str(file)} | analysis.as_dict() | more)
        else:
            _show(terminal, file, analysis, more)
    if as_json:
        terminal.result(results[0] if len(files) == 1 else {"files": results})
    return status


def analyse_file(
    file: Path, limits: Limits, only: Sequence[str], net_id: str | None = None
) -> tuple[Analysis, dict[str, Any]]:
    """The verdicts on the net in `file`, and what else is to be said: of PNML what was not read, of a workflow what
    was left out."""
    data = read_bytes(file, PNML_LIMIT, "Net")
    if not is_pnml(file, data):
        from circuit.definition.proof import prove
        from circuit.providers.tariff import PriceTable

        proof = prove(read_workflow(file, published=True, offline=True), limits, only, PriceTable())
        return proof.analysis, proof.about()
    from circuit.net.analysis.pnml import read_pnml
    from circuit.net.analysis.proofs import analyse as analyse_net

    nets = read_pnml(data, str(file))
    chosen = next((one for one in nets if net_id in (None, one.id)), None)
    if chosen is None:
        raise InvalidRequest(f"{file} holds no net {net_id!r}; it holds {', '.join(one.id for one in nets)}.")
    others = [one.id for one in nets if one is not chosen]
    notes = [*chosen.notes, *([f"the file holds other nets: {', '.join(others)} (--net)"] if others else [])]
    return analyse_net(chosen.net, limits, only), {"notes": notes} if notes else {}


def is_pnml(file: Path, data: bytes) -> bool:
    """Whether a file is PNML: by its name, or because it begins as XML does."""
    return file.suffix.lower() in (".pnml", ".xml") or data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def _progress(terminal: Terminal) -> Callable[[str, int], None]:
    """Says every few seconds how far a long analysis is."""
    begun = last = monotonic()

    def show(what: str, count: int) -> None:
        nonlocal last
        now = monotonic()
        if now - last >= _PROGRESS_SECONDS:
            last = now
            terminal.note(f"... {count:,} {what}, {now - begun:.0f} s")

    return show


def _show(terminal: Terminal, file: Path, analysis: Analysis, more: dict[str, Any]) -> None:
    from circuit.definition.proof import FAULTS

    net = analysis.net
    size = f"{len(net.places)} places, {len(net.steps)} transitions"
    terminal.line(clean(f"{file}: {net.name} ({size}, {analysis.seconds:.2f} s)"))
    width = max(len(name) for name in analysis.verdicts)
    for name, verdict in analysis.verdicts.items():
        said = f": {verdict.reason}" if verdict.reason else ""
        line = f"  {_sign(verdict, fault=name in FAULTS):<8}  {name.replace('_', ' '):<{width}}  {verdict.method}{said}"
        terminal.line(clean(line.rstrip()))
        if verdict.trace is not None:
            terminal.line(clean(_trace(verdict, net.labels)))
    for note in [*more.get("notes", ()), *_left_out(more)]:
        terminal.line(clean(f"  note      {note}"))
    if any(name in FAULTS and verdict.violated for name, verdict in analysis.verdicts.items()):
        terminal.line(f"  circuit draw {clean(str(file))} --trace soundness --format svg draws the run that shows it")


def _left_out(more: dict[str, Any]) -> list[str]:
    left_out = more.get("left_out", {})
    found = [left_out["guards"]] if left_out else []
    if left_out.get("failing"):
        ways = f"on_failure of {', '.join(left_out['failing'])}"
        after = f", and so {', '.join(left_out['handling'])}" if left_out.get("handling") else ""
        found.append(f"the ways of failures are left out: {ways}{after}; failure ways looks at them")
    if left_out.get("dead_letter_places"):
        found.append(f"dead-letter places are left out: {', '.join(left_out['dead_letter_places'])}")
    if more.get("split"):
        found.append(f"looked at as begin and complete: {', '.join(more['split'])}")
    return found


def _sign(verdict: Verdict, *, fault: bool) -> str:
    if verdict.violated:
        return "VIOLATED" if fault else "no"
    return verdict.answer.value


def _trace(verdict: Verdict, labels: Any) -> str:
    steps = [f"{step} ({labels[step]})" if step in labels else step for step in verdict.trace or ()]
    if not steps:
        return "            at the very beginning"
    shown = steps if len(steps) <= _SHOWN_STEPS else [*steps[:_SHOWN_STEPS], f"... {len(steps) - _SHOWN_STEPS} more"]
    lines = [f"            {index:>3}. {step}" for index, step in enumerate(shown, 1)]
    marking = verdict.witness.get("marking")
    if marking:
        held = ", ".join(f"{place}: {count}" for place, count in list(marking.items())[:12])
        lines.append(f"            then: {held}")
    return "\n".join(lines)

"""`circuit draw`: a workflow or a PNML net as Mermaid, DOT, SVG or PNML."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from circuit.cli.analysis import PNML_LIMIT, analyse_file, is_pnml
from circuit.cli.terminal import Terminal
from circuit.cli.token import read_bytes
from circuit.cli.workflows import read_workflow
from circuit.errors import InvalidRequest

if TYPE_CHECKING:
    from circuit.definition.workflow import Workflow
    from circuit.net.analysis.place_net import PlaceNet

_TRACE_SECONDS = 30.0


class DrawingFormat(StrEnum):
    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"
    PNML = "pnml"


def draw(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A workflow file or a PNML file; or give --case.")
    ] = None,
    form: Annotated[
        DrawingFormat | None,
        typer.Option("--format", help="What to write. Default: mermaid for workflows, svg for PNML."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, by whose end --format is guessed.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="PROPERTY", help="Mark the run that violates this property (svg).")
    ] = None,
    case_id: Annotated[
        str | None,
        typer.Option("--case", metavar="CASE", help="Draw a case: its tokens, and what has fired (svg)."),
    ] = None,
    at: Annotated[
        int | None, typer.Option("--at", metavar="N", min=1, help="With --case: as it was after its event N.")
    ] = None,
) -> int:
    """Draw a net, or a case as it stands or stood. The net of a workflow or of a PNML file.

    Only a case needs a database, and a file that names agents and does not define them.

    \b
    Example: circuit draw workflows/hello.yaml --output hello.svg
    Example: circuit draw model.pnml --trace soundness --output model.svg
    Example: circuit draw --case 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 --at 5 --output case.svg
    """
    if (file is None) == (case_id is None) or (at is not None and case_id is None):
        raise InvalidRequest("give a FILE, or --case CASE, which alone goes with --at.")
    if case_id is not None:
        if trace or (form or _by_name(output) or DrawingFormat.SVG) is not DrawingFormat.SVG:
            raise InvalidRequest("a case is drawn as svg, and without --trace.")
        return _draw_case(case_id, at, output)
    assert file is not None
    data = read_bytes(file, PNML_LIMIT, "Net")
    pnml = is_pnml(file, data)
    chosen = form or _by_name(output) or (DrawingFormat.SVG if pnml else DrawingFormat.MERMAID)
    steps = _trace(file, trace) if trace else ()
    if trace and chosen is not DrawingFormat.SVG:
        raise InvalidRequest("--trace is drawn in SVG only; add --format svg.")
    if pnml:
        text = _of_pnml(data, file, chosen, steps)
    else:
        text = _of_workflow(read_workflow(file, published=True, offline=True), chosen, steps)
    return _put_out(text, output)


def _draw_case(case_id: str, at: int | None, output: Path | None) -> int:
    from circuit.cli.session import run_session
    from circuit.settings import Settings

    settings, terminal = Settings.from_environment(), Terminal()

    async def session() -> int:
        from circuit.app import Circuit
        from circuit.definition.portrait import picture_of
        from circuit.engine.versions import VersionKey
        from circuit.net.svg import svg

        async with Circuit.open(settings=settings, worker=False, progress=terminal.note) as circuit:
            found = await circuit.at(case_id, at)
            version = VersionKey(found.key.tenant, found.workflow_id, found.workflow_hash)
            workflow = await circuit.queries.version(version)
        return _put_out(svg(picture_of(workflow, found.marking, found.fired)), output)

    return run_session(session, settings)


def _put_out(text: str, output: Path | None) -> int:
    if output is None:
        Terminal().line(text.rstrip("\n"))
    else:
        output.write_text(text, encoding="utf-8")
    return 0


def _by_name(output: Path | None) -> DrawingFormat | None:
    ends = {".svg": DrawingFormat.SVG, ".dot": DrawingFormat.DOT, ".gv": DrawingFormat.DOT, ".pnml": DrawingFormat.PNML}
    ends |= {".mmd": DrawingFormat.MERMAID, ".mermaid": DrawingFormat.MERMAID}
    return ends.get(output.suffix.lower()) if output is not None else None


def _trace(file: Path, name: str) -> tuple[str, ...]:
    from circuit.net.analysis.limits import Limits

    analysis, _ = analyse_file(file, Limits(monotonic, seconds=_TRACE_SECONDS), [name])
    verdict = analysis.verdicts[name]
    if verdict.trace is None:
        raise InvalidRequest(f"{name} is {verdict.answer}, and no run shows it: there is no trace to draw.")
    return tuple(step.removesuffix(" (begin)") for step in verdict.trace if not step.endswith(" (complete)"))


def _of_pnml(data: bytes, file: Path, form: DrawingFormat, trace: tuple[str, ...]) -> str:
    from circuit.net.analysis.pnml import read_pnml

    net = read_pnml(data, str(file))[0].net
    if form is DrawingFormat.PNML:
        return _as_pnml(net)
    if form is not DrawingFormat.SVG:
        raise InvalidRequest(f"A PNML net is drawn as svg or pnml, not as {form}; add --format svg.")
    from circuit.net.picture import picture_of_place_net
    from circuit.net.svg import svg

    return svg(picture_of_place_net(net, trace=trace))


def _of_workflow(workflow: Workflow, form: DrawingFormat, trace: tuple[str, ...]) -> str:
    from circuit.definition.portrait import notes_of, picture_of, shared_of, without_undoing
    from circuit.net import drawing

    match form:
        case DrawingFormat.SVG:
            from circuit.net.svg import svg

            return svg(picture_of(workflow, trace=trace))
        case DrawingFormat.PNML:
            from circuit.definition.proof import tokens_at_start
            from circuit.net.analysis.translation import translate

            return _as_pnml(translate(workflow.net, tokens_at_start(workflow)).net)
        case DrawingFormat.DOT:
            net = without_undoing(workflow).net
            return drawing.dot(net, notes=notes_of(workflow), shared=shared_of(workflow))
        case DrawingFormat.MERMAID:
            net = without_undoing(workflow).net
            return drawing.mermaid(net, notes=notes_of(workflow), shared=shared_of(workflow))


def _as_pnml(net: PlaceNet) -> str:
    from circuit.net.analysis.pnml_text import pnml_text

    return pnml_text(net)

"""`circuit run`: one case from its start, or from where it stands, to where Circuit can do nothing more for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.display import display
from circuit.cli.failure import error_object
from circuit.cli.narration import Narrator
from circuit.cli.outcome import print_outcome, run_status, standing
from circuit.cli.scripted import scripted_agents, scripted_notice
from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, one_line
from circuit.cli.token import TokenParts, token_parts
from circuit.cli.workflows import read_workflow
from circuit.errors import DatabaseUnreachable, InvalidRequest
from circuit.settings import Settings, with_actions

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.definition.workflow import Workflow

_STOP_SECONDS = 0.5
"""What an answer that is under way gets to end when the run is interrupted; a resume asks for it again."""


def run(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A workflow file.")] = None,
    token: Annotated[str | None, typer.Option("--token", metavar="JSON", help="The token, or its data.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="The token from a file; text becomes data.content; - is stdin."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set data.PATH or metadata.PATH; VALUE is JSON, else text."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="[AGENT=]TYPE:NAME", help="A model in place of those in the file."),
    ] = None,
    actions: Annotated[
        list[str] | None,
        typer.Option("--actions", metavar="MODULE", help="A Python module (or .py file) with @action functions."),
    ] = None,
    conversations: Annotated[
        list[str] | None,
        typer.Option(
            "--conversation", metavar="AGENT=ID", help="A conversation that the agent goes on with a copy of."
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="CASE", help="Go on with a case instead of starting one.")
    ] = None,
    allow_unsound: Annotated[
        bool,
        typer.Option("--allow-unsound", help="Take a workflow that may deadlock, grow without bound or never end."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the case as one JSON object on standard output, all else on stderr.")
    ] = False,
) -> int:
    """Run one case of a workflow and show live what happens. It must be sound, as for `circuit load`.

    Exit codes: 0 completed, 1 failed or attention, 2 bad usage or bad file, 3 stuck or waiting.

    \b
    Example: circuit run workflows/document_review.yaml --token-file article.md --model openai:gpt-4.1-mini
    Example: circuit run order.yaml --actions shop.actions --set data.amount=12
    """
    terminal = Terminal(json=as_json)
    settings = with_actions(Settings.from_environment(), actions)
    if resume is not None:
        if file is not None or token is not None or token_file is not None or assignments or models or conversations:
            raise InvalidRequest("--resume takes a case that exists: no FILE, token or model goes with it.")
        return run_session(lambda: _resume(resume, terminal, settings), settings)
    if file is None:
        raise InvalidRequest("circuit run needs a workflow FILE, or --resume CASE.")
    from circuit.definition import model_overrides
    from circuit.definition.admission import admit

    workflow = read_workflow(file, published=True, here=True)
    admit(workflow, str(file), monotonic, unsound=allow_unsound)
    parts = token_parts(token, token_file, assignments or [])
    choices = model_overrides(models or [], workflow)
    told = _conversations(conversations or [])
    return run_session(lambda: _start(workflow, parts, choices, told, terminal, settings), settings)


def _conversations(texts: Sequence[str]) -> dict[str, str]:
    """Conversations by agent, from `AGENT=ID`. Raises `InvalidRequest`."""
    found: dict[str, str] = {}
    for text in texts:
        agent, equals, conversation = text.partition("=")
        if not agent or not equals or not conversation:
            raise InvalidRequest(
                f"--conversation takes AGENT=ID, not {text!r}; `circuit conversations list` has the ids"
            )
        found[agent] = conversation
    return found


async def _start(
    workflow: Workflow,
    parts: TokenParts | None,
    choices: dict[str, dict[str, Any]],
    conversations: dict[str, str],
    terminal: Terminal,
    settings: Settings,
) -> int:
    async with opened(settings, terminal) as circuit:
        circuit.check_models(workflow, choices)
        circuit.check_actions(workflow)
        scripted = scripted_agents(workflow, choices)
        if scripted:
            terminal.line(scripted_notice(scripted))
        await circuit.publish(workflow)
        case_id = await circuit.start(
            workflow.id,
            parts.data if parts else None,
            metadata=parts.metadata if parts else None,
            models=choices,
            conversations=conversations,
        )
        terminal.line(one_line(f"case {case_id} of the workflow {workflow.id}"))
        return await follow(circuit, case_id, terminal, places=list(workflow.net.places))


async def _resume(case_id: str, terminal: Terminal, settings: Settings) -> int:
    async with opened(settings, terminal) as circuit:
        view = await circuit.case(case_id)
        if circuit.rests(view.standing):
            # Nothing would happen: what is there is the answer.
            if not terminal.json:
                terminal.line(
                    one_line(f"case {view.case_id} of the workflow {view.workflow_id} {standing(view.status)}")
                )
            await print_outcome(circuit, view, terminal)
            return run_status(view.status)
        terminal.line(one_line(f"case {view.case_id} of the workflow {view.workflow_id} goes on"))
        # What was said before is in the case's streams; only what is said from now on is shown.
        ended = [execution.id for execution in view.executions if execution.status != "running"]
        return await follow(circuit, view.case_id, terminal, silent=ended)


def opened(settings: Settings, terminal: Terminal) -> AbstractAsyncContextManager[Circuit]:
    """Circuit with a worker for the cases that it is told to take, and for no other."""
    from circuit.app import Circuit

    return Circuit.open(settings=settings, only=[], stop_seconds=_STOP_SECONDS, progress=terminal.note)


def _noted(terminal: Terminal) -> Callable[[str], None]:
    return lambda reason: terminal.note(one_line(reason))


async def follow(
    circuit: Circuit, case_id: str, terminal: Terminal, *, places: Sequence[str] = (), silent: Collection[str] = ()
) -> int:
    """Work on the case, if nobody else does, and show what happens until nothing more will."""
    from circuit.app import CaseUpdate

    try:
        circuit.take(case_id)
        with display(terminal, Narrator(places)) as shown:
            async for happening in circuit.stream(case_id, silent=silent, missing=_noted(terminal)):
                if isinstance(happening, CaseUpdate):
                    shown.event(happening.at, happening.event)
                else:
                    shown.frame(happening.execution_id, happening.frame)
        view = await circuit.case(case_id)
    except asyncio.CancelledError:
        message = f"interrupted; nothing is lost. Go on with: circuit run --resume {case_id}"
        terminal.note(message)
        if terminal.json:
            terminal.result(error_object("interrupted", message, {"case_id": case_id}))
        raise
    except DatabaseUnreachable:
        terminal.note(f"nothing that was committed is lost. Go on with: circuit run --resume {case_id}")
        raise
    await print_outcome(circuit, view, terminal)
    return run_status(view.status)

"""The command `circuit`: which commands there are, and where every error ends up."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from circuit.cli import (
    access,
    analysis,
    approvals,
    archive,
    audit,
    budgets,
    cases,
    chat,
    conversations,
    costs,
    database,
    drawing,
    executions,
    explanation,
    feedback,
    grants,
    incidents,
    ledger,
    limits,
    messages,
    migration,
    models,
    outbox,
    redaction,
    repair,
    run,
    schedules,
    screening,
    serve,
    simulation,
    starter,
    streams,
    subjects,
    tasks,
    top,
    travel,
    trial,
    versions,
    workers,
    workflows,
)
from circuit.cli.failure import error_object, report, report_usage
from circuit.cli.session import SIGNALLED
from circuit.cli.terminal import Terminal
from circuit.settings import debug_wanted

app = typer.Typer(
    name="circuit",
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Workflows that are Petri nets in Postgres, with agents on their transitions.",
    epilog=(
        "Exit codes: 0 completed, 1 failed or attention, 2 bad usage or bad file, 3 stuck or waiting (run)."
        " Settings come from the environment: CIRCUIT_DATABASE_URL, CIRCUIT_HOME and others."
    ),
)

app.command("init")(starter.init)
app.command("run")(run.run)
app.command("validate")(workflows.validate)
app.command("load")(workflows.load)
app.command("retire")(workflows.retire)
app.command("unretire")(workflows.unretire)
app.add_typer(versions.app, name="workflows")
app.command("migrate")(migration.migrate)
app.command("analyse")(analysis.analyse)
app.command("explain")(explanation.explain)
app.command("draw")(drawing.draw)
app.command("simulate")(simulation.simulate)
app.command("schema")(workflows.schema)
app.command("cases")(cases.cases)
app.command("show")(cases.show)
app.command("why")(cases.why)
app.command("fork")(travel.fork)
app.command("diff")(travel.diff)
app.command("fire")(cases.fire)
app.command("signal")(cases.signal)
app.command("send")(messages.send)
app.command("messages")(messages.messages)
app.command("schedules")(schedules.schedules)
app.command("trigger")(schedules.trigger)
app.command("tasks")(tasks.tasks)
app.command("complete")(tasks.complete)
app.command("approvals")(approvals.approvals)
app.command("approve")(approvals.approve)
app.command("refuse")(approvals.refuse)
app.command("retry")(cases.retry)
app.command("modify")(repair.modify)
app.command("cancel")(cases.cancel)
app.command("fsck")(audit.fsck)
app.command("serve")(serve.serve)
app.command("worker")(serve.worker)
app.command("chat")(chat.chat)
app.add_typer(grants.agents_app, name="agents")
app.add_typer(trial.tools_app, name="tools")
app.add_typer(models.app, name="models")
app.add_typer(incidents.app, name="incidents")
app.add_typer(access.keys, name="keys")
app.add_typer(access.tenants, name="tenants")
app.add_typer(archive.app, name="archive")
app.add_typer(streams.app, name="streams")
app.add_typer(conversations.app, name="conversations")
app.add_typer(executions.app, name="executions")
app.add_typer(feedback.app, name="feedback")
app.add_typer(budgets.app, name="budgets")
app.command("costs")(costs.costs)
app.add_typer(limits.app, name="limits")
app.add_typer(workers.app, name="workers")
app.command("top")(top.top)
app.add_typer(outbox.app, name="outbox")
app.add_typer(ledger.app, name="audit")
app.add_typer(subjects.app, name="subjects")
app.command("redact")(redaction.redact)
app.command("screen")(screening.screen)
app.add_typer(database.app, name="db")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and end.", is_eager=True),
) -> None:
    if version:
        from circuit import __version__

        typer.echo(f"circuit {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (those of the process, if None) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    terminal = Terminal(json="--json" in words)
    Terminal.answered = False
    try:
        result = app(args=words, prog_name="circuit", standalone_mode=False)
        status = result if isinstance(result, int) else 0
        if status > SIGNALLED and terminal.json and not Terminal.answered:
            terminal.result(error_object("interrupted", "interrupted before there was an answer", {}))
        return status
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        hint = f"See '{context.command_path} --help'." if context is not None else ""
        return report_usage(error.format_message(), hint, terminal)
    except typer.Abort:
        return 1
    except Exception as error:
        return report(error, terminal, debug=debug_wanted())


if __name__ == "__main__":
    sys.exit(main())

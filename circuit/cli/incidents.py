"""`circuit incidents`: what waits for somebody in any case: open incidents and dead-lettered tokens, one or many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from circuit.cli.outcome import marking_text, standing
from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, one_line
from circuit.cli.token import assignments
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import CaseKey, parse_numbered
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.app import Circuit
    from circuit.engine.bulk import Tally
    from circuit.engine.commands import CommandOutcome
    from circuit.engine.views import DeadLetterEntry, IncidentEntry

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output and nothing else.")]
WorkflowOption = Annotated[str | None, typer.Option("--workflow", help="Only of the workflow of this id.")]
CodeOption = Annotated[str | None, typer.Option("--code", help="Only those of this error code.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")]
AllOption = Annotated[bool, typer.Option("--all", help="All that --workflow and --code leave.")]
RateOption = Annotated[
    float, typer.Option("--rate", min=0.01, max=1_000, help="With --all: at most so many in a second.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="A value for data.NAME or metadata.NAME; repeat for more."),
]
CaseArgument = Annotated[str | None, typer.Argument(metavar="[CASE]", help="The id of a case.")]
NumberArgument = Annotated[int | None, typer.Argument(metavar="[NUMBER]", min=1, help="The number of its incident.")]

DEFAULT_RATE = 10.0
_PAGE = 500

Entry = TypeVar("Entry")
Page = Callable[[Any], Awaitable[Sequence[Entry]]]

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def incidents(context: typer.Context) -> None:
    """Look at what waits for somebody, and put it right. In any case, one by one or in bulk.

    \b
    Example: circuit incidents list --code timeout
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_incidents(
    workflow: WorkflowOption = None, code: CodeOption = None, limit: LimitOption = 100, as_json: JsonOption = False
) -> int:
    """List open incidents, the oldest cases first.

    \b
    Example: circuit incidents list --workflow document_review --code timeout
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.queries.open_incidents(circuit.principal.tenant, workflow, code, limit)
        if as_json:
            terminal.result([entry.as_dict() for entry in found])
        elif not found:
            terminal.line("no open incidents")
        else:
            rows = [
                (str(one.key.case), str(one.incident.number), one.workflow_id, one.incident.transition,
                 one.incident.code, one_line(one.incident.message, 60))
                for one in found
            ]  # fmt: skip
            terminal.table(("case", "incident", "workflow", "transition", "code", "message"), rows, whole="case")
        return 0

    return _with_circuit(body, as_json=as_json)


@app.command("show")
def show(case_id: str, number: int, as_json: JsonOption = False) -> int:
    """Show one open incident and the data that it is about.

    \b
    Example: circuit incidents show 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 1
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        view = await circuit.case(case_id)
        found = next((one for one in view.incidents if one.number == number), None)
        if found is None:
            raise NotFound(f"case {case_id} has no incident {number}")
        entries = await circuit.queries.open_incidents(view.key.tenant, after=(view.key.case, number - 1), limit=1)
        blocks = entries[0].blocks if entries and found.open and entries[0].incident.number == number else ()
        about = {f"{case_id}.{token}" for token, _ in blocks}
        tokens = [token for token in view.tokens if token.id in about]
        if as_json:
            terminal.result({**found.as_dict(), "tokens": [token.as_dict() for token in tokens]})
            return 0
        state = "open" if found.open else f"resolved by {found.resolved_by}"
        terminal.line(one_line(f"incident {number} ({state}) at {found.transition}: {found.code}: {found.message}"))
        for token in tokens:
            terminal.line(one_line(f"token {token.id} in {token.place}: {dict(token.data)}", 10_000))
        return 0

    return _with_circuit(body, as_json=as_json)


@app.command("retry")
def retry(
    case_id: CaseArgument = None,
    number: NumberArgument = None,
    every: AllOption = False,
    workflow: WorkflowOption = None,
    code: CodeOption = None,
    rate: RateOption = DEFAULT_RATE,
    as_json: JsonOption = False,
) -> int:
    """Try again what an incident keeps from firing. Of one case, or with --all of many.

    \b
    Example: circuit incidents retry --all --code rate_limit --rate 2
    """

    async def ask(circuit: Circuit, entry: IncidentEntry) -> CommandOutcome:
        return await circuit.commands.retry(entry.key, entry.incident.number, principal=circuit.principal)

    return _incidents(case_id, number, every, workflow, code, rate, ask, as_json)


@app.command("resolve")
def resolve(
    case_id: CaseArgument = None,
    number: NumberArgument = None,
    changes: SetOption = None,
    token: Annotated[int | None, typer.Option("--token", min=1, help="Only this token of the incident.")] = None,
    every: AllOption = False,
    workflow: WorkflowOption = None,
    code: CodeOption = None,
    rate: RateOption = DEFAULT_RATE,
    as_json: JsonOption = False,
) -> int:
    """Change the data that an incident is about, and try again.

    \b
    Example: circuit incidents resolve 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11 1 --set data.content="A shorter text."
    """
    values = assignments(changes or [])
    if not values:
        raise InvalidRequest("resolve changes data: give --set PATH=VALUE, or use retry to try again as it is.")

    async def ask(circuit: Circuit, entry: IncidentEntry) -> CommandOutcome:
        incident = entry.incident.number
        return await circuit.commands.resolve(entry.key, incident, values, token, principal=circuit.principal)

    return _incidents(case_id, number, every, workflow, code, rate, ask, as_json)


@app.command("dead")
def list_dead(
    workflow: WorkflowOption = None, code: CodeOption = None, limit: LimitOption = 100, as_json: JsonOption = False
) -> int:
    """List tokens in dead-letter places, with why they lie there.

    \b
    Example: circuit incidents dead --workflow document_review
    """

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        found = await circuit.queries.dead_letters(circuit.principal.tenant, workflow, code, limit)
        if as_json:
            terminal.result([entry.as_dict() for entry in found])
        elif not found:
            terminal.line("no dead letters")
        else:
            rows = [
                (one.token.id, one.workflow_id, one.token.place, str(one.failure.get("code", "")),
                 one_line(str(one.failure.get("message", "")), 60))
                for one in found
            ]  # fmt: skip
            terminal.table(("token", "workflow", "place", "code", "message"), rows, whole="token")
        return 0

    return _with_circuit(body, as_json=as_json)


@app.command("put-back")
def put_back(
    token_id: Annotated[str | None, typer.Argument(metavar="[TOKEN]", help="The id of a token: CASE.NUMBER.")] = None,
    place: Annotated[str | None, typer.Option("--place", help="Where to [default: where it was taken from].")] = None,
    every: AllOption = False,
    workflow: WorkflowOption = None,
    code: CodeOption = None,
    rate: RateOption = DEFAULT_RATE,
    as_json: JsonOption = False,
) -> int:
    """Put a dead-lettered token back to where it was. With --all many of them, at a limited rate.

    \b
    Example: circuit incidents put-back --all --workflow document_review --rate 1
    """
    named = parse_numbered(token_id) if token_id is not None else None
    if token_id is not None and named is None:
        raise InvalidRequest(f"{token_id!r} is not the id of a token: write CASE.NUMBER, as `incidents dead` shows it.")
    _one_or_all(token_id, every, workflow, code)

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.bulk import ask_each

        tenant = circuit.principal.tenant
        # What fails again meanwhile is not asked a second time.
        began = circuit.engine.now()

        async def ask(entry: DeadLetterEntry) -> CommandOutcome:
            with circuit.taken(str(entry.key)):
                return await circuit.commands.put_back(entry.key, entry.number, place, principal=circuit.principal)

        async def page(after: Any) -> Sequence[DeadLetterEntry]:
            return await circuit.queries.dead_letters(tenant, workflow, code, _PAGE, after, began)

        if named is not None:
            key = CaseKey(tenant, named.case)
            with circuit.taken(str(key)):
                outcome = await circuit.commands.put_back(key, named.number, place, principal=circuit.principal)
                return await _answer(circuit, terminal, key, outcome, as_json)
        found = _pages(page, lambda entry: (entry.key.case, entry.number))
        return await _tell(circuit, terminal, await ask_each(found, ask, rate), as_json)

    return _with_circuit(body, as_json=as_json, working=True)


def _incidents(
    case_id: str | None,
    number: int | None,
    every: bool,
    workflow: str | None,
    code: str | None,
    rate: float,
    ask: Callable[[Circuit, IncidentEntry], Awaitable[CommandOutcome]],
    as_json: bool,
) -> int:
    """Ask it of one incident, of all of a case, or of all that the filters leave."""
    _one_or_all(case_id, every, workflow, code)

    async def body(circuit: Circuit, terminal: Terminal) -> int:
        from circuit.engine.bulk import ask_each

        tenant = circuit.principal.tenant
        # What fails again meanwhile is not asked a second time.
        began = circuit.engine.now()

        async def asked(entry: IncidentEntry) -> CommandOutcome:
            with circuit.taken(str(entry.key)):
                return await ask(circuit, entry)

        async def page(after: Any) -> Sequence[IncidentEntry]:
            return await circuit.queries.open_incidents(tenant, workflow, code, _PAGE, after, began)

        if case_id is None:
            found = _pages(page, lambda entry: (entry.key.case, entry.incident.number))
            return await _tell(circuit, terminal, await ask_each(found, asked, rate), as_json)
        key = (await circuit.case(case_id)).key
        mine = [
            entry for entry in await circuit.queries.open_incidents(key.tenant, after=(key.case, 0)) if entry.key == key
        ]
        wanted = [entry for entry in mine if number in (None, entry.incident.number)]
        if not wanted:
            which = "no open incident" if number is None else f"no open incident {number}"
            raise NotFound(f"case {case_id} has {which}; `circuit incidents list` lists them")
        if len(wanted) == 1:
            with circuit.taken(str(key)):
                return await _answer(circuit, terminal, key, await ask(circuit, wanted[0]), as_json)
        return await _tell(circuit, terminal, await ask_each(_these(wanted), asked, rate), as_json)

    return _with_circuit(body, as_json=as_json, working=True)


def _one_or_all(one: str | None, every: bool, workflow: str | None, code: str | None) -> None:
    if one is None and not every:
        raise InvalidRequest("name one, or give --all (with --workflow and --code to choose among all).")
    if one is not None and (every or workflow is not None or code is not None):
        raise InvalidRequest("one by its name and --all, --workflow or --code exclude each other.")


async def _these(entries: Sequence[Entry]) -> AsyncIterator[Entry]:
    for entry in entries:
        yield entry


async def _pages(page: Page[Entry], place: Callable[[Entry], Any]) -> AsyncIterator[Entry]:
    """All entries, page by page; each page is read when the one before it is done."""
    after: Any = None
    while found := await page(after):
        for entry in found:
            yield entry
        after = place(found[-1])


async def _answer(circuit: Circuit, terminal: Terminal, key: CaseKey, outcome: CommandOutcome, as_json: bool) -> int:
    """What became of one command; where this process has taken the case, when it rests again."""
    view = await circuit.wait(str(key)) if circuit.busy else await circuit.case(str(key))
    if as_json:
        terminal.result({**outcome.as_dict(), "case_id": view.case_id, "status": view.status.value})
    else:
        error: Any = outcome.result.get("error") or {}
        terminal.line(one_line(f"{outcome.state}{': ' + str(error['message']) if error else ''}"))
        terminal.line(one_line(f"case {view.case_id} {standing(view.status)}: {marking_text(view)}"))
    return 1 if outcome.state == "refused" else 0


async def _tell(circuit: Circuit, terminal: Terminal, tally: Tally, as_json: bool) -> int:
    """What became of many. What this process has taken of them goes on in another worker, or when one comes."""
    if as_json:
        terminal.result(tally.as_dict())
    else:
        terminal.line(
            f"{tally.asked} asked: {tally.applied} applied, {tally.refused} refused, {tally.pending} not answered yet"
        )
        for reason, times in tally.refusals.items():
            terminal.line(one_line(f"  refused {times} x: {reason}"))
    return 1 if tally.refused else 0


def _with_circuit(body: Callable[[Circuit, Terminal], Awaitable[int]], *, as_json: bool, working: bool = False) -> int:
    """Run `body` on an open Circuit; `working`: with a worker for the cases that `body` takes."""
    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()

    async def session() -> int:
        from circuit.app import Circuit

        only: Sequence[str] | None = () if working else None
        async with Circuit.open(settings=settings, worker=working, only=only, progress=terminal.note) as circuit:
            return await body(circuit, terminal)

    return run_session(session, settings)

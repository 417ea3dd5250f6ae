"""`circuit keys` and `circuit tenants`: who may ask the server, and for whom."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit.cli.session import run_session
from circuit.cli.terminal import Terminal, clean
from circuit.definition.field import seconds
from circuit.errors import InvalidRequest
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.engine.keys import KeyRow

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
TenantOption = Annotated[int | None, typer.Option("--tenant", min=1, help="The tenant [default: 1].")]

keys = typer.Typer(rich_markup_mode=None)
tenants = typer.Typer(rich_markup_mode=None)


@keys.callback(invoke_without_command=True)
def about_keys(context: typer.Context) -> None:
    """API keys for `circuit serve`. As soon as there is one, every request needs a credential.

    \b
    Example: circuit keys create deploy --role editor --expires 90d
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for; it shows in histories and logs.")],
    roles: Annotated[
        list[str],
        typer.Option("--role", help="viewer, operator, editor, admin, or a role that a workflow asks for; repeatable."),
    ],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="Only these of its roles' permissions: read, run, operate, edit, administer."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="How long it holds: 90d, 12h [default: for ever].")
    ] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make a key and print it. It is shown this once: only a digest of it is stored.

    \b
    Example: circuit keys create dashboard --role viewer --expires 90d
    """
    lasts = None if expires is None else _lasting(expires)
    terminal = Terminal(json=as_json)

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(worker=False, progress=terminal.note) as circuit:
            made = await circuit.engine.keys.create(
                name, roles, circuit.principal, scopes=scopes, lasts=lasts, tenant=tenant
            )
        if as_json:
            terminal.result({**_key(made.row), "key": made.text})
            return 0
        terminal.line(made.text)
        terminal.note("this is the only time that the key is shown; send it as Authorization: Bearer KEY")
        return 0

    return run_session(body, Settings.from_environment())


@keys.command("list")
def list_keys(tenant: TenantOption = None, as_json: JsonOption = False) -> int:
    """The keys of a tenant, the newest first, revoked ones too.

    \b
    Example: circuit keys list --json
    """
    terminal = Terminal(json=as_json)

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(worker=False, progress=terminal.note) as circuit:
            found = await circuit.engine.keys.listed(circuit.principal, tenant)
        if as_json:
            terminal.result({"keys": [_key(row) for row in found]})
            return 0
        for row in found:
            terminal.line(f"{row.id}  {_state(row):8}  {','.join(row.roles):20}  {clean(row.name)}")
        if not found:
            terminal.note("there are no keys; circuit keys create makes one")
        return 0

    return run_session(body, Settings.from_environment())


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `circuit keys list` shows.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> int:
    """End a key for good. Servers that know it take it for five seconds more.

    \b
    Example: circuit keys revoke mfrggzdfmztwq2lk
    """
    terminal = Terminal(json=as_json)

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(worker=False, progress=terminal.note) as circuit:
            row = await circuit.engine.keys.revoke(key_id, circuit.principal, tenant)
        terminal.result(_key(row)) if as_json else terminal.line(f"{row.id} ({clean(row.name)}) is revoked")
        return 0

    return run_session(body, Settings.from_environment())


@tenants.callback(invoke_without_command=True)
def about_tenants(context: typer.Context) -> None:
    """Make and list tenants. Each sees its own workflows, cases and streams, and nothing else; the database holds it.

    \b
    Example: circuit tenants create acme
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@tenants.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="Its name.")],
    as_json: JsonOption = False,
) -> int:
    """Make a tenant and print its number. `circuit keys create --tenant` takes it.

    \b
    Example: circuit tenants create acme
    """
    terminal = Terminal(json=as_json)

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(worker=False, progress=terminal.note) as circuit:
            made = await circuit.engine.keys.create_tenant(name, circuit.principal)
        terminal.result({"tenant": made.id, "name": made.name}) if as_json else terminal.line(f"{made.id}")
        return 0

    return run_session(body, Settings.from_environment())


@tenants.command("list")
def list_tenants(as_json: JsonOption = False) -> int:
    """All tenants, by number.

    \b
    Example: circuit tenants list
    """
    terminal = Terminal(json=as_json)

    async def body() -> int:
        from circuit.app import Circuit

        async with Circuit.open(worker=False, progress=terminal.note) as circuit:
            found = await circuit.engine.keys.tenants()
        if as_json:
            terminal.result({"tenants": [{"tenant": row.id, "name": row.name} for row in found]})
            return 0
        for row in found:
            terminal.line(f"{row.id:6}  {clean(row.name)}")
        return 0

    return run_session(body, Settings.from_environment())


def _lasting(text: str) -> timedelta:
    try:
        return timedelta(seconds=seconds(text))
    except ValueError:
        raise InvalidRequest(f"--expires is {text[:40]!r}; write a duration: 12h, 90d, PT1H") from None


def _key(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "tenant": row.tenant,
        "roles": list(row.roles),
        "scopes": None if row.scopes is None else list(row.scopes),
        "created_at": row.created_at.isoformat(),
        "created_by": row.created_by,
        "expires_at": None if row.expires_at is None else row.expires_at.isoformat(),
        "revoked_at": None if row.revoked_at is None else row.revoked_at.isoformat(),
    }


def _state(row: KeyRow) -> str:
    from datetime import UTC, datetime

    if row.revoked_at is not None:
        return "revoked"
    return "holds" if row.holds(datetime.now(UTC)) else "expired"

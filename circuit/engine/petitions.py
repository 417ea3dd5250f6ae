"""A petition: a command on its way to a case. It becomes a row, the case's owner applies it, and whoever asked waits
for the result, up to a time, and has the command's id after that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from circuit.engine.asking import check_idempotency_key
from circuit.engine.hints import Hints
from circuit.engine.rates import StartRates
from circuit.errors import Conflict, NotFound
from circuit.ids import CaseKey, IdSource
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import commands, ledger, listing
from circuit.storage.database import Database
from circuit.storage.records import CaseRow, CommandRow, CommandState

DEFAULT_WAIT_SECONDS = 10.0

_NEEDS: dict[str, Permission] = {
    "retry": Permission.OPERATE,
    "resolve": Permission.OPERATE,
    "put_back": Permission.OPERATE,
    "modify": Permission.OPERATE,
    "migrate": Permission.EDIT,
    "cancel": Permission.OPERATE,
}
"""What a command takes, by its kind; every other takes the permission to run cases."""
_ABOUT = ("transition", "firing", "incident", "token")
"""What of a command stands in the audit log: never what it carries."""


class OutcomeState(StrEnum):
    """What became of a command. `PENDING`: it is accepted, and its case's owner has not come to it yet."""

    APPLIED = "applied"
    REFUSED = "refused"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """`result` is what the owner wrote; where it refused, `{"error": {code, message, retryable}}`."""

    state: OutcomeState
    result: Mapping[str, Any]
    id: UUID

    def as_dict(self) -> dict[str, Any]:
        return {"command_id": str(self.id), "state": self.state.value, "result": dict(self.result)}


class Petitions:
    """Where commands for cases are put down, and their outcomes are waited for. `counted` says against which rate one
    counts, if against any."""

    def __init__(
        self,
        database: Database,
        ids: IdSource,
        hints: Hints,
        counted: Callable[[CaseKey, CaseRow, str, Mapping[str, Any]], Awaitable[StartRates | None]],
    ) -> None:
        self._database = database
        self._ids = ids
        self._hints = hints
        self._counted = counted

    async def ask(
        self,
        key: CaseKey,
        kind: str,
        payload: Mapping[str, Any],
        principal: Principal,
        idempotency_key: str | None,
        wait_seconds: float,
        check: Callable[[CaseRow], Any] | None = None,
    ) -> CommandOutcome:
        """Put a command to a case. Raises `NotFound`, `Conflict`, `Forbidden` and `TooManyRequests`."""
        # What a person may do where a workflow asks for him depends on what it asks: `check` says.
        if check is None:
            principal.require(_NEEDS.get(kind, Permission.RUN))
        check_idempotency_key(idempotency_key)
        if key.tenant != principal.tenant:
            raise NotFound(f"there is no case {key}")
        async with self._database.transaction(key.tenant) as connection:
            row = await listing.find_case(connection, key)
        if row is None:
            raise NotFound(f"there is no case {key}; `circuit cases` lists them")
        # Asked again with the same key, even a case that has ended meanwhile answers as it did the first time.
        if row.status.terminal and idempotency_key is None:
            raise Conflict(f"case {key} is {row.status.value}: nothing changes it any more")
        if check is not None:
            await check(row)
        rate = await self._counted(key, row, kind, payload)
        command = CommandRow(self._ids.uuid(), kind, payload, self._hints.signed(principal))
        async with self._database.transaction(key.tenant) as connection:
            asked = await commands.insert_command(connection, key, command, idempotency_key=idempotency_key)
            if asked == command.id:
                if rate is not None:
                    await rate.check(principal, connection)
                about = {name: payload[name] for name in _ABOUT if payload.get(name) is not None}
                await ledger.note(connection, principal, f"case.{kind}", key, command=str(asked), **about)
        self._hints.work()
        return await self.outcome(key, asked, wait_seconds)

    async def outcome(self, key: CaseKey, command: UUID, wait_seconds: float = 0) -> CommandOutcome:
        """What became of a command, waited for up to `wait_seconds`. Raises `NotFound`."""
        channel = self._hints.broker.hold(str(key.case))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        try:
            while True:
                rung = channel.rung
                async with self._database.transaction(key.tenant) as connection:
                    found = await commands.command_result(connection, key, command)
                if found is None:
                    raise NotFound(f"case {key} has no command {command}")
                left = deadline - loop.time()
                if found.state is not CommandState.PENDING or left <= 0:
                    return CommandOutcome(OutcomeState(found.state.value), found.result, found.id)
                await channel.changed(rung, min(left, self._hints.relay.pause(fed=False)))
        finally:
            self._hints.broker.release(channel)

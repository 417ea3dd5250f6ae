"""Messages from outside, as they are sent and seen.

A message is stored, and brought to the case that waits for it (of several, to the one that has waited longest). One
that no case waits for starts a case, where a workflow says so, or is kept for its lifetime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from circuit.engine.asking import stored_object
from circuit.engine.hints import Hints
from circuit.engine.opening import TokenInput, open_case, traced
from circuit.engine.payload import storable_text
from circuit.engine.rates import StartRates
from circuit.engine.versions import VersionKey, Versions
from circuit.engine.views import instant
from circuit.errors import Conflict, InvalidRequest, NotFound
from circuit.ids import CaseKey, IdSource
from circuit.net.reception import key_parts, message_key
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import commands, ledger, messages, workflows
from circuit.storage.database import Database, TenantConnection
from circuit.storage.messages import MessageRow
from circuit.storage.records import NewCase

DEFAULT_LIFETIME_SECONDS = 7 * 86_400.0
LONGEST_LIFETIME_SECONDS = 366 * 86_400.0
DEFAULT_WAIT_SECONDS = 10.0
LONGEST_NAME = 200
LONGEST_KEY = 1_000
MOST_MESSAGES = 1_000
STATES = ("new", "kept", "assigned", "delivered", "refused", "expired")


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message. `state`: it is `new`, `kept` until a case waits for it, `assigned` to a case that has not answered,
    `delivered` to one (or it started one), `refused` as it does not fit, `expired`. `duplicate`: it was sent before."""

    id: str
    name: str
    key: str
    delivery_id: str
    state: str
    data: Mapping[str, Any]
    sender: str
    sent_at: datetime | None
    expires_at: datetime
    case_id: str | None
    error: Mapping[str, Any] | None
    duplicate: bool = False

    @classmethod
    def of(cls, row: MessageRow, *, duplicate: bool = False) -> MessageView:
        return cls(
            str(row.message_id),
            row.name,
            row.key,
            row.delivery_id,
            row.state,
            row.data,
            str(row.principal.get("subject", "")),
            row.sent_at,
            row.expires_at,
            None if row.case_id is None else str(row.case_id),
            row.error,
            duplicate,
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of its key."""
        return key_parts(self.key)

    @property
    def settled(self) -> bool:
        """Whether it is certain what becomes of it, until a case waits for it."""
        return self.state not in ("new", "assigned")

    def as_dict(self) -> dict[str, Any]:
        return {
            "message_id": self.id,
            "name": self.name,
            "key": list(self.parts),
            "delivery_id": self.delivery_id,
            "state": self.state,
            "case_id": self.case_id,
            "sent_at": None if self.sent_at is None else instant(self.sent_at),
            "expires_at": instant(self.expires_at),
            "sender": self.sender,
            "data": dict(self.data),
            "error": self.error,
            "duplicate": self.duplicate,
        }


class Messages:
    """Sends messages, and says what became of them. Each method acts in the tenant of its principal."""

    def __init__(
        self,
        database: Database,
        versions: Versions,
        ids: IdSource,
        now: Callable[[], datetime],
        hints: Hints,
        starts: StartRates | None = None,
    ) -> None:
        self._starts = starts
        self._database = database
        self._versions = versions
        self._ids = ids
        self._now = now
        self._hints = hints

    async def send(
        self,
        name: str,
        data: Mapping[str, Any] | None = None,
        *,
        principal: Principal,
        key: Collection[str | int] = (),
        delivery_id: str | None = None,
        lifetime_seconds: float | None = None,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
        placed: bool = False,
    ) -> MessageView:
        """Send a message with its `key` (several parts, where transitions correlate by several paths).

        With a `delivery_id` it counts once, however often it is sent, for as long as its lifetime: who sends it again
        is told what became of it. Waits up to `wait_seconds` for that; `placed`: only until a case has it. Raises
        `InvalidRequest`, `PayloadTooLarge`, `Forbidden`, `Conflict` for a delivery id that came with another message,
        and `TokenRefused` where it would start a case whose first place does not take it.
        """
        principal.require(Permission.RUN)
        lifetime = timedelta(seconds=_lifetime(lifetime_seconds))
        spelt = _checked(name, key, delivery_id)
        filled = stored_object(dict(data or {}), "the message")
        identity = self._ids.uuid()
        row = MessageRow(
            identity,
            name,
            spelt,
            delivery_id or str(identity),
            filled,
            self._hints.signed(principal),
            "new",
            self._now() + lifetime,
        )
        async with self._database.transaction(principal.tenant) as connection:
            stored, new = await self._store(connection, row, lifetime, principal)
            if new:
                await ledger.note(connection, principal, "message.send", stored.message_id, name=name)
        if not new and (stored.key != spelt or stored.data != filled):
            raise Conflict(f"the delivery id {delivery_id!r} came with another message {name} before; use a new one")
        self._hints.work()
        return await self.outcome(principal, stored.message_id, wait_seconds, placed=placed, duplicate=not new)

    async def outcome(
        self,
        principal: Principal,
        message: UUID,
        wait_seconds: float = 0,
        *,
        placed: bool = False,
        duplicate: bool = False,
    ) -> MessageView:
        """What became of a message, waited for up to `wait_seconds`; `placed`: only until a case has it. Raises
        `NotFound`, `Forbidden`."""
        principal.require(Permission.READ)
        channel = self._hints.broker.hold(str(message))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        try:
            while True:
                rung = channel.rung
                async with self._database.transaction(principal.tenant) as connection:
                    found = await messages.find(connection, principal.tenant, message)
                if found is None:
                    raise NotFound(f"there is no message {message} (any more)")
                view = MessageView.of(found, duplicate=duplicate)
                left = deadline - loop.time()
                if view.settled or (placed and view.case_id is not None) or left <= 0:
                    return view
                await channel.changed(rung, min(left, self._hints.relay.pause(fed=False)))
        finally:
            self._hints.broker.release(channel)

    async def list(
        self,
        principal: Principal,
        *,
        name: str | None = None,
        state: str | None = None,
        limit: int = 50,
        before: UUID | None = None,
    ) -> list[MessageView]:
        """Messages, the newest first; `before` is the last one of the page before. Raises `InvalidRequest`."""
        principal.require(Permission.READ)
        if not 1 <= limit <= MOST_MESSAGES:
            raise InvalidRequest(f"a page of messages has 1 to {MOST_MESSAGES} messages, not {limit}")
        if state is not None and state not in STATES:
            raise InvalidRequest(f"there is no state {state!r} of a message; there are {', '.join(STATES)}")
        async with self._database.transaction(principal.tenant) as connection:
            found = await messages.list_messages(
                connection,
                principal.tenant,
                name=name,
                states=() if state is None else (state,),
                limit=limit,
                before=before,
            )
        return [MessageView.of(row) for row in found]

    async def _store(
        self, connection: TenantConnection, row: MessageRow, lifetime: timedelta, principal: Principal
    ) -> tuple[MessageRow, bool]:
        """Store a message, and where it starts a case, that case with it."""
        new = await self._started(connection, row, principal)
        if new is None:
            return await messages.insert_message(connection, principal.tenant, row, lifetime)
        delivered = replace(row, state="delivered", case_id=new.key.case)
        stored, is_new = await messages.insert_message(connection, principal.tenant, delivered, lifetime)
        if is_new:
            await commands.write_case(connection, new)
            await ledger.note(connection, principal, "case.start", new.key, workflow=new.row.workflow_id)
        return stored, is_new

    async def _started(self, connection: TenantConnection, row: MessageRow, principal: Principal) -> NewCase | None:
        """The case that a message starts, if one is to."""
        tenant = principal.tenant
        workflow_id = await workflows.started_by(connection, tenant, row.name)
        if workflow_id is None or await messages.is_awaited(connection, tenant, row.name, row.key):
            return None
        current = await workflows.current(connection, tenant, workflow_id)
        if current is None:
            return None
        workflow = self._versions.compiled(VersionKey(tenant, workflow_id, current.hash), current.document)
        if workflow.start_message != row.name:
            return None
        if self._starts is not None and workflow.agents:
            await self._starts.check(principal, connection)
        metadata = {"message": {"id": str(row.message_id), "name": row.name, "delivery_id": row.delivery_id}}
        case = CaseKey(tenant, self._ids.uuid())
        new = open_case(workflow, TokenInput(row.data, metadata), case, self._now(), principal.subject)
        return traced(new, self._hints.caller())


def _lifetime(seconds: float | None) -> float:
    given = DEFAULT_LIFETIME_SECONDS if seconds is None else seconds
    if not 0 < given <= LONGEST_LIFETIME_SECONDS:
        raise InvalidRequest(f"the lifetime of a message is more than 0 and at most {LONGEST_LIFETIME_SECONDS:g} s")
    return given


def _checked(name: str, key: Collection[str | int], delivery_id: str | None) -> str:
    """The key as it is stored. Raises `InvalidRequest`."""
    if not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
        raise InvalidRequest(f"the name of a message has 1 to {LONGEST_NAME} printable characters")
    if delivery_id is not None and not (0 < len(delivery_id) <= LONGEST_NAME and delivery_id.isprintable()):
        raise InvalidRequest(f"a delivery id has 1 to {LONGEST_NAME} printable characters")
    storable = all(not isinstance(part, str) or storable_text(part) for part in key)
    spelt = message_key(list(key)) if storable else None
    if spelt is None or len(spelt) > LONGEST_KEY:
        raise InvalidRequest(
            f"the key of a message is text or whole numbers, of {LONGEST_KEY} characters at most in all"
        )
    return spelt

"""The outbox as its consumers read it: at least once, in order, from a mark that is kept for each of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from circuit.engine.views import instant
from circuit.errors import InvalidRequest, NotFound
from circuit.storage import outbox
from circuit.storage.database import Database
from circuit.storage.outbox import BEGINNING as BEGINNING
from circuit.storage.outbox import Mark as Mark
from circuit.storage.outbox import Message as Message

PAGE = 200
POLL_SECONDS = 0.5
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class ConsumerView:
    """A consumer, and how far it has come."""

    name: str
    mark: Mark
    updated_at: datetime

    def as_dict(self) -> dict[str, Any]:
        return {"consumer": self.name, "mark": str(self.mark), "updated_at": instant(self.updated_at)}


def shown(message: Message) -> dict[str, Any]:
    """A message as JSON has it."""
    return {
        "mark": str(message.mark),
        "case_id": str(message.key.case),
        "seq": message.seq,
        "workflow": message.workflow_id,
        "kind": message.kind,
        "at": instant(message.at),
        "event": dict(message.body),
    }


def mark(text: str) -> Mark:
    """The mark that `text` writes. Raises `InvalidRequest`."""
    found = outbox.parse_mark(text)
    if found is None:
        raise InvalidRequest(
            f"{text!r} is no mark of the outbox; `circuit outbox tail --json` prints one beside each event"
        )
    return found


class Outbox:
    """The outbox of one tenant."""

    def __init__(self, database: Database, tenant: int) -> None:
        self._database = database
        self._tenant = tenant

    async def read(self, after: Mark = BEGINNING, limit: int = PAGE) -> list[Message]:
        """Up to `limit` messages behind `after`. Nothing is remembered."""
        async with self._database.transaction(self._tenant) as connection:
            return await outbox.read(connection, self._tenant, after, limit)

    async def messages(
        self,
        consumer: str,
        *,
        start: Mark | None = None,
        workflows: Collection[str] = (),
        kinds: Collection[str] = (),
        follow: bool = True,
        poll_seconds: float = POLL_SECONDS,
    ) -> AsyncGenerator[Message]:
        """The messages behind the mark of `consumer`, then what comes; without `follow` only what is there.

        A message counts as taken when the next one is asked for, and its mark is stored with the page: after a crash
        some come again, and none is lost. `start` puts the mark elsewhere first. One process at a time reads as one
        consumer. Every consumer keeps the messages that it has not taken; `forget` ends that.
        """
        if not (0 < len(consumer) <= LONGEST_NAME and consumer.isprintable()):
            raise InvalidRequest(f"the name of a consumer has 1 to {LONGEST_NAME} printable characters")
        taken = stored = await self._begin(consumer, start)
        walk = self._walk(taken, follow, poll_seconds)
        try:
            async for page in walk:
                for message in page:
                    if _wanted(message, workflows, kinds):
                        yield message
                    taken = message.mark
                if taken != stored:
                    stored = await self._store(consumer, taken)
        finally:
            await walk.aclose()
            if taken != stored:
                await self._store(consumer, taken)

    async def look(
        self,
        after: Mark = BEGINNING,
        *,
        workflows: Collection[str] = (),
        kinds: Collection[str] = (),
        follow: bool = False,
        poll_seconds: float = POLL_SECONDS,
    ) -> AsyncGenerator[Message]:
        """The messages behind a mark, for somebody who is no consumer: nothing is remembered, and nothing kept."""
        async with aclosing(self._walk(after, follow, poll_seconds)) as walk:
            async for page in walk:
                for message in page:
                    if _wanted(message, workflows, kinds):
                        yield message

    async def consumers(self) -> Sequence[ConsumerView]:
        """Who reads this outbox, and how far each has come."""
        async with self._database.transaction(self._tenant) as connection:
            return [ConsumerView(*found) for found in await outbox.consumers(connection, self._tenant)]

    async def forget(self, consumer: str) -> None:
        """Remove a consumer. Raises `NotFound`."""
        async with self._database.transaction(self._tenant) as connection:
            if not await outbox.forget(connection, self._tenant, consumer):
                raise NotFound(
                    f"there is no consumer {consumer!r} of the outbox; `circuit outbox consumers` lists them"
                )

    async def _walk(self, after: Mark, follow: bool, poll_seconds: float) -> AsyncGenerator[list[Message]]:
        """Page after page."""
        rng = random.Random()
        while True:
            page = await self.read(after)
            if page:
                yield page
                after = page[-1].mark
            if len(page) < PAGE:
                if not follow:
                    return
                await asyncio.sleep(poll_seconds * rng.uniform(0.5, 1.0))

    async def _begin(self, consumer: str, start: Mark | None) -> Mark:
        async with self._database.transaction(self._tenant) as connection:
            if start is not None:
                await outbox.move(connection, self._tenant, consumer, start, back=True)
                return start
            found = await outbox.mark_of(connection, self._tenant, consumer)
            if found is None:
                # From now on what it has not taken is kept for it.
                await outbox.move(connection, self._tenant, consumer, BEGINNING)
                return BEGINNING
            return found

    async def _store(self, consumer: str, taken: Mark) -> Mark:
        async with self._database.transaction(self._tenant) as connection:
            await outbox.move(connection, self._tenant, consumer, taken)
        async with self._database.transaction(self._tenant) as connection:
            await outbox.trim(connection, self._tenant)
        return taken


def _wanted(message: Message, workflows: Collection[str], kinds: Collection[str]) -> bool:
    return (not workflows or message.workflow_id in workflows) and (not kinds or message.kind in kinds)

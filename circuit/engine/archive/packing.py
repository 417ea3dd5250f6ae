"""Gives back the room of streams that were compacted: what is left of a week is written anew, in the old one's place.

Deleted rows leave their room to new ones of the same partition, and to a week that is over nobody adds anything. So
when all of its cases have ended its partition is copied, in order, and exchanged. Only the exchange needs a lock that
others wait for; it is waited for a fifth of a second at most, and then tried again.
"""

from __future__ import annotations

from collections.abc import Callable

from circuit.engine.archive.patience import others_ended, until
from circuit.errors import Conflict
from circuit.storage import archive, compaction
from circuit.storage.driver import Connection
from circuit.storage.partitions import Week

LEAST_SHARE = 0.2
"""A week is packed where so much of what it had went."""


async def pack(connection: Connection, week: Week, gone: int, told: Callable[[str], None]) -> bool:
    """Pack a week of which so many frames have gone, and all cases have ended. False where that cannot be now: others
    use the week without end, or the archive is at work. That and erasures, which take its lock, are all that could
    change anything of the week meanwhile."""
    if not await archive.lock(connection):
        return False
    try:
        await compaction.forget_copies(connection)
        if not gone or gone < LEAST_SHARE * (gone + await compaction.stored(connection, week)):
            return True
        before = await compaction.size(connection, week)
        if before is None or not await compaction.copy(connection, week):
            return True
        # Whoever looks with an older snapshot would not see the rows of the copy.
        await others_ended(connection)
        await until(lambda: compaction.exchange(connection, week), "streams")
        after = await compaction.size(connection, week) or 0
        told(f"week {week.suffix}: its streams take {after:,} bytes on the disk, before {before:,}")
        return True
    except Conflict as busy:
        told(f"week {week.suffix}: its streams are not packed now: {busy.message}")
        await compaction.forget_copies(connection)
        return False
    finally:
        await archive.unlock(connection)

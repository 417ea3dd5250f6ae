"""What an execution of an archived case said: its stream, from the files of its week."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from circuit.engine.archive.round import Archive
from circuit.errors import StreamRetired
from circuit.events import Frame, StreamType
from circuit.ids import CaseKey, Numbered
from circuit.streams.cursor import Cursor
from circuit.streams.merging import rest


@dataclass(frozen=True, slots=True)
class ArchivedStream:
    """The frames of an execution behind a cursor, in order, and how it ended; `place` is where its week lies."""

    place: str
    transition: str
    status: str
    frames: Sequence[Frame]


async def archived_stream(archive: Archive, key: CaseKey, firing: int, after: Cursor) -> ArchivedStream | None:
    """None where the archive holds no such execution. Raises `NotFound` where the files lie elsewhere that may hold it,
    `StreamRetired` where its frames were dropped before its case went, and `ArchiveDamaged`."""
    found = await archive.find(key)
    tables: dict[str, list[dict[str, Any]]] = {} if found is None else found["rows"]
    execution = next((row for row in tables.get("execution", ()) if row["firing"] == firing), None)
    begun = next((row for row in tables.get("firing", ()) if row["number"] == firing), None)
    if found is None or execution is None or begun is None:
        return None
    rows = sorted(
        (row for row in tables.get("stream_event", ()) if row["firing"] == firing),
        key=lambda row: (row["start"], row["seq"]),
    )
    if not rows:
        raise StreamRetired(
            f"the frames of execution {Numbered(key.case, firing)} were dropped before its case was archived;"
            " `circuit archive show` has its end"
        )
    frames = [_frame(row, after) for row in rows if (row["start"], row["seq"]) > after]
    return ArchivedStream(found["archive"], begun["transition"], execution["status"], frames)


def _frame(row: dict[str, Any], after: Cursor) -> Frame:
    """What a row tells behind the cursor."""
    first: int = row["seq"] if row["first_seq"] is None else row["first_seq"]
    frame = Frame(
        row["start"],
        row["seq"],
        StreamType(row["type"]),
        datetime.fromisoformat(row["at"]),
        row["frame"].encode(),
        row["seq"] - first + 1,
    )
    return rest(frame, row["lengths"], after)

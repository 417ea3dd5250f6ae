"""I5: the stored frames of an execution are 1 to n for each start, and an ended one says its end once, at its end."""

from __future__ import annotations

from circuit.engine.audit.case import AuditedCase, Faults
from circuit.engine.audit.fault import LOST
from circuit.storage.records import ExecutionStatus
from circuit.storage.rows import Row


def check(case: AuditedCase) -> Faults:
    """Compare the numbers of the frames with each other and with the status of their execution."""
    status = {row["firing"]: ExecutionStatus(row["status"]) for row in case.rows("execution")}
    starts = {row["number"]: row["start"] for row in case.rows("firing")}
    by_firing: dict[int, list[Row]] = {}
    for row in case.rows("stream_event"):
        by_firing.setdefault(row["firing"], []).append(row)
    for firing, found in by_firing.items():
        if firing not in status:
            yield case.fault("I5", "stream_event", "it belongs to no execution", firing=firing)
            continue
        for row in found:
            if (row["least"], row["most"]) != (1, row["frames"]):
                told = f"{row['frames']} frames are stored, from {row['least']} to {row['most']}"
                yield case.fault("I5", "stream_event", told, LOST, firing=firing, start=row["start"])
            if row["broken"]:
                told = f"{row['broken']} merged frames have other lengths than they hold pieces"
                yield case.fault("I5", "stream_event", told, LOST, firing=firing, start=row["start"])
            if row["start"] > starts.get(firing, row["start"]):
                told = f"its firing is at start {starts[firing]}"
                yield case.fault("I5", "stream_event", told, firing=firing, start=row["start"])
    for firing, state in status.items():
        if case.streams_gone and firing not in by_firing:
            continue
        yield from _end(case, firing, state, by_firing.get(firing, []))


def _end(case: AuditedCase, firing: int, status: ExecutionStatus, found: list[Row]) -> Faults:
    """An execution that completed or failed ends with one terminal frame; any other has none."""
    ends = sum(row["ends"] for row in found)
    if status in (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED):
        if ends != 1:
            told = f"its execution is {status}, and {ends} terminal frames are stored"
            yield case.fault("I5", "stream_event", told, LOST, firing=firing)
        elif found[-1]["last_end"] != found[-1]["most"]:
            yield case.fault("I5", "stream_event", "frames follow on the terminal one", firing=firing)
    elif ends:
        yield case.fault(
            "I5", "stream_event", f"its execution is {status}, and a terminal frame is stored", firing=firing
        )

"""I7: the numbers that a case counts with are those of its rows; a settled command says so in all its columns. I4: the
case is looked for where it stands."""

from __future__ import annotations

from circuit.engine.audit.case import AuditedCase, Faults
from circuit.storage import rows


def check(case: AuditedCase) -> Faults:
    """Compare the counters of the case with its history."""
    replay, row = case.replay, case.row
    expected = {
        "seq": replay.seq,
        "next_token": replay.last_token + 1,
        "next_firing": max(replay.firings, default=0) + 1,
        "next_incident": max(replay.incidents, default=0) + 1,
    }
    for name, value in expected.items():
        if row[name] != value:
            yield case.fault("I7", "case", f"its {name} is {row[name]}; its history says {value}")
    if replay.started is None:
        return
    if row["started_at"] != replay.started_at:
        yield case.fault("I7", "case", "it did not start when its first event says")
    if (row["workflow_id"], row["workflow_hash"]) != (replay.started.workflow, replay.version):
        yield case.fault("I7", "case", f"by its history it is on version {replay.version} of its workflow")
    told = {label: times for label, times in rows.document(row["fired"]).items() if times}
    counted = {label: times for label, times in replay.counted.items() if times}
    if told != counted:
        wrong = f"it says that up to event {row['fired_seq']} there fired {told}; its history says {counted}"
        yield case.fault("I7", "case", wrong)
    if row["ready_at"] is not None and row["ready_bucket"] != row["bucket"]:
        wrong = f"it stands in bucket {row['ready_bucket']}, and its case in {row['bucket']}: others look at it"
        yield case.fault("I4", "ready", wrong, "set its bucket to that of its case")
    for command in case.rows("command"):
        settled = command["state"] != "pending"
        if settled != (command["settled_at"] is not None) or settled != (command["result"] is not None):
            told = f"it is {command['state']} and does not say so in its result and its time"
            yield case.fault("I7", "command", told, command_id=str(command["command_id"]))

"""I7: the numbers that a case counts with are those of its rows; a settled command says so in all its columns."""

from __future__ import annotations

from circuit.engine.audit.case import AuditedCase, Faults


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
    for command in case.rows("command"):
        settled = command["state"] != "pending"
        if settled != (command["settled_at"] is not None) or settled != (command["result"] is not None):
            told = f"it is {command['state']} and does not say so in its result and its time"
            yield case.fault("I7", "command", told, command_id=str(command["command_id"]))

"""I3 and I4: somebody looks after every case that is not over, and nothing is enabled that nobody fires."""

from __future__ import annotations

from typing import Any

from circuit.engine.audit.case import AuditedCase, Faults
from circuit.engine.audit.fault import RECLAIM
from circuit.net.binding import bindings, next_look
from circuit.net.structure import Trigger
from circuit.net.timing import Timer
from circuit.storage import rows
from circuit.storage.records import CaseStatus, FiringState

WAKE = "have it looked at: insert a row for its key into circuit.ready, with due_at = now()"
FREE = "give it free: set its owner to null, and insert a row for its key into circuit.ready; " + RECLAIM


def check(case: AuditedCase) -> Faults:
    """Look for cases that nobody will look at, and for enabled transitions of cases at rest."""
    if case.status.terminal:
        return
    yield from _owned(case)
    if case.row["owner"] is None and case.row["ready_at"] is None:
        yield from _forgotten(case)
    if case.status in (CaseStatus.WAITING, CaseStatus.STUCK, CaseStatus.ATTENTION):
        yield from _enabled(case)


def _owned(case: AuditedCase) -> Faults:
    owner = case.row["owner"]
    if owner is None:
        return
    if case.row["worker_id"] is None:
        yield case.fault("I3", "case", f"it belongs to worker {owner}, which does not exist", FREE)
    elif case.row["fenced"]:
        yield case.fault("I2", "case", f"it belongs to worker {owner}, which is fenced: no write of it counts", FREE)


def _forgotten(case: AuditedCase) -> Faults:
    # A suspended firing that no time wakes is somebody's to wake, and he makes its case ready.
    live = [
        row["number"]
        for row in case.rows("firing")
        if FiringState(row["state"]).live and (row["state"] != FiringState.SUSPENDED or row["wake_at"] is not None)
    ]
    pending = [row for row in case.rows("command") if row["state"] == "pending"]
    for row in pending:
        told = "it waits to be applied, nobody owns its case and nobody will look at it"
        yield case.fault("I3", "command", told, WAKE, command_id=str(row["command_id"]))
    if case.status is CaseStatus.RUNNING:
        yield case.fault("I3", "case", "it is running, nobody owns it and nobody will look at it", WAKE)
    for number in live:
        told = "it lives, nobody owns its case and nobody will look at it"
        yield case.fault("I3", "firing", told, WAKE, number=number)


def _enabled(case: AuditedCase) -> Faults:
    """At rest no immediate transition of a case is enabled: its owner fires them all before it commits."""
    net, marking, workflow = case.replay.net, case.replay.marking, case.workflow
    if net is None or workflow is None or case.row["ready_at"] is not None or case.row["owner"] is not None:
        return
    open_incidents = [rows.incident(row) for row in case.rows("incident") if row["resolved_at"] is None]
    if any(not incident.blocks for incident in open_incidents):
        return  # Circuit gave the whole case up, and says so
    blocked = frozenset((row.transition, frozenset(row.blocks)) for row in open_incidents)
    about: dict[str, Any] = {
        "id": str(case.key.case),
        "workflow_id": case.row["workflow_id"],
        "started_at": case.row["started_at"].isoformat(),
        "fired": {label: case.replay.fired[label] for label in net.labels},
    }
    for name, transition in net.transitions.items():
        if transition.acting or transition.trigger not in (Trigger.AUTO, Trigger.TIMER):
            continue
        if next(bindings(net, marking, name, about, case.now, blocked=blocked), None) is not None:
            yield case.fault("I4", "case", f"{name} is enabled and nobody will fire it", WAKE)
    for name, transition in net.transitions.items():
        if not isinstance(transition.timing, Timer):
            continue
        due = next_look(net, marking, name, about, case.now, blocked)
        if due is not None:
            told = f"{name} is due at {due.isoformat()} and nobody will look at it then"
            yield case.fault("I4", "case", told, WAKE)

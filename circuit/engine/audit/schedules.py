"""I8: an agent runs once on each stay of a token for each time that is due."""

from __future__ import annotations

from collections import Counter

from circuit.engine.audit.case import AuditedCase, Faults
from circuit.engine.audit.fault import LOST
from circuit.storage import rows
from circuit.storage.records import FiringState


def check(case: AuditedCase) -> Faults:
    """Look for two completed runs of the same agent on the same stay of a token for the same time."""
    runs: Counter[tuple[str, int, str, str]] = Counter()
    for row in case.rows("firing"):
        request = rows.document(row["request"])
        refreshed = request.get("refreshed")
        if not refreshed or row["state"] != FiringState.COMPLETED:
            continue
        run = (row["transition"], refreshed[0]["number"], refreshed[0]["entered_at"], request["due"])
        runs[run] += 1
        if runs[run] == 2:
            told = f"{run[0]} has run before on token {run[1]} for what was due at {run[3]}"
            yield case.fault("I8", "firing", told, LOST, number=row["number"])

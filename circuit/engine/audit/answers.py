"""I9: each step of an attempt has at most one recorded answer, and it belongs to a firing that came so far."""

from __future__ import annotations

from circuit.engine.audit.case import AuditedCase, Faults


def check(case: AuditedCase) -> Faults:
    """Look at what the journal holds of each step."""
    attempts = {row["number"]: row["attempt"] for row in case.rows("firing")}
    for row in case.rows("journal"):
        key = {"firing": row["firing"], "attempt": row["attempt"], "step": row["step"]}
        if row["firing"] not in attempts:
            yield case.fault("I9", "journal", "it belongs to no firing", **key)
        elif row["attempt"] > attempts[row["firing"]]:
            yield case.fault("I9", "journal", f"its firing is at attempt {attempts[row['firing']]}", **key)
        if row["answers"] != row["attempts"]:
            told = f"{row['answers']} answers are recorded in {row['attempts']} attempts: its index is broken"
            yield case.fault("I9", "journal", told, "REINDEX TABLE circuit.journal, and look at the disk", **key)

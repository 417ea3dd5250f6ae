"""I7: what the budget of a case says is spent is no less than what its executions say that they used.

It may be more: a call that came to nothing, or that a lost process made, is spent and in no execution's usage.
"""

from __future__ import annotations

from circuit.engine.audit.case import AuditedCase, Faults
from circuit.spend import MICRO
from circuit.storage import rows

RECOUNT = "set what is spent to what the executions used (`circuit executions show`), or remove the budget"


def check(case: AuditedCase) -> Faults:
    """Compare the budget of the case with the usage of the executions that began since."""
    for budget in case.rows("budget"):
        since = budget["since"]
        charges = [row for row in case.rows("charge") if row["held_at"] >= since]
        usages = [rows.document(row["usage"]) for row in case.rows("execution") if row["started_at"] >= since]
        used = {
            "tokens": sum(int(usage.get(name) or 0) for usage in usages for name in ("input_tokens", "output_tokens")),
            "microdollars": round(sum(float(usage.get("cost_usd") or 0.0) for usage in usages) * MICRO),
        }
        for unit, amount in used.items():
            spent = budget[f"spent_{unit}"] + sum(row[unit] for row in charges)
            if spent < amount:
                told = f"{spent} {unit} are spent of it, and its executions used {amount}"
                yield case.fault("I7", "budget", told, RECOUNT, scope="case", subject=str(case.key.case))

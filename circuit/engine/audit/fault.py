"""What an audit finds: rows that break an invariant, each with its key, what is wrong with it, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuit.ids import CaseKey

MEND = (
    "history is the record: bring the row to what it says, or restore the case from a backup; if nobody wrote to the"
    " database by hand, report it as a fault of Circuit"
)
LOST = "restore the case from a backup, or cancel it with `circuit cancel`; nothing can rebuild what its history lacks"
RECLAIM = "see that a worker runs (`circuit workers`); it takes the case over at its start"


@dataclass(frozen=True, slots=True)
class Fault:
    """One row that breaks an invariant. `key` names the row by the columns of its table's key."""

    invariant: str
    table: str
    key: Mapping[str, Any]
    message: str
    remedy: str

    def __str__(self) -> str:
        where = ", ".join(f"{name}={value}" for name, value in self.key.items())
        return f"{self.invariant}: {self.table} ({where}): {self.message}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "invariant": self.invariant,
            "table": self.table,
            "key": {name: value if isinstance(value, int) else str(value) for name, value in self.key.items()},
            "message": self.message,
            "remedy": self.remedy,
        }


def of_case(invariant: str, case: CaseKey, table: str, message: str, remedy: str = MEND, /, **key: int | str) -> Fault:
    """A fault in a row of a case; `key` are the columns of its key after those of the case."""
    return Fault(invariant, table, {"tenant_id": case.tenant, "case_id": str(case.case), **key}, message, remedy)

"""One case under audit: its rows as they are stored, and what its history says that they must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from circuit.definition.workflow import Workflow
from circuit.engine.audit.fault import MEND, Fault, of_case
from circuit.engine.audit.replay import Replay
from circuit.ids import CaseKey
from circuit.storage.audit import StoredCase
from circuit.storage.records import CaseStatus
from circuit.storage.rows import Row


@dataclass(frozen=True, slots=True)
class AuditedCase:
    """`workflow` is None where its version is not stored or this release cannot compile it; `streams_gone` says that
    the frames of the case's week were dropped by policy."""

    stored: StoredCase
    replay: Replay
    workflow: Workflow | None
    streams_gone: bool = False

    @property
    def key(self) -> CaseKey:
        return self.stored.key

    @property
    def row(self) -> Row:
        return self.stored.row

    @property
    def status(self) -> CaseStatus:
        return CaseStatus(self.row["status"])

    @property
    def now(self) -> datetime:
        return self.stored.now

    def rows(self, table: str) -> Sequence[Row]:
        """The rows of the case in `table`."""
        return self.stored.rows[table]

    def fault(self, invariant: str, table: str, message: str, remedy: str = MEND, /, **key: int | str) -> Fault:
        """A fault in a row of this case."""
        return of_case(invariant, self.key, table, message, remedy, **key)


Faults = Iterator[Fault]

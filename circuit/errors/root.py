"""What all errors have in common, and the faults of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self


class CircuitError(Exception):
    """What all of Circuit's errors are. `code` is stable; `retryable` says whether the same call may work later."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, retry_after: float | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.details = dict(details or {})

    def saying(self, message: str) -> Self:
        """The same error in other words."""
        told = type(self).__new__(type(self), message)
        told.__dict__.update(self.__dict__)
        told.message = message
        return told

    def as_dict(self) -> dict[str, Any]:
        """The error as it goes into rows, frames and answers."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file. Lines and columns count from 1; 0 is nowhere in it."""

    source: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}: " if self.line else f"{self.source}: "
        path = f"{self.path}: " if self.path else ""
        return where + path + self.message + (f" ({self.hint})" if self.hint else "")


class DefinitionError(CircuitError):
    """A workflow that cannot be used, with all of its faults."""

    code = "invalid_definition"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        count = len(self.faults)
        lines = "\n".join(str(fault) for fault in self.faults)
        super().__init__(
            f"{count} fault{'' if count == 1 else 's'}:\n{lines}",
            details={
                "faults": [
                    {
                        "file": fault.source,
                        "line": fault.line,
                        "column": fault.column,
                        "path": fault.path,
                        "message": fault.message,
                        "hint": fault.hint,
                    }
                    for fault in self.faults
                ]
            },
        )

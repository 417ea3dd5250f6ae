"""What a proof says: proven, violated (with the run that shows it), or unknown (with the reason)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Answer(StrEnum):
    PROVEN = "proven"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer. `method` says how it was found; `trace` names the transitions of a run from the initial marking that
    shows it; `witness` holds what else shows it; `reason` is for people, and never empty where the answer is unknown.
    """

    answer: Answer
    method: str
    reason: str = ""
    trace: Sequence[str] | None = None
    witness: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seconds: float = 0.0

    @property
    def proven(self) -> bool:
        return self.answer is Answer.PROVEN

    @property
    def violated(self) -> bool:
        return self.answer is Answer.VIOLATED

    @property
    def unknown(self) -> bool:
        return self.answer is Answer.UNKNOWN

    def timed(self, seconds: float) -> Verdict:
        return replace(self, seconds=seconds)

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON has it."""
        found: dict[str, Any] = {"verdict": self.answer.value, "method": self.method}
        if self.reason:
            found["reason"] = self.reason
        if self.trace is not None:
            found["trace"] = list(self.trace)
        if self.witness:
            found["witness"] = dict(self.witness)
        return found | {"seconds": round(self.seconds, 6)}


def proven(method: str, reason: str = "", **witness: Any) -> Verdict:
    return Verdict(Answer.PROVEN, method, reason, witness=witness)


def violated(method: str, reason: str, trace: Sequence[str] | None = None, **witness: Any) -> Verdict:
    return Verdict(Answer.VIOLATED, method, reason, trace, witness)


def unknown(method: str, reason: str) -> Verdict:
    return Verdict(Answer.UNKNOWN, method, reason)

"""Where an execution's result comes from: versions of agent, prompt and model, each answer with its raw usage, and what
people said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from circuit.engine.views import ExecutionView, instant
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import CaseKey, parse_numbered
from circuit.storage.feedback import FeedbackRow
from circuit.storage.records import ANSWERS

LONGEST_COMMENT = 10_000


@dataclass(frozen=True, slots=True)
class FeedbackView:
    """What `subject` said of an execution. What a score means is for those who give it; more is better."""

    id: str
    score: float | None
    comment: str
    subject: str
    at: datetime

    @classmethod
    def of(cls, row: FeedbackRow) -> FeedbackView:
        return cls(str(row.id), row.score, row.comment, row.subject, row.at)

    def as_dict(self) -> dict[str, Any]:
        return {
            "feedback_id": self.id,
            "score": self.score,
            "comment": self.comment,
            "by": self.subject,
            "at": instant(self.at),
        }


@dataclass(frozen=True, slots=True)
class AnswerView:
    """A recorded answer: of which attempt and step, by which model, with its usage, and what it cost in US dollars
    (None where no price is known). `agent`, `provider` and `asked` say who asked for which model where, `finish` and
    `detail` how it came to its end, and `raw_usage` is the provider's own account. `cached`: no model was asked, for an
    identical request had been answered before."""

    attempt: int
    step: str
    at: datetime
    model: str | None
    usage: Mapping[str, Any]
    cached: bool = False
    cost: float | None = None
    agent: str | None = None
    provider: str | None = None
    asked: str | None = None
    finish: str | None = None
    detail: str | None = None
    raw_usage: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def as_dict(self) -> dict[str, Any]:
        return {
            "attempt": self.attempt,
            "step": self.step,
            "at": instant(self.at),
            "agent_id": self.agent,
            "provider": self.provider,
            "model_asked": self.asked,
            "model": self.model,
            "finish": self.finish,
            "detail": self.detail,
            "usage": dict(self.usage),
            "raw_usage": dict(self.raw_usage),
            "cached": self.cached,
            "cost_usd": self.cost,
        }


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """An execution with all that explains its result. `attempts` and `starts` count tries and starts of its firing."""

    execution: ExecutionView
    case_id: str
    workflow_id: str
    workflow_hash: str
    attempts: int
    starts: int
    crashes: int
    answers: Sequence[AnswerView]
    feedback: Sequence[FeedbackView]

    @property
    def cost(self) -> float | None:
        """What all of its recorded answers cost."""
        return cost_of(self.answers)

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.execution.as_dict(),
            "case_id": self.case_id,
            "workflow": self.workflow_id,
            "workflow_hash": self.workflow_hash,
            "attempts": self.attempts,
            "starts": self.starts,
            "crashes": self.crashes,
            "cost_usd": self.cost,
            "provenance": dict(self.execution.descriptor),
            "answers": [answer.as_dict() for answer in self.answers],
            "feedback": [one.as_dict() for one in self.feedback],
        }


def cost_of(answers: Sequence[AnswerView]) -> float | None:
    """What answers cost in US dollars, those of attempts that failed too; None where no price is known of any."""
    known = [answer.cost for answer in answers if answer.cost is not None]
    return round(sum(known), 9) if known else None


def answer_view(attempt: int, step: str, at: datetime, value: Any) -> AnswerView:
    """What a row of the journal tells. A step that is no model's answer has no model and no usage."""
    told: Mapping[str, Any] = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    # A step that an action keeps may say anything under these names.
    if not step.startswith(ANSWERS):
        return AnswerView(attempt, step, at, None, {})

    def text(name: str) -> str | None:
        value = told.get(name)
        return value if isinstance(value, str) and value else None

    def account(name: str) -> Mapping[str, Any]:
        value = told.get(name)
        return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

    return AnswerView(
        attempt,
        step,
        at,
        text("model"),
        account("usage"),
        told.get("cached") is True,
        float(told["cost"]) if isinstance(told.get("cost"), int | float) else None,
        text("agent"),
        text("provider"),
        text("asked"),
        text("finish"),
        text("detail"),
        account("raw_usage"),
    )


def check_feedback(score: float | None, comment: str) -> None:
    """Raise `InvalidRequest` for feedback that says nothing or cannot be kept."""
    if score is None and not comment.strip():
        raise InvalidRequest("feedback needs a score or a comment")
    if score is not None and not math.isfinite(score):
        raise InvalidRequest("a score is a finite number")
    if len(comment) > LONGEST_COMMENT:
        raise InvalidRequest(f"a comment has {LONGEST_COMMENT:,} characters at most, not {len(comment):,}")
    if "\0" in comment:
        raise InvalidRequest("a comment holds no NUL")


def execution_key(execution_id: str, tenant: int) -> tuple[CaseKey, int]:
    """The case and the firing that an id of an execution names. Raises `InvalidRequest`."""
    numbered = parse_numbered(execution_id)
    if numbered is None:
        raise InvalidRequest(f"{execution_id!r} is not the id of an execution, CASE.NUMBER.")
    return CaseKey(tenant, numbered.case), numbered.number


def found_record(execution_id: str, found: ExecutionRecord | None) -> ExecutionRecord:
    """`found`, if it is there. Raises `NotFound`."""
    if found is None:
        raise NotFound(f"there is no execution {execution_id}; `circuit show CASE` lists those of a case")
    return found

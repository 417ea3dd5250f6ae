"""What a worker says of its cases to a trace: each start of an action, each firing without one, incidents, and the case
itself when it has ended.

Only what is committed is said of the net, so nothing of it is said twice, whoever takes a case over. A start is said by
whoever runs it; one whose process dies is not heard of again, and the next start says that it is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from uuid import UUID

from circuit.engine.action import ActionCall
from circuit.engine.execution import Ended
from circuit.engine.firings import Start
from circuit.events import CaseEnded, TransitionFired
from circuit.ids import CaseKey
from circuit.storage.records import CaseStatus, CaseWrite
from circuit.tracing import Context, Span, Tracer, Value, context_of

CASE_FAILED = "case_failed"


@lru_cache(maxsize=16_384)
def _context(case: UUID, traceparent: str | None) -> Context:
    return context_of(case, Context.parse(traceparent))


class CaseTrace:
    """Says what `worker` does for its cases."""

    def __init__(self, tracer: Tracer, worker: UUID) -> None:
        self._tracer = tracer
        self._worker = str(worker)

    def begun(self, start: Start) -> Span:
        """An action starts."""
        call = start.call
        attributes = self._named(call.key, call.workflow_id, call.transition)
        attributes |= {
            "circuit.execution.id": call.execution_id,
            "circuit.action": call.kind,
            "circuit.attempt": call.attempt,
            "circuit.start": call.start,
            "circuit.reason": start.reason or "first",
        }
        return self._tracer.begin(
            f"fire {call.transition}", attributes, parent=self._case(call), links=_links(start.callers)
        )

    @staticmethod
    def ended(span: Span, ended: Ended) -> None:
        """The action of a start has ended."""
        if ended.suspended is not None:
            span.set({"circuit.awaits": ended.suspended.kind})
        span.set({"circuit.outcome": ended.outcome})
        span.end(ended.error or ended.interrupted)

    def written(self, write: CaseWrite, callers: Sequence[str]) -> None:
        """A step of a case is committed."""
        row, key = write.row, write.key
        for at, event in write.events:
            if isinstance(event, TransitionFired):
                if event.firing is None:
                    parent = _context(key.case, row.traceparent)
                    attributes = self._named(key, row.workflow_id, event.transition)
                    name = f"fire {event.transition}"
                    self._tracer.note(name, attributes, parent=parent, began=at, ended=at, links=_links(callers))
            elif isinstance(event, CaseEnded):
                self._ended(write, event)
        for incident in write.incidents_opened:
            attributes = self._named(key, row.workflow_id, incident.transition)
            attributes["circuit.incident"] = incident.number
            self._tracer.note(
                f"incident {incident.transition}",
                attributes,
                parent=_context(key.case, row.traceparent),
                began=incident.raised_at,
                ended=incident.raised_at,
                error=incident.code,
            )

    def _ended(self, write: CaseWrite, event: CaseEnded) -> None:
        """The span of the whole case, which nobody could hold open."""
        row, case = write.row, write.key.case
        attributes = self._named(write.key, row.workflow_id) | {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": row.workflow_id,
            "circuit.workflow.hash": row.workflow_hash,
            "circuit.status": event.status,
        }
        self._tracer.note(
            f"invoke_workflow {row.workflow_id}",
            attributes,
            parent=Context.parse(row.traceparent),
            began=row.started_at,
            ended=row.finished_at or row.started_at,
            own=_context(case, row.traceparent),
            error=CASE_FAILED if event.status == CaseStatus.FAILED else "",
        )

    def _named(self, key: CaseKey, workflow_id: str, transition: str | None = None) -> dict[str, Value]:
        named: dict[str, Value] = {
            "circuit.case.id": str(key),
            "circuit.tenant.id": key.tenant,
            "circuit.workflow.id": workflow_id,
            "circuit.worker.id": self._worker,
        }
        if transition is not None:
            named["circuit.transition"] = transition
        return named

    @staticmethod
    def _case(call: ActionCall) -> Context:
        return _context(call.key.case, call.traceparent)


def _links(callers: Sequence[str]) -> list[Context]:
    return [context for text in callers if (context := Context.parse(text)) is not None]

"""Cases that other cases opened: what a child tells its parent, and a parent its children.

Both are commands, written in the commit in which they become true: a child that ends tells the firing that opened it, a
firing that ends without its child cancels that. Their ids follow from who sends them, so that each is there once,
whoever works it out again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import orjson

from circuit.engine.draft import Draft
from circuit.engine.payload import PAYLOAD_LIMIT
from circuit.ids import CaseKey
from circuit.storage.records import AskedRow, CaseState, CaseStatus

if TYPE_CHECKING:
    from circuit.engine.memory import LiveFiring, Memory

CHILD = "case"
"""Where what a suspended firing awaits names the case that it opened."""
MOST_TOKENS = 1_000
"""So many tokens of a child its parent gets."""
DEEPEST = 16
"""How deep cases that open cases may lie in one another."""

KIN = {"subject": "circuit"}
"""Who sends these commands."""


def tell_parent(memory: Memory, status: CaseStatus, reason: str, draft: Draft) -> None:
    """The case ends with this step: the firing that opened it hears how, and what lies in it then, but for records."""
    parent = memory.row.parent
    if parent is None:
        return
    result: dict[str, Any] = {"status": status.value, "reason": reason, "tokens": []}
    if status is CaseStatus.COMPLETED:
        tokens = sorted(
            (
                token
                for place in memory.marking.places()
                if not memory.net.places[place].record
                for token in memory.marking.tokens(place)
            ),
            key=lambda token: token.number,
        )
        laid = [{"place": one.place, "data": one.data, "metadata": one.metadata} for one in tokens]
        if len(laid) > MOST_TOKENS:
            result["excess"] = f"it ended with {len(laid)} tokens; at most {MOST_TOKENS} are handed on"
        elif len(orjson.dumps(laid)) > PAYLOAD_LIMIT:
            result["excess"] = f"its tokens have more than {PAYLOAD_LIMIT} bytes of JSON"
        else:
            result["tokens"] = laid
    payload = {"firing": parent.firing, "case": str(memory.key), "result": result}
    draft.ask(AskedRow(parent.case, uuid5(memory.key.case, "ended"), "child_ended", payload, KIN))


def cancel_child(memory: Memory, live: LiveFiring, why: str, draft: Draft) -> None:
    """A firing does not wait any more for the case that it opened, if it does: that case is cancelled."""
    awaits = live.row.awaits or {}
    if CHILD not in awaits:
        return
    child = UUID(awaits[CHILD])
    payload = {"reason": f"{why} ({memory.execution_id(live.row.number)})"}
    draft.ask(AskedRow(child, uuid5(child, "cancelled by its parent"), "cancel", payload, KIN))


def children_of(state: CaseState) -> Iterator[CaseKey]:
    """The cases that firings of this case wait for."""
    for row in state.firings:
        if row.awaits is not None and CHILD in row.awaits:
            yield CaseKey(state.key.tenant, UUID(row.awaits[CHILD]))

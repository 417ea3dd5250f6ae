"""Firings that wait without a worker: for what, until when, and what a signal does.

All of it lies in the journal of the firing's attempt, where the first write of a step counts:

    $wait:KEY    how the wait KEY ended: the payload of a signal and who sent it, or that its time was up
    $signal:N    a signal that came before its firing waited, kept until the firing waits for it

So a wait ends once, whatever is sent twice or is lost, and the start that follows finds how it ended as it finds every
other answer. A new attempt after a failure takes these steps along: what somebody said is not asked for again.

What allows the call of a tool is for this call alone: a signal without its key counts only while that call waits, and
is never kept for another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from circuit.engine import kinship
from circuit.engine.action import lasting
from circuit.engine.draft import Draft
from circuit.engine.kinship import CHILD
from circuit.errors import Conflict, Forbidden, InvalidRequest, NotFound
from circuit.events import FiringSuspended
from circuit.net.colour import Colour
from circuit.security.principal import Principal
from circuit.storage.records import FiringState, JournalRow

if TYPE_CHECKING:
    from circuit.engine.action import Suspended
    from circuit.engine.memory import LiveFiring, Memory

WAIT = "$wait:"
SIGNAL = "$signal:"
MOST_KEPT = 100
APPROVAL = "tool_approval"
"""The kind of waits for somebody who allows the call of a tool."""
TASK_KIND = "human"
"""The kind of waits for what a person does where a workflow asks for him."""


def suspend(memory: Memory, live: LiveFiring, wait: Suspended, recorded: Mapping[str, Any], draft: Draft) -> None:
    """The firing waits from now on; `recorded` is what its start has journalled. A signal that was kept for this ends
    the wait at once. Raises `Conflict` where this wait of the attempt is over already."""
    journal = memory.journal.setdefault(live.row.number, {})
    for step, value in recorded.items():
        journal.setdefault(step, value)
    if WAIT + wait.key in journal:
        raise Conflict(f"{live.row.transition} waits a second time for {wait.key!r}: give each wait a key of its own")
    awaits: dict[str, Any] = {
        "kind": wait.kind,
        "key": wait.key,
        "payload": wait.payload,
        "since": draft.now.isoformat(),
    }
    if wait.roles:
        awaits["roles"] = sorted(wait.roles)
    if wait.form is not None:
        awaits["form"] = wait.form
    if wait.opens is not None:
        awaits[CHILD] = str(wait.opens.key)
        draft.open_case(wait.opens)
    wake_at = None if wait.timeout_seconds is None else draft.now + timedelta(seconds=wait.timeout_seconds)
    memory.change(live, draft, state=FiringState.SUSPENDED, awaits=awaits, wake_at=wake_at)
    row = live.row
    execution = memory.execution_id(row.number)
    draft.record(FiringSuspended(row.transition, row.number, execution, wait.kind, wait.key, wake_at))
    if wait.opens is not None:
        # The end of that case is waited for, and no signal counts.
        return
    for number, kept in _kept(journal):
        sender = Principal.from_json(kept["principal"], memory.key.tenant)
        meant = (wait.key,) if wait.kind == APPROVAL else (None, wait.key)
        if kept["key"] in meant and _refusal(awaits, kept["payload"], sender) is None:
            _end(memory, live, {"payload": kept["payload"], "principal": sender.subject, "signal": number}, draft)
            return


def over(memory: Memory, live: LiveFiring, draft: Draft) -> bool:
    """Whether the wait of a suspended firing is over: a signal has come, or its time is up."""
    row = live.row
    if how_it_ended(memory, live) is not None:
        return True
    if row.wake_at is None or row.wake_at > draft.now:
        return False
    draft.rely(row.wake_at)
    kinship.cancel_child(memory, live, "its time is up", draft)
    _end(memory, live, {"payload": None, "principal": None, "timed_out": True}, draft)
    return True


def how_it_ended(memory: Memory, live: LiveFiring) -> Mapping[str, Any] | None:
    """What the journal holds of the end of the wait that this firing is in."""
    awaits = live.row.awaits or {}
    return memory.journal.get(live.row.number, {}).get(WAIT + awaits.get("key", ""))


def signal(
    memory: Memory, number: int, key: str | None, payload: Any, principal: Principal, draft: Draft
) -> tuple[LiveFiring, bool]:
    """Give a signal to a firing. Returns the firing, and whether that ended its wait; else the signal is kept until the
    firing waits for it. Without a key it is meant for what the firing waits for now, or next.

    Raises `NotFound`, `Conflict` for a firing or a wait that is over, `Forbidden`, `InvalidRequest`.
    """
    live = memory.firings.get(number)
    if live is None:
        if not 1 <= number < memory.row.next_firing:
            raise NotFound(f"case {memory.key} has no firing {number}")
        raise Conflict(f"firing {number} of case {memory.key} has ended: it waits for nothing any more")
    journal = memory.journal.setdefault(number, {})
    awaits = live.row.awaits
    if awaits is not None and CHILD in awaits:
        raise Conflict(f"firing {number} waits for the end of case {awaits[CHILD]}, and for no signal")
    if awaits is not None and key in (None, awaits["key"]) and how_it_ended(memory, live) is None:
        refusal = _refusal(awaits, payload, principal)
        if refusal is not None:
            raise refusal
        _end(memory, live, {"payload": payload, "principal": principal.subject}, draft)
        return live, True
    if key is not None and WAIT + key in journal:
        raise Conflict(f"firing {number} has had its signal {key!r} already")
    if key is None and any(value.get("kind") == APPROVAL for step, value in journal.items() if step.startswith(WAIT)):
        raise Conflict(
            f"firing {number} waits for nothing now: the call of a tool that waited is answered, and what is said to"
            " one counts for no other"
        )
    kept = [one for _, one in _kept(journal)]
    if any(one["key"] == key for one in kept):
        which = "a signal without a key" if key is None else f"a signal {key!r}"
        raise Conflict(f"{which} for firing {number} is kept already, until the firing waits for it")
    if len(kept) >= MOST_KEPT:
        raise Conflict(f"{MOST_KEPT} signals are kept for firing {number}, and it has not waited for them yet")
    count = sum(step.startswith(SIGNAL) for step in journal)
    value = {"key": key, "payload": payload, "principal": principal.as_dict()}
    _record(memory, live, f"{SIGNAL}{count + 1}", value, draft)
    return live, False


def child_ended(memory: Memory, number: int, case: str, result: Mapping[str, Any], draft: Draft) -> LiveFiring:
    """The case has ended that a firing opened. Raises `Conflict` where the firing does not wait for it (any more)."""
    live = memory.firings.get(number)
    awaits = live.row.awaits if live is not None else None
    if live is None or awaits is None or awaits.get(CHILD) != case or how_it_ended(memory, live) is not None:
        raise Conflict(f"firing {number} of case {memory.key} does not wait for case {case} (any more)")
    _end(memory, live, {"payload": {"case": case, "result": result}, "principal": None}, draft)
    return live


def take_along(memory: Memory, live: LiveFiring, draft: Draft) -> None:
    """The firing has a new attempt, whose journal begins with the waits and signals of the one before, and with the
    steps that count in every attempt."""
    before = memory.journal.pop(live.row.number, {})
    for step, value in before.items():
        if step.startswith((WAIT, SIGNAL)):
            _record(memory, live, step, value, draft)
        elif lasting(step):
            memory.journal.setdefault(live.row.number, {})[step] = value


def _kept(journal: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The signals that are kept and no wait has taken, in the order in which they came."""
    taken = {value.get("signal") for step, value in journal.items() if step.startswith(WAIT)}
    numbers = sorted(int(step.removeprefix(SIGNAL)) for step in journal if step.startswith(SIGNAL))
    for number in numbers:
        if number not in taken:
            yield number, journal[f"{SIGNAL}{number}"]


def _refusal(awaits: Mapping[str, Any], payload: Any, principal: Principal) -> Forbidden | InvalidRequest | None:
    """Why this payload of this sender does not end the wait."""
    roles: list[str] = awaits.get("roles", [])
    what = "the task" if awaits["kind"] == TASK_KIND else f"what {awaits['kind']} waits for"
    if not principal.may(roles):
        return Forbidden(f"{what} asks for one of the roles {', '.join(roles)}")
    if awaits.get("form") is not None and (faults := Colour("form", awaits["form"]).faults(payload)):
        return InvalidRequest(f"what was sent does not fit {what}: {'; '.join(faults)}")
    return None


def _end(memory: Memory, live: LiveFiring, value: Mapping[str, Any], draft: Draft) -> None:
    awaits = live.row.awaits
    assert awaits is not None
    kind = {"kind": APPROVAL} if awaits["kind"] == APPROVAL else {}
    _record(memory, live, WAIT + awaits["key"], {**value, **kind}, draft)


def _record(memory: Memory, live: LiveFiring, step: str, value: Mapping[str, Any], draft: Draft) -> None:
    memory.journal.setdefault(live.row.number, {})[step] = value
    draft.journal(JournalRow(live.row.number, live.row.attempt, step, value))

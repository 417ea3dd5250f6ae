"""The messages that a case waits for, and which of its transitions takes one.

Each step says which messages (by name and key) would fire something now; what that adds to or takes from the step
before is written with it, so that whoever has a message finds its case by one look into an index.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from circuit.engine.draft import Draft
from circuit.engine.memory import Memory
from circuit.errors import InvalidRequest
from circuit.net.binding import Binding, bindings
from circuit.storage.records import AwaitedMessage
from circuit.value import dataclass

MOST_AWAITED = 1_000
"""For how many different keys one transition of a case waits at once; the tokens that came first have them."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is given to a case."""

    id: str
    name: str
    key: str
    data: Mapping[str, Any]

    @classmethod
    def of_json(cls, payload: Mapping[str, Any]) -> Message:
        """The message that a command holds. Raises `InvalidRequest`."""
        identity, name, key, data = (payload.get(part) for part in ("message", "name", "key", "data"))
        if not (isinstance(identity, str) and isinstance(name, str) and isinstance(key, str)):
            raise InvalidRequest("a command of the kind message needs a message (its id), a name and a key, all text")
        if not isinstance(data, dict):
            raise InvalidRequest("the data of a message is an object")
        return cls(identity, name, key, data)


def awaited(memory: Memory, now: datetime) -> frozenset[AwaitedMessage]:
    """What the case waits for as it stands."""
    if memory.row.status.terminal:
        return frozenset()
    found: set[AwaitedMessage] = set()
    for name in memory.net.receiving:
        reception = memory.net.transitions[name].reception
        assert reception is not None
        keys: set[str] = set()
        for binding in bindings(memory.net, memory.marking, name, memory.case, now, blocked=memory.blocked):
            key = reception.key(binding.scope(memory.case))
            if key is not None:
                keys.add(key)
            if len(keys) == MOST_AWAITED or not reception.correlate:
                break
        found.update(AwaitedMessage(name, reception.name, key) for key in keys)
    return frozenset(found)


def look(memory: Memory, draft: Draft) -> None:
    """See what the case waits for after this step, and write down what changed."""
    now_awaited = awaited(memory, draft.now)
    if now_awaited != memory.awaited:
        draft.await_messages(sorted(now_awaited - memory.awaited), sorted(memory.awaited - now_awaited))
        memory.awaited = now_awaited


def receiver(memory: Memory, message: Message, now: datetime) -> Binding | None:
    """The binding that a message fires: of the transitions that wait for it the one of the highest priority, with the
    tokens that came first."""
    for name in memory.net.receiving:
        reception = memory.net.transitions[name].reception
        if reception is None or reception.name != message.name:
            continue
        for binding in bindings(memory.net, memory.marking, name, memory.case, now, blocked=memory.blocked):
            if reception.key(binding.scope(memory.case)) == message.key:
                return binding
            if not reception.correlate:
                break
    return None

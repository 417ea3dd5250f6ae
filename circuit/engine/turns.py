"""Executions that wait for a slot, and whose turn is next: the tenants in turn, of each its cases in turn, of each the
oldest first. So a case with a thousand firings keeps nobody waiting who has one."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from circuit.engine.firings import Start
from circuit.ids import CaseKey


class Turns:
    """A queue of starts that is fair to tenants and to cases."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[int, OrderedDict[CaseKey, deque[Start]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, start: Start) -> None:
        """Wait for a turn."""
        key = start.call.key
        cases = self._tenants.setdefault(key.tenant, OrderedDict())
        cases.setdefault(key, deque()).append(start)
        self._count += 1

    def take(self, may: Callable[[Start], bool]) -> Start | None:
        """The first start in turn that `may` begin, or None. Its tenant and its case go to the end of their rows."""
        for tenant, cases in self._tenants.items():
            for key, starts in cases.items():
                if not may(starts[0]):
                    continue
                start = starts.popleft()
                self._count -= 1
                cases.move_to_end(key)
                if not starts:
                    del cases[key]
                self._tenants.move_to_end(tenant)
                if not cases:
                    del self._tenants[tenant]
                return start
        return None

    def __iter__(self) -> Iterator[Start]:
        return (start for cases in self._tenants.values() for starts in cases.values() for start in starts)

    def remove(self, key: CaseKey, firing: int | None = None) -> list[Start]:
        """Forget what waits of a case, or of one firing of it. Returns what that is."""
        cases = self._tenants.get(key.tenant, {})
        starts = cases.pop(key, None)
        if starts is None:
            return []
        left = deque(start for start in starts if firing not in (None, start.call.firing))
        self._count -= len(starts) - len(left)
        if left:
            cases[key] = left
        elif not cases:
            del self._tenants[key.tenant]
        return [start for start in starts if start not in left]

    def clear(self) -> None:
        """Forget all that waits."""
        self._tenants.clear()
        self._count = 0

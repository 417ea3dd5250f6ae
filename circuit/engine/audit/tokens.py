"""I1 and I3: the tokens that lie in the places are those that history leaves, each held by the firing that holds it."""

from __future__ import annotations

from circuit.engine.audit.case import AuditedCase, Faults
from circuit.engine.audit.fault import LOST
from circuit.net.marking import Token
from circuit.storage import rows


def check(case: AuditedCase) -> Faults:
    """Compare `token` with the marking that the replay came to."""
    marking = case.replay.marking
    left = {token.number: token for token in marking.all()}
    for row in case.rows("token"):
        number: int = row["number"]
        expected = left.pop(number, None)
        if expected is None:
            yield case.fault("I1", "token", "it lies here, and history produced or left no such token", number=number)
            continue
        wrong = _difference(rows.token(row), expected)
        if wrong is not None:
            yield case.fault("I1", "token", wrong, number=number)
        holder, told = row["reserved_by"], marking.reserved_by(number)
        if holder != told:
            yield case.fault(
                "I3", "token", f"{_held(holder)} holds it; by its history {_held(told)} does", number=number
            )
    for number, token in left.items():
        where = f"history leaves it in {token.place} at version {token.version}, and it is not there"
        yield case.fault("I1", "token", where, LOST, number=number)


def _difference(found: Token, expected: Token) -> str | None:
    if (found.version, found.place) != (expected.version, expected.place):
        return (
            f"it lies in {found.place} at version {found.version}; history leaves it in {expected.place} at version"
            f" {expected.version}"
        )
    for name in ("data", "metadata", "entered_at"):
        if getattr(found, name) != getattr(expected, name):
            return f"its {name} is not what history produced"
    return None


def _held(firing: int | None) -> str:
    return "nothing" if firing is None else f"firing {firing}"

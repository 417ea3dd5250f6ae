"""Which calls of models their budgets allow: a pure decision, in the order of asking.

A call is held at the most that it may cost. Where that is more than is left although nothing else were going on, it is
refused; where only calls that go on stand in its way, it waits, for they will most likely cost less. Nobody is passed
over: behind one that waits, others do not take from the same budget.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from circuit.errors import BudgetExhausted, BudgetUnbounded, FiringError
from circuit.spend import MICRO, NOTHING, Spend, dollars
from circuit.storage.charges import Asked, Budget, BudgetKey, Charge

_UNITS = ("calls", "tokens", "microdollars")
_PERIODS = {None: "", "day": " of this day", "month": " of this month"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the calls that asked: `free` are those to which no budget applies, `refused` says why. The others
    wait."""

    granted: list[Asked] = field(default_factory=list[Asked])
    free: list[Asked] = field(default_factory=list[Asked])
    refused: list[tuple[Asked, FiringError]] = field(default_factory=list[tuple[Asked, FiringError]])


def judge(
    budgets: Mapping[BudgetKey, Budget], asked: Sequence[Asked], held: Collection[Charge] = frozenset()
) -> Verdict:
    """The verdict on what is asked, the oldest first, with the budgets that there are of theirs. What is `held` already
    is granted, and counted among what they hold."""
    verdict = Verdict()
    taken: dict[BudgetKey, Spend] = {}
    kept: set[BudgetKey] = set()
    for one in asked:
        drawn = [budgets[key] for key in one.budgets if key in budgets]
        if not drawn:
            verdict.free.append(one)
            continue
        if one.charge in held:
            verdict.granted.append(one)
            continue
        error = next((error for budget in drawn if (error := _refusal(budget, one.most)) is not None), None)
        if error is not None:
            verdict.refused.append((one, error))
        elif any(b.key in kept for b in drawn) or not all(_fits(b, taken.get(b.key, NOTHING), one.most) for b in drawn):
            kept.update(budget.key for budget in drawn)
        else:
            for budget in drawn:
                taken[budget.key] = taken.get(budget.key, NOTHING) + one.most
            verdict.granted.append(one)
    return verdict


def named(key: BudgetKey) -> str:
    """A budget as people call it."""
    return "the budget of the tenant" if key.scope == "tenant" else f"the budget of {key.scope} {key.subject}"


def amount(unit: str, number: int) -> str:
    """An amount of a unit, for people."""
    return f"{dollars(number)} USD" if unit == "microdollars" else f"{number:,} {unit}"


def _fits(budget: Budget, taken: Spend, most: Spend) -> bool:
    """Whether what the call may cost is left, beside what others hold and were granted in this same go."""
    for unit in _UNITS:
        limit = getattr(budget.limits, unit)
        if limit is None:
            continue
        used = getattr(budget.spent, unit) + getattr(budget.held, unit) + (getattr(taken, unit) or 0)
        if used + getattr(most, unit) > limit:
            return False
    return True


def _refusal(budget: Budget, most: Spend) -> FiringError | None:
    """Why the call cannot be made, whatever becomes of those that go on."""
    for unit in _UNITS:
        limit = getattr(budget.limits, unit)
        if limit is None:
            continue
        needed: int | None = getattr(most, unit)
        if needed is None:
            return BudgetUnbounded(_unbounded(budget, unit))
        if getattr(budget.spent, unit) + needed > limit:
            return _exhausted(budget, unit, limit, needed)
    return None


def _unbounded(budget: Budget, unit: str) -> str:
    what = "a price is known" if unit == "microdollars" else "the answer has a bound"
    how = (
        "name the price of the model (llm_provider.price), or give the budget in calls or tokens"
        if unit == "microdollars"
        else "give the agent llm_config.max_tokens"
    )
    return f"{named(budget.key)} counts {_counted(unit)}, so a call of a model is made only where {what}: {how}"


def _exhausted(budget: Budget, unit: str, limit: int, needed: int) -> BudgetExhausted:
    key, period = budget.key, _PERIODS[budget.period]
    spent, target = getattr(budget.spent, unit), "" if key.scope == "tenant" else f" --{key.scope} {key.subject}"
    option = f"--{'usd' if unit == 'microdollars' else unit}"
    message = (
        f"{named(key)}{period} is used up: {amount(unit, spent)} of {amount(unit, limit)} are spent, and this call may"
        f" cost {amount(unit, needed)}. Raise it (`circuit budgets set{target} {option} ...`) before it is tried again"
    )
    counted = {"limit": limit, "spent": spent, "needed": needed}
    if unit == "microdollars":
        unit, counted = "usd", {name: number / MICRO for name, number in counted.items()}
    whose = {"scope": key.scope, "subject": key.subject, "period": budget.period}
    return BudgetExhausted(message, details={**whose, "unit": unit, **counted})


def _counted(unit: str) -> str:
    return "money" if unit == "microdollars" else unit

"""What a workflow must have proven before it is published: that it is bounded, does not deadlock, and is sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from circuit.definition.proof import DECISIVE, WARNINGS, prove
from circuit.definition.workflow import Workflow
from circuit.errors import DefinitionError
from circuit.net.analysis.limits import Limits

_STATES = 200_000
_SECONDS = 10.0


def admit(workflow: Workflow, source: str, now: Callable[[], float], *, unsound: bool = False) -> list[str]:
    """What is worth a warning in a workflow that is about to be published. `now` gives seconds that only grow.

    Raises `DefinitionError` where it can deadlock, grow without bound or not end, unless an `unsound` one is wanted:
    then these are warnings too. What takes longer than a few seconds to decide is not decided here.
    """
    proof = prove(workflow, Limits(now, _STATES, seconds=_SECONDS), (*DECISIVE, *WARNINGS))
    faults = proof.faults(source)
    if faults and not unsound:
        raise DefinitionError([replace(one, hint="mend it, or use --allow-unsound") for one in faults])
    return [fault.message for fault in faults] + proof.warnings()

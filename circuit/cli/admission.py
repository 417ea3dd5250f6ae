"""What a workflow must have proven before it is published: that it is bounded, does not deadlock, and is sound."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from circuit.errors import DefinitionError

if TYPE_CHECKING:
    from circuit.definition.workflow import Workflow

_STATES = 200_000
_SECONDS = 10.0


def refuse_faulty(workflow: Workflow, source: str, *, allowed: bool) -> list[str]:
    """What is worth a warning in a workflow that is about to be published.

    Raises `DefinitionError` where it can deadlock, grow without bound or not end, unless that is `allowed`: then these
    are warnings too. What takes longer than a few seconds to decide is not decided here.
    """
    from circuit.definition.proof import DECISIVE, WARNINGS, prove
    from circuit.net.analysis.limits import Limits

    proof = prove(workflow, Limits(monotonic, _STATES, seconds=_SECONDS), (*DECISIVE, *WARNINGS))
    faults = proof.faults(source)
    if faults and not allowed:
        raise DefinitionError([replace(one, hint="mend it, or use --allow-unsound") for one in faults])
    return [fault.message for fault in faults] + proof.warnings()

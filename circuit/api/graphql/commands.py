"""What becomes of a command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.scalars import as_json
from circuit.engine.commands import CommandOutcome as Outcome
from circuit.engine.commands import OutcomeState
from circuit.errors import refused


@strawberry.type(description="What became of a command. `PENDING`: the case's owner has not come to it yet.")
class CommandOutcome:
    command_id: str
    state: str
    result: JSON

    @classmethod
    def of(cls, outcome: Outcome) -> CommandOutcome:
        """Raises what the owner refused the command with."""
        if outcome.state is OutcomeState.REFUSED:
            error: Mapping[str, Any] = outcome.result.get("error") or {}
            raise refused(str(error.get("code", "")), str(error.get("message", "the case refused the command")))
        return cls(command_id=str(outcome.id), state=outcome.state.value, result=as_json(dict(outcome.result)))

"""What becomes of a command: answered at once, or looked up later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_key
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json
from circuit.engine.commands import CommandOutcome as Outcome
from circuit.engine.commands import OutcomeState
from circuit.errors import NotFound, refused


@strawberry.type(
    description="What became of a command. `pending`: the case's owner has not come to it yet; ask `command` later."
)
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


@strawberry.type
class CommandQueries:
    @strawberry.field(description="What became of a command that was asked of a case. A refusal comes as its error.")
    async def command(self, info: Resolving, case_id: str, command_id: str) -> CommandOutcome:
        info.context.require_reading()
        try:
            command = UUID(command_id)
        except ValueError:
            raise NotFound("there is no such command; an id of a command is a UUID") from None
        return CommandOutcome.of(await info.context.services.commands.outcome(case_key(info, case_id), command))

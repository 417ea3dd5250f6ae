"""Agents of a place that are asked to run now, whatever their schedules say. Pure, as the owner is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from circuit.engine.asking import stored_object
from circuit.engine.memory import Memory
from circuit.engine.persons import require_places
from circuit.errors import Conflict, InvalidRequest
from circuit.net.binding import Binding, is_blocked
from circuit.net.marking import Token
from circuit.net.structure import Transition
from circuit.security.principal import Principal

KIND = "summon"
MOST_RUNS = 100


def wanted(place: str, agent: str | None, token: int | None) -> Mapping[str, Any]:
    """The command: the agents of this place, or one of them, on all of its tokens, or on one. Raises
    `InvalidRequest`."""
    # What is stored is text that the database takes; the case says what it does not have.
    return stored_object({"place": place, "agent": agent, "token": token}, "the command")


def summon(
    memory: Memory, payload: Mapping[str, Any], principal: Principal, run: Callable[[Binding], int | None]
) -> dict[str, Any]:
    """Have the agents of a place (or one of them) run on its tokens (or one of them), each token with one agent at a
    time. `run` begins a run, and gives its firing.

    Raises `InvalidRequest` for what the workflow does not have, `Forbidden` where the place is for others, and
    `Conflict` where nothing can run.
    """
    place, agent, number = payload.get("place"), payload.get("agent"), payload.get("token")
    if not isinstance(place, str) or place not in memory.net.places:
        raise InvalidRequest(f"workflow {memory.row.workflow_id} has no place {place!r}")
    require_places(memory.net, [place], principal)
    agents = [one for one in memory.net.transitions.values() if one.refresh and one.inputs[0].place == place]
    chosen = [one for one in agents if agent in (None, memory.workflow.actions[one.name].config.get("agent_id"))]
    if not chosen:
        raise InvalidRequest(f"no agent{'' if agent is None else f' {agent!r}'} runs on the tokens of {place}")
    reasons: list[str] = []
    begun: list[str] = []
    for token in memory.marking.tokens(place):
        if number not in (None, token.number) or len(begun) == MOST_RUNS:
            continue
        if (why := _busy(memory, token)) is not None:
            reasons.append(why)
            continue
        for transition in chosen:
            binding = Binding(transition.name, (token,))
            if (why := _refusal(memory, transition, binding)) is not None:
                reasons.append(why)
            elif (firing := run(binding)) is not None:
                begun.append(memory.execution_id(firing))
                break
            else:
                reasons.append(f"{transition.name} could not begin on token {token.number}: its incident says why")
    if not begun:
        which = f"no token lies in {place}" if number is None else f"token {number} does not lie in {place}"
        raise Conflict(f"no agent can run: {'; '.join(reasons[:3]) or which}")
    return {"executions": begun}


def _busy(memory: Memory, token: Token) -> str | None:
    """Why nothing can run on a token now."""
    if memory.marking.reserved_by(token.number) is not None:
        return f"token {token.number} is held by a firing"
    if any(run.firing is not None for run in (token.runs or {}).values()):
        return f"an agent runs on token {token.number} already"
    return None


def _refusal(memory: Memory, transition: Transition, binding: Binding) -> str | None:
    """Why this agent cannot run on this token."""
    number = binding.consumed[0].number
    if is_blocked(binding, memory.blocked):
        return f"an open incident keeps {transition.name} from token {number}"
    if transition.guard is not None:
        verdict = transition.guard.judge(binding.scope(memory.case))
        if not verdict.holds:
            return f"{transition.name} on token {number}: {'; '.join(verdict.reasons)}"
    return None

"""The same request twice: with one idempotency key whatever is asked of a case is done once, and answered the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import invariants
import pytest
from parts import Doing
from running import REVIEW, WITHOUT_WAY_OUT, engine, publish, start, until

from circuit.actions.human import HumanAction
from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.command_rule import _RULES  # pyright: ignore[reportPrivateUsage]
from circuit.engine.engine import Engine
from circuit.engine.views import CaseView
from circuit.errors import ActionFailed, Conflict
from circuit.security.principal import LOCAL
from circuit.storage.database import Database

STEPS = """
workflow: steps
places: {begin: {initial: true}, asked: {}}
agents:
  watcher: {llm_provider: {type: scripted, model: any, responses: ["seen"]}}
transitions:
  turn: {from_places: begin, to_place: begin, trigger: {type: manual}}
  hear: {from_places: begin, to_place: begin, trigger: {type: message, message: told}}
place_agents:
  - {place_id: begin, agent_id: watcher, schedule: {interval_seconds: 3600, max_executions: 9}}
"""
PERSON = """
workflow: person
places: {begin: {initial: true}, end: {terminal: true}}
transitions:
  ask: {from_places: begin, to_place: end, action: {type: human, title: May I}}
"""
AMONG_CASES = ("child_ended", "granted")
"""What only cases and workers tell cases, by ids of their own: the simulation sends these twice."""

Payload = Callable[[CaseView], dict[str, Any]]


def _nothing(case: CaseView) -> dict[str, Any]:
    return {}


def _here(case: CaseView) -> dict[str, Any]:
    return {
        "from": case.workflow_hash,
        "to": "f" * 64,
        "seq": case.history[-1].seq,
        "bucket": 0,
        "places": {},
        "restart": [],
    }


ASKED: dict[str, tuple[str, str, Payload, str]] = {
    "fire": ("steps", "waiting", lambda case: {"transition": "turn", "form": {}}, "transition_fired"),
    "message": (
        "steps",
        "waiting",
        lambda case: {"message": "m", "name": "told", "key": "", "data": {}},
        "transition_fired message_taken",
    ),
    "summon": ("steps", "waiting", lambda case: {"place": "begin"}, "firing_begun"),
    "signal": ("person", "waiting", lambda case: {"firing": 1, "key": None, "payload": {}}, "firing_resumed"),
    "retry": ("review", "attention", _nothing, "incident_resolved"),
    "resolve": (
        "review",
        "attention",
        lambda case: {"incident": 1, "set": {"data.n": 1}},
        "tokens_changed incident_resolved",
    ),
    "put_back": ("letters", "attention", _nothing, "tokens_changed"),
    "modify": (
        "steps",
        "waiting",
        lambda case: {
            "reason": "more",
            "put": [{"place": "asked", "data": {}, "metadata": {}}],
            "take": [],
            "move": [],
            "set": [],
            "cancel_firings": False,
        },
        "tokens_changed",
    ),
    "migrate": ("person", "waiting", _here, "case_migrated"),
    "cancel": ("steps", "waiting", _nothing, "case_ended"),
}
"""For each kind of command: a workflow, where its case rests, what is asked, and the events that tell of who asked."""


@pytest.fixture
async def running(database: Database) -> AsyncIterator[Engine]:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        if call.transition == "review":
            raise ActionFailed("it never works")
        return ActionOutput({"text": "seen"}, text="seen")

    actions = {"agent": Doing(perform), "human": HumanAction()}
    async with engine(database, actions) as opened:
        for text in (STEPS, PERSON, WITHOUT_WAY_OUT, REVIEW.replace("workflow: review", "workflow: letters")):
            await publish(opened, text)
        yield opened


async def _once(running: Engine, kind: str) -> None:
    workflow, status, payload, told_of = ASKED[kind]
    key = await start(running, workflow)
    case = await until(running, key, status)
    asked = payload(case)

    async def ask(changed: dict[str, Any] | None = None) -> Any:
        wanted = asked if changed is None else changed
        return await running.commands.ask(key, kind, wanted, LOCAL, "one key", 20)

    answers = [*await asyncio.gather(ask(), ask(), ask()), await ask()]
    assert {(one.id, one.state.value, str(one.result)) for one in answers} == {
        (answers[0].id, "applied", str(answers[0].result))
    }, kind
    with pytest.raises(Conflict, match="key"):
        await ask({**asked, "incident": 99, "reason": "another"})
    found = await running.queries.case(key)
    assert found is not None
    told = [entry for entry in found.history if getattr(entry.event, "principal", None) == LOCAL.subject]
    assert [entry.kind for entry in told if entry.seq > 1] == told_of.split(), kind


async def test_asked_again_with_the_same_key_it_is_done_once(running: Engine, database_url: str) -> None:
    assert {*ASKED, *AMONG_CASES} == set(_RULES), "a kind of command is not tried"
    for kind in ASKED:
        await _once(running, kind)
    await invariants.check(database_url, at_rest=False)

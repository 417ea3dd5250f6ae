"""Whatever is asked of a case at once, by whomever: one order, each thing once or refused, and a cancel that stays."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from circuit.app import Circuit
from circuit.engine.audit.inspection import inspect_at
from circuit.engine.migrator import Wanted
from circuit.engine.modification import Modification, Move, NewToken
from circuit.errors import CircuitError, Conflict

CASES = 16

FIRST = """
workflow: races
places: {begin: {initial: true}, asked: {}, written: {}, end: {terminal: true}}
agents:
  writer: {llm_provider: {type: scripted, model: one, responses: ["text"], delay_seconds: 0.005}}
transitions:
  ask: {from_places: begin, to_place: asked, action: {type: human, title: Allow it}}
  write: {from_places: asked, to_place: written, agent_execution: {agent_id: writer}}
  send: {from_places: written, to_place: end, trigger: {type: manual}}
"""
SECOND = FIRST.replace("  send:", "  drop: {from_places: written, to_place: end, trigger: {type: manual}}\n  send:")


async def outcome(asked: Any) -> str:
    """What became of it; what a case refuses is refused with a reason."""
    try:
        found = await asked
    except CircuitError as error:
        assert isinstance(error, Conflict), error
        return "refused"
    return str(getattr(found, "state", "done"))


async def pester(opened: Circuit, case: str, random: Random) -> dict[str, str]:
    key, me = opened.key(case), opened.principal
    asked: dict[str, Any] = {
        "cancel": opened.commands.cancel(key, "enough", principal=me),
        "complete": opened.complete(f"{case}.1", {}),
        "move": opened.modify(case, Modification("x", move=[Move(1, "written")], cancel_firings=True)),
        "put": opened.modify(case, Modification("x", put=[NewToken("written")])),
        "send": opened.fire(case, "send"),
        "fork": opened.fork(case),
    }
    names = sorted(asked)
    random.shuffle(names)
    left = set(random.sample(names, 2)) | ({"cancel"} if random.random() < 0.4 else set())
    for name in left:
        asked.pop(name).close()
    found = await asyncio.gather(*(outcome(asked[name]) for name in names if name in asked))
    return dict(zip([name for name in names if name in asked], found, strict=True))


async def test_one_order_and_what_is_cancelled_stays_cancelled(database_url: str) -> None:
    random = Random(7)
    async with Circuit.open(database_url) as first, Circuit.open(database_url) as second:
        await first.load(FIRST)
        cases = [await first.start("races", {"n": n}) for n in range(CASES)]
        await first.load(SECOND)

        async def migrate() -> None:
            report = await second.migrator.migrate(Wanted("races", restart=True), principal=second.principal)
            assert report.pending == 0

        asked = [pester((first, second)[n % 2], case, random) for n, case in enumerate(cases)]
        *found, _ = await asyncio.gather(*asked, migrate())
        # Once more, when all that was under way has had its time.
        for case in cases:
            await first.wait(case)
        for case, became in zip(cases, found, strict=True):
            view = await first.case(case)
            kinds = [event.kind for event in view.history]
            assert kinds.count("case_ended") <= 1
            assert ("case_ended" in kinds) == view.status.terminal
            if became.get("cancel") == "applied":
                assert (view.status.value, kinds[-1]) == ("cancelled", "case_ended")
                assert all(one.status != "running" and one.status != "suspended" for one in view.executions)
                await outcome(first.complete(f"{case}.1", {}))
                assert (await first.case(case)).history == view.history, "nothing changes it any more"
            assert kinds.count("case_migrated") <= 1
            modified = [event for event in view.history if event.kind == "tokens_changed"]
            assert len(modified) == [became.get("move"), became.get("put")].count("applied")
        assert {state for became in found for state in became.values()} >= {"applied", "refused"}
    report = await inspect_at(database_url)
    assert ([str(fault) for fault in report.faults], report.clean) == ([], True)

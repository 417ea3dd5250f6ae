"""Circuit: one worker; in `chain`, `fork` and `alone` each transition has an action that answers at once, so that each
step is committed before the next begins. `immediate` is the chain without actions, whose ten firings are one write, and
`alone-immediate` the same one case after the other; `guarded` is the chain with a CEL guard on each transition. In
`tokens-N` the cases have N tokens each in one place, and one immediate transition takes them away, one by one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from exchange import BRANCHES, LENGTH, PAYLOAD, Run, Task, main, one_by_one

from circuit.app import SystemClock, SystemIds
from circuit.definition import load_workflow
from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.commands import TokenInput
from circuit.engine.engine import Engine
from circuit.engine.worker import WorkerLimits
from circuit.events import CaseEnded
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL
from circuit.storage import schema
from circuit.storage.database import Database

LOOK_SECONDS = 0.05
COMPLETED = """
SELECT count(*) FROM circuit.case WHERE tenant_id = $1 AND case_id >= $2 AND status = 'completed'
"""
MORE_TOKENS = """
INSERT INTO circuit.token (tenant_id, case_id, number, version, place, data, metadata, entered_at)
SELECT tenant_id, case_id, more, 1, place, data, metadata, entered_at
FROM circuit.token, generate_series(2, $3::int) more WHERE tenant_id = $1 AND case_id >= $2
"""
COUNTED = "UPDATE circuit.case SET next_token = $3 + 1 WHERE tenant_id = $1 AND case_id >= $2"


class Instantly:
    """An action that answers at once, in the place of an agent."""

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        return ActionOutput({})


def workflow(scenario: str) -> str:
    """The scenario's net as YAML."""
    acting = "immediate" not in scenario and not scenario.startswith("tokens")
    agent = ", agent_execution: {agent_id: instant}" if acting else ""
    guard = ", conditions: ['data.n > 0']" if scenario == "guarded" else ""
    if scenario == "fork":
        inner = [f"{letter}{index}" for letter in "ab" for index in range(BRANCHES)]
        arcs = [("split", "p0", "[" + ", ".join(inner[:BRANCHES]) + "]")]
        arcs += [(f"branch{index}", f"a{index}", f"b{index}") for index in range(BRANCHES)]
        arcs += [("join", "[" + ", ".join(inner[BRANCHES:]) + "]", "end")]
    elif scenario.startswith("tokens"):
        inner, arcs = [], [("take", "p0", "end")]
    else:
        inner = [f"p{index}" for index in range(1, LENGTH)]
        steps = ["p0", *inner, "end"]
        arcs = [(f"t{index}", steps[index], steps[index + 1]) for index in range(LENGTH)]
    lines = [f"workflow: {scenario}", "places:", "  p0: {initial: true}", "  end: {terminal: true}"]
    lines += [f"  {name}: {{}}" for name in inner]
    if acting:
        lines += ["agents:", "  instant: {llm_provider: {type: scripted, model: none}}"]
    lines.append("transitions:")
    for name, sources, targets in arcs:
        to = "to_places" if targets.startswith("[") else "to_place"
        lines.append(f"  {name}: {{from_places: {sources}, {to}: {targets}{guard}{agent}}}")
    return "\n".join(lines) + "\n"


def engine(database: Database, *, worker: bool) -> Engine:
    clock = SystemClock()
    actions = {"agent": Instantly()}
    limits = WorkerLimits(executions=1_000)
    return Engine(database, actions=actions, clock=clock, ids=SystemIds(clock), worker=worker, limits=limits)


async def prepare(task: Task) -> Run:
    await schema.upgrade(task.url)
    database = await Database.open(task.url)
    asking, working = engine(database, worker=False), engine(database, worker=True)
    net = load_workflow(workflow(task.scenario), f"{task.scenario}.yaml")
    await asking.commands.publish(net, LOCAL)

    async def start(through: Engine) -> CaseKey:
        return await through.commands.start_case(net.id, TokenInput(PAYLOAD, {}), principal=LOCAL)

    async def one() -> None:
        key = await start(working)
        async with aclosing(working.streams.follow(key)) as happenings:
            async for _, _, event in happenings:
                if isinstance(event, CaseEnded):
                    return

    if task.scenario.startswith("alone"):
        await working.start()
        await one()

        async def alone() -> list[float]:
            return await one_by_one(one, task.runs)

        return alone

    tokens = int(task.scenario.partition("-")[2]) if task.scenario.startswith("tokens") else 0
    cases = task.runs * LENGTH // tokens if tokens else task.runs
    keys = [await start(asking) for _ in range(cases)]
    connection = await database.raw()
    if tokens > 1:
        await connection.execute(MORE_TOKENS, *keys[0], tokens)
        await connection.execute(COUNTED, *keys[0], tokens)

    async def run() -> list[float]:
        await working.start()
        while await connection.fetchval(COMPLETED, *keys[0]) < cases:
            await asyncio.sleep(LOOK_SECONDS)
        return []

    return run


if __name__ == "__main__":
    main(prepare)

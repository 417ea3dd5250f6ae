"""A whole engine for a test: on a fresh database, with short leases and actions of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from eventually import eventually
from parts import SystemClock, SystemIds

from circuit.definition import load_workflow
from circuit.definition.workflow import ActionSpec, RetryPolicy, Workflow
from circuit.engine.action import Action
from circuit.engine.commands import TokenInput
from circuit.engine.engine import Engine
from circuit.engine.views import CaseView
from circuit.engine.worker import WorkerLimits
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL
from circuit.storage.database import Database

LIMITS = WorkerLimits(lease_seconds=3.0, executions=50, poll_seconds=0.2, stop_seconds=1.0)
"""A lease that is not lost where the machine does something else for two seconds."""

CHAIN = """
workflow: chain
places: [a, b, c]
transitions:
  first: {from_places: a, to_place: b}
  second: {from_places: b, to_place: c}
"""

REVIEW = """
workflow: review
places:
  open: {initial: true}
  reviewed: {terminal: true}
  broken: {dead_letter: true}
agents:
  reviewer:
    name: Reviewer
    description: Says yes or no.
    llm_provider: {type: scripted, model: any, responses: ["yes"]}
    prompts: {system: You review., user_template: "Review {input_data}"}
    output_schema: {type: object, properties: {answer: {type: string}}}
transitions:
  review:
    from_places: open
    to_place: reviewed
    agent_execution: {agent_id: reviewer, output_mapping: {data.answer: answer}}
    on_failure: broken
"""

WITHOUT_WAY_OUT = REVIEW.replace("    on_failure: broken\n", "").replace("  broken: {dead_letter: true}\n", "")
"""Where a failure raises an incident."""

MANUAL = """
workflow: manual
places: [draft, done]
transitions:
  publish:
    from_places: draft
    to_place: done
    trigger:
      type: manual
      roles: [author]
      form: {type: object, required: [title], properties: {title: {type: string}}}
    output_mapping: {data.title: form.title}
"""


def agent_action(workflow: Workflow, **changes: Any) -> Workflow:
    """The workflow with another retry policy, time limit or `required` for all of its actions."""
    retry = changes.pop("retry", None)
    actions: dict[str, ActionSpec] = {}
    for name, spec in workflow.actions.items():
        actions[name] = replace(spec, **changes, **({"retry": RetryPolicy(*retry)} if retry else {}))
    return replace(workflow, actions=actions)


@asynccontextmanager
async def engine(
    database: Database, actions: Mapping[str, Action] | None = None, **options: Any
) -> AsyncIterator[Engine]:
    """A running engine; stopped in the end."""
    options = {"limits": LIMITS, "clock": SystemClock(), **options}
    running = Engine(database, actions=actions or {}, ids=SystemIds(), **options)
    await asyncio.wait_for(running.start(), 60)
    try:
        yield running
    finally:
        await running.stop()


async def publish(running: Engine, text: str) -> Workflow:
    workflow = load_workflow(text, "test.yaml")
    await running.commands.publish(workflow, LOCAL)
    return workflow


async def start(running: Engine, workflow: str, data: Mapping[str, Any] | None = None) -> CaseKey:
    return await running.commands.start_case(workflow, TokenInput(data or {}), principal=LOCAL)


async def until(running: Engine, key: CaseKey, *statuses: str) -> CaseView:
    """The case when it has one of these statuses."""

    async def look() -> CaseView | None:
        case = await running.queries.case(key)
        return case if case is not None and case.status.value in statuses else None

    found = await eventually(look, what=f"case {key} {' or '.join(statuses)}")
    assert found is not None
    return found

"""What is asked again with its idempotency key: done once, answered alike, and never taken for something else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from asking import operations
from driven import Server, driven

from circuit.settings import Settings

CREATING = ("create", "load", "start", "execute", "fork", "give", "trigger")
"""How the names of mutations begin that make something new."""
KEPT_NOWHERE = {"createStreamToken"}
FLOW = """
workflow: talk
places: {asked: {initial: true}, kept: {}, done: {terminal: true}}
agents: {clerk: {llm_provider: {type: scripted, responses: [Hello.]}}}
transitions:
  say: {from_places: asked, to_place: kept, agent_execution: {agent_id: clerk}}
  end: {from_places: kept, to_place: done, trigger: {type: manual}}
"""
PLACES: list[Any] = [{"id": "a", "initial": True}, {"id": "b", "terminal": True}]
STEPS: list[Any] = [{"id": "t", "fromPlaces": ["a"], "toPlace": "b"}]
START = """mutation ($v: JSON, $models: JSON, $subjects: [String!], $key: String) { startCase(workflowId: "talk",
  token: {data: $v}, models: $models, subjects: $subjects, idempotencyKey: $key) { caseId } }"""


def test_every_mutation_that_creates_takes_a_key() -> None:
    creating = [one for one in operations("mutation") if one.name.startswith(CREATING)]
    assert len(creating) > 10
    for operation in creating:
        keyed = "idempotencyKey" in operation.field.args
        assert keyed != (operation.name in KEPT_NOWHERE), operation.name


async def test_what_is_asked_again_is_done_once(database_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=database_url)
    async with driven(database_url, settings=settings) as server:
        load = "mutation ($v: String!, $key: String) { loadWorkflow(yaml: $v, idempotencyKey: $key) { id hash } }"
        await server.ok(load, v=FLOW)
        case = (await server.ok(START, v={"n": 1}))["caseId"]
        execution = f"{case}.1"
        await server.circuit.wait(case)
        for name, query, same, other in (
            ("load", load, FLOW.replace("talk", "more"), FLOW.replace("talk", "most")),
            (
                "create",
                """mutation ($v: String!, $places: [PlaceInput!]!, $steps: [TransitionInput!]!, $key: String) {
                  createWorkflow(workflow: {id: $v, places: $places, transitions: $steps}, idempotencyKey: $key) {
                    id hash } }""",
                "made",
                "mode",
            ),
            (
                "agent",
                """mutation ($v: String, $key: String) { createAgent(agent: {id: "solo", name: $v,
                  llmProvider: {type: "scripted", responses: ["Yes."]}}, idempotencyKey: $key) { id name hash } }""",
                "one",
                "two",
            ),
            (
                "place",
                """mutation ($v: String!, $key: String) { createPlaceAgentConfig(workflowId: "more",
                  config: {placeId: $v, agentId: "solo"}, idempotencyKey: $key) { id hash } }""",
                "asked",
                "kept",
            ),
            ("start", START, {"n": 1}, {"n": 2}),
            (
                "ask",
                """mutation ($v: JSON!, $key: String) { executeAgent(agentId: "solo", input: $v, idempotencyKey: $key) {
                  executionId } }""",
                "hello",
                "goodbye",
            ),
            (
                "put",
                """mutation ($v: JSON, $key: String) { createToken(workflowId: "talk", token: {data: $v},
                  idempotencyKey: $key) { caseId } }""",
                {"n": 1},
                {"n": 2},
            ),
            (
                "fork",
                f"""mutation ($v: JSON, $key: String) {{ forkCase(caseId: "{case}", models: $v, idempotencyKey: $key) {{
                  caseId }} }}""",
                None,
                {"*": {"type": "scripted", "model": "other"}},
            ),
            (
                "feedback",
                f"""mutation ($v: Float, $key: String) {{ giveFeedback(executionId: "{execution}", score: $v,
                  idempotencyKey: $key) {{ feedbackId score }} }}""",
                1.0,
                0.5,
            ),
            (
                "send",
                'mutation ($v: JSON, $key: String) { sendMessage(name: "m", data: $v, deliveryId: $key) { id } }',
                {"n": 1},
                {"n": 2},
            ),
        ):
            more = {"places": PLACES, "steps": STEPS} if name == "create" else {}
            first = await server.ok(query, v=same, key=name, **more)
            assert await server.ok(query, v=same, key=name, **more) == first, name
            assert await server.code(query, v=other, key=name, **more) == "conflict", name
            at_once = [server.ok(query, v=same, key=f"{name} at once", **more) for _ in range(4)]
            answers = await asyncio.gather(*at_once)
            assert all(one == answers[0] for one in answers), name
        await _starts_differ_in_whatever_they_say(server)
        await _a_fork_of_now_is_the_same_later(server, case)
        await _chat_clients_too(server)


async def _starts_differ_in_whatever_they_say(server: Server) -> None:
    said: dict[str, Any] = {"v": {"n": 1}, "subjects": ["ada"], "models": {"*": {"type": "scripted", "model": "x"}}}
    first = await server.ok(START, **said, key="said")
    assert await server.ok(START, **said, key="said") == first
    for change in ({"subjects": ["eve"]}, {"models": None}, {"v": {"n": 1.5}}):
        assert await server.code(START, **{**said, **change}, key="said") == "conflict", change
    await server.ok('mutation { retireWorkflow(id: "talk") { id } }')
    assert await server.ok(START, **said, key="said") == first
    assert await server.code(START, **{**said, "v": {}}, key="said") == "conflict"
    await server.ok('mutation { retireWorkflow(id: "talk", retired: false) { id } }')


async def _a_fork_of_now_is_the_same_later(server: Server, case: str) -> None:
    """Without `at` a case is forked as it is; by the time somebody asks again it may have moved on."""
    fork = f'mutation {{ forkCase(caseId: "{case}", idempotencyKey: "now") {{ caseId }} }}'
    first = await server.ok(fork)
    await server.ok(f'mutation {{ cancelCase(caseId: "{case}") {{ state }} }}')
    assert await server.ok(fork) == first


async def _chat_clients_too(server: Server) -> None:
    async def ask(text: str, model: str) -> tuple[int, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        answer = await server.client.post(
            f"{server.url}/v1/chat/completions", json=body, headers={"idempotency-key": model}
        )
        return answer.status_code, answer.headers.get("x-circuit-case-id")

    for model in ("agent:solo", "scripted:any", "workflow:made"):
        first = await ask("hello", model)
        assert first[0] == 200
        assert await ask("hello", model) == first
        assert (await ask("goodbye", model))[0] == 409

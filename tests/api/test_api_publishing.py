"""What is published over GraphQL: versions, agents on their own, agents of places; tokens put; what runs when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from driven import Server, driven
from eventually import eventually
from test_api_people import answers

FIRST = """
workflow: letters
places: {draft: {initial: true}, sent: {terminal: true}, spare: {}}
transitions: {send: {from_places: draft, to_place: sent, trigger: {type: manual}}}
"""
SECOND = FIRST.replace("workflow: letters", "workflow: letters\nname: Letters, again")
LOAD = """mutation ($yaml: String!, $key: String) {
  loadWorkflow(yaml: $yaml, idempotencyKey: $key) { id name hash } }"""
START = 'mutation { startCase(workflowId: "letters", token: {data: {n: 1}}) { caseId } }'
AGENT: dict[str, Any] = {
    "id": "greeter",
    "llmProvider": {"type": "scripted", "responses": [{"when": "Ada", "response": "Hello, Ada"}, "Hello"]},
    "prompts": {"system": "Greet.", "userTemplate": "Greet {name}."},
}
CREATE_AGENT = """mutation ($agent: AgentInput!, $key: String) {
  createAgent(agent: $agent, idempotencyKey: $key) { id hash prompts { userTemplate } } }"""


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with driven(database_url) as running:
        yield running


async def test_versions_are_published_again_retired_and_deleted(server: Server) -> None:
    first = await server.ok(LOAD, yaml=FIRST, key="one")
    second = await server.ok(LOAD, yaml=SECOND)
    assert await server.ok(LOAD, yaml=FIRST, key="one") == first
    assert await server.code(LOAD, yaml=SECOND, key="one") == "conflict"
    shown = """{ workflow(id: "letters") {
      hash name yaml svg mermaid retiredAt versions { hash name } } }"""
    current = await server.ok(shown)
    assert current["hash"] == second["hash"], "asked again with its key, nothing is moved"
    assert [one["hash"] for one in current["versions"]] == [second["hash"], first["hash"]]
    assert current["svg"].startswith("<svg") and "send" in current["mermaid"]
    assert (await server.ok(LOAD, yaml=current["yaml"]))["hash"] == second["hash"]
    opens = "action: {type: subworkflow, workflow: none}"
    calls = FIRST.replace("letters", "calls").replace("trigger: {type: manual}", opens)
    assert await server.code(LOAD, yaml=calls) == "invalid_request", "it opens cases of a workflow that there is not"
    old = await server.ok('query ($h: String) { workflow(id: "letters", hash: $h) { name } }', h=first["hash"])
    assert old == {"name": "letters"}

    back = 'mutation ($h: String!) { publishWorkflow(id: "letters", hash: $h) { hash } }'
    assert await server.ok(back, h=first["hash"]) == {"hash": first["hash"]}
    assert (await server.ok(shown))["hash"] == first["hash"]
    assert await server.code(back, h="nothing") == "not_found"

    case = (await server.ok(START))["caseId"]
    retire = 'mutation ($r: Boolean!) { retireWorkflow(id: "letters", retired: $r) { retiredAt } }'
    assert (await server.ok(retire, r=True))["retiredAt"] is not None
    assert await server.code(START) == "conflict"
    assert (await server.ok(retire, r=False))["retiredAt"] is None
    delete = 'mutation { deleteWorkflow(id: "letters") }'
    assert await server.code(delete) == "conflict", "a case of it runs"

    put = """mutation ($case: String, $place: String, $workflow: String, $token: TokenInput!, $key: String) {
      createToken(caseId: $case, placeId: $place, workflowId: $workflow, token: $token, idempotencyKey: $key) {
        caseId tokenId token { place data } } }"""
    made = await server.ok(put, case=case, place="spare", token={"data": {"x": 1}}, key="t")
    assert made == {"caseId": case, "tokenId": f"{case}.2", "token": {"place": "spare", "data": {"x": 1}}}
    assert await server.ok(put, case=case, place="spare", token={"data": {"x": 1}}, key="t") == made
    assert await server.code(put, case=case, place="nowhere", token={}) == "invalid_request"
    assert await server.code(put, case=case, token={}) == "invalid_request"
    begun = await server.ok(put, workflow="letters", token={"data": {"x": 2}}, key="u")
    assert begun["token"] == {"place": "draft", "data": {"x": 2}}
    spare = """query ($after: String) {
      tokensInPlace(workflowId: "letters", placeId: "draft", first: 1, after: $after) { id } }"""
    [one] = await server.ok(spare)
    [other] = await server.ok(spare, after=one["id"])
    assert [one["id"], other["id"]] == [f"{case}.1", begun["tokenId"]]
    assert await server.ok(spare, after=other["id"]) == []

    cancel = "mutation ($id: String!) { cancelCase(caseId: $id) { state } }"
    for ended in (case, begun["caseId"]):
        assert (await server.ok(cancel, id=ended))["state"] == "applied"
    assert await server.ok(delete) is True
    assert await server.code(delete) == "not_found"
    assert await server.code(START) == "not_found"
    assert await server.ok('{ workflow(id: "letters") { id } }') is None
    assert (await server.ok("query ($id: String!) { case(id: $id) { status } }", id=case)) == {"status": "cancelled"}
    assert (await server.ok(LOAD, yaml=FIRST))["hash"] == first["hash"], "it may come back"


async def test_an_agent_is_published_alone_and_asked(server: Server) -> None:
    made = await server.ok(CREATE_AGENT, agent=AGENT, key="a")
    assert await server.ok(CREATE_AGENT, agent=AGENT, key="a") == made
    assert made["prompts"] == {"userTemplate": "Greet {name}."}
    faulty = await server.post(CREATE_AGENT, agent={**AGENT, "llmProvider": {"type": "nobody", "model": "m"}})
    [error] = faulty["errors"]
    assert error["extensions"]["code"] == "invalid_definition" and error["extensions"]["faults"][0]["line"] > 1
    assert await server.code(CREATE_AGENT, agent={**AGENT, "outputSchema": {"const": 10**30}}) == "invalid_definition"

    listed = await server.ok("{ publishedAgents { id hash } }")
    assert listed == [{"id": "greeter", "hash": made["hash"]}] and await server.ok("{ agents { id } }") == []
    assert await server.ok('{ publishedAgents(after: "greeter") { id } }') == []
    assert await server.ok('{ agent(id: "greeter") { hash } }') == {"hash": made["hash"]}
    assert await server.ok('{ agent(id: "nobody") { hash } }') is None

    ask = """mutation ($input: JSON!, $agent: String!, $key: String) {
      executeAgent(agentId: $agent, input: $input, idempotencyKey: $key) {
        executionId caseId agentHash execution { executionId agentId } } }"""
    asked = await server.ok(ask, agent="greeter", input={"name": "Ada"}, key="once")
    assert asked["agentHash"] == made["hash"]
    assert asked["execution"] == {"executionId": asked["executionId"], "agentId": "greeter"}
    assert (await server.ok(ask, agent="greeter", input={"name": "Ada"}, key="once"))["caseId"] == asked["caseId"]
    assert await server.code(ask, agent="nobody", input="x") == "not_found"
    assert await server.code(ask, agent="greeter", input=7) == "invalid_request"
    stream = """subscription ($id: String!) { agentExecutionStream(executionId: $id) {
      eventType content finalResponse } }"""
    async with server.subscribed(stream, id=asked["executionId"]) as values:
        events = [one["agentExecutionStream"] async for one in values]
    assert events[-1]["finalResponse"] == "Hello, Ada"

    gone = 'mutation { deleteAgent(id: "greeter") }'
    assert await server.ok(gone) is True
    assert await server.code(gone) == "not_found"
    assert await server.ok("{ publishedAgents { id } }") == []
    assert await server.code(ask, agent="greeter", input="x") == "not_found"
    again = await server.ok(CREATE_AGENT, agent=AGENT)
    assert again["hash"] == made["hash"]


async def test_an_agent_is_put_on_a_place_and_its_runs_are_known(server: Server) -> None:
    await server.ok(LOAD, yaml=FIRST)
    await server.ok(CREATE_AGENT, agent=AGENT)
    add = """mutation ($config: PlaceAgentConfigInput!, $key: String) {
      createPlaceAgentConfig(workflowId: "letters", config: $config, idempotencyKey: $key) { hash } }"""
    config = {
        "placeId": "draft",
        "agentId": "greeter",
        "inputMapping": {"name": "data.n"},
        "outputMapping": {"data.said": "text"},
        "schedule": {"initialDelaySeconds": 3600, "maxExecutions": 2, "intervalSeconds": 60},
        "retryConfig": {"maxAttempts": 3, "backoffSeconds": 1.5},
    }
    made = await server.ok(add, config=config, key="p")
    assert await server.ok(add, config=config, key="p") == made
    assert await server.code(add, config={**config, "placeId": "sent"}, key="p") == "conflict"
    assert await server.code(add, config={**config, "placeId": "nowhere"}) == "invalid_definition"
    assert await server.code(add, config={**config, "agentId": "nobody"}) == "invalid_definition"
    configs = """query ($place: String) { placeAgentConfigs(placeId: $place) {
      workflow placeId agentId inputMapping schedule { initialDelaySeconds intervalSeconds maxExecutions cron }
      retryConfig { maxAttempts backoffSeconds retryOnErrors } } }"""
    [listed] = await server.ok(configs, place="draft")
    assert listed["schedule"] == {
        "initialDelaySeconds": 3600, "intervalSeconds": 60, "maxExecutions": 2, "cron": None,
    }  # fmt: skip
    assert listed["retryConfig"] == {"maxAttempts": 3, "backoffSeconds": 1.5, "retryOnErrors": []}
    assert await server.ok(configs, place="sent") == []
    agents = await server.ok('{ agents(workflowId: "letters") { id cursor } }')
    assert agents == [{"id": "greeter", "cursor": "letters/greeter"}]
    assert await server.ok('{ agents(after: "letters/greeter") { id } }') == []

    cases = [(await server.ok(START))["caseId"] for _ in range(2)]
    listing = """query ($after: String) { schedules(workflowId: "letters", first: 1, after: $after) {
      cursor caseId dueAt runs { agentId placeId tokenId dueAt runs } } }"""

    async def both_wait() -> bool:
        return len(await server.ok('{ schedules(workflowId: "letters") { caseId } }')) == 2

    await eventually(both_wait)
    [one] = await server.ok(listing)
    [other] = await server.ok(listing, after=one["cursor"])
    assert [one["caseId"], other["caseId"]] == cases
    assert one["runs"] == [
        {"agentId": "greeter", "placeId": "draft", "tokenId": f"{cases[0]}.1", "dueAt": one["dueAt"], "runs": 0}
    ]
    assert await server.code(listing, after="x") == "invalid_request"

    trigger = """mutation ($case: String!, $place: String!, $agent: String, $token: String, $key: String) {
      triggerPlaceAgents(caseId: $case, placeId: $place, agentId: $agent, tokenId: $token, idempotencyKey: $key) {
        state result } }"""
    assert await server.code(trigger, case=cases[0], place="nowhere") == "invalid_request"
    assert await server.code(trigger, case=cases[0], place="draft", agent="nobody") == "invalid_request"
    assert await server.code(trigger, case=cases[0], place="draft", token=f"{cases[1]}.1") == "invalid_request"
    assert await server.code(trigger, case=cases[0], place="draft", token=f"{cases[0]}.9") == "conflict"
    ran = await server.ok(trigger, case=cases[0], place="draft", agent="greeter", key="now")
    assert ran["result"] == {"executions": [f"{cases[0]}.1"]}
    assert (await server.ok(trigger, case=cases[0], place="draft", agent="greeter", key="now")) == ran
    laid = "query ($id: String!) { token(id: $id) { place data } }"

    async def said() -> bool:
        return "said" in (await server.ok(laid, id=f"{cases[0]}.1"))["data"]

    await eventually(said)
    schedule = "query ($case: String) { schedules(caseId: $case) { runs { agentId runs } } }"
    [again] = await answers(server, schedule, case=cases[0])
    assert again["runs"] == [{"agentId": "greeter", "runs": 1}], "the next run follows on that one"


async def test_two_who_put_agents_on_places_at_once_lose_nothing(server: Server) -> None:
    await server.ok(LOAD, yaml=FIRST)
    await server.ok(CREATE_AGENT, agent=AGENT)
    add = """mutation ($place: String!) { createPlaceAgentConfig(workflowId: "letters", config: {
      placeId: $place, agentId: "greeter", inputMapping: {name: "data.name"}}) { hash } }"""
    answers = await asyncio.gather(*(server.post(add, place=place) for place in ("draft", "spare")))
    refused = [one["errors"][0]["extensions"]["code"] for one in answers if "errors" in one]
    assert set(refused) <= {"conflict"}
    found = await server.ok("{ placeAgentConfigs { placeId } }")
    assert len(found) == 2 - len(refused)

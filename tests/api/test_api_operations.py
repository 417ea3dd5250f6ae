"""The operations of GraphQL on the engine itself: a workflow from input objects to the end of its case."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from driven import Server, driven
from eventually import eventually
from jwt.algorithms import ECAlgorithm
from prometheus_client.parser import text_string_to_metric_families

from circuit.app import Circuit
from circuit.errors import InvalidRequest
from circuit.settings import Settings

SECONDS = 120.0
METRICS = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()

CREATE = """
mutation ($workflow: WorkflowInput!) { createWorkflow(workflow: $workflow) { id name hash } }
"""
WORKFLOW: dict[str, Any] = {
    "id": "letters",
    "name": "Letters",
    "places": [
        {"id": "draft", "initial": True},
        {"id": "written"},
        {"id": "sent", "terminal": True},
        {"id": "dropped", "terminal": True, "outcome": "failed"},
    ],
    "agents": [
        {
            "id": "writer",
            "llmProvider": {"type": "scripted", "responses": [{"letter": "Dear Ada"}]},
            "llmConfig": {"temperature": 0.1},
            "prompts": {"system": "You write letters.", "userTemplate": "Write to {name}"},
            "outputSchema": {"type": "object", "required": ["letter"], "properties": {"letter": {"type": "string"}}},
        }
    ],
    "transitions": [
        {
            "id": "write",
            "fromPlaces": ["draft"],
            "toPlace": "written",
            "agentExecution": {
                "agentId": "writer",
                "inputMapping": {"name": "data.name"},
                "outputMapping": {"data.letter": "letter"},
                "timeoutSeconds": 30,
                "retryConfig": {"maxAttempts": 2},
            },
        },
        {
            "id": "send",
            "fromPlaces": [{"place": "written"}],
            "toPlaces": ["sent"],
            "trigger": {
                "type": "manual",
                "form": {"type": "object", "required": ["stamp"], "properties": {"stamp": {"type": "string"}}},
            },
            "outputMapping": {"data.stamp": "form.stamp"},
        },
    ],
}


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    async with driven(database_url) as running:
        yield running


async def test_a_workflow_comes_with_the_fragments_that_it_includes(server: Server) -> None:
    query = """mutation ($files: [WorkflowFileInput!]) { loadWorkflow(yaml: %s, files: $files) { id document } }"""
    text = "workflow: parted\ninclude: [{file: parts/end.yaml, with: {name: gone}}]\nplaces: {here: {initial: true}}\n"
    query = query % json.dumps(text + "transitions: {go: {from_places: here, to_place: gone}}\n")
    end = {
        "path": "./parts/end.yaml",
        "text": "fragment: end\nparameters: {name: null}\nplaces: {$(name): {terminal: true}}",
    }
    loaded = await server.ok(query, files=[end])
    assert loaded["document"]["places"]["gone"] == {"terminal": True}
    for files, message in (([], "is not among the files that were given"), ([end, end], "Two files have the path")):
        [refused] = (await server.post(query, files=files))["errors"]
        told = [fault["message"] for fault in refused["extensions"].get("faults", ())]
        assert message in " ".join([refused["message"], *told])


async def test_a_workflow_of_input_objects_runs_to_its_end(server: Server) -> None:
    created = await server.ok(CREATE, workflow=WORKFLOW)
    assert (created["id"], created["name"]) == ("letters", "Letters")
    assert (await server.ok(CREATE, workflow=WORKFLOW))["hash"] == created["hash"]
    parts = await server.ok("""{ workflow(id: "letters") {
      places { id initial terminal outcome deadLetter endsCase capacity shared colour description }
      transitions { id name fromPlaces toPlaces toPlace trigger conditions rules priority onFailure agentExecution {
        agentId inputMapping outputMapping required timeoutSeconds retryConfig { maxAttempts retryOnErrors } } }
      agents { id workflow llmConfig prompts { system userTemplate } } } }""")
    assert [(one["id"], one["initial"], one["terminal"], one["outcome"]) for one in parts["places"]] == [
        ("draft", True, False, None),
        ("written", False, False, None),
        ("sent", False, True, None),
        ("dropped", False, True, "failed"),
    ]
    write, send = parts["transitions"]
    assert write["agentExecution"] == {
        "agentId": "writer",
        "inputMapping": {"name": "data.name"},
        "outputMapping": {"data.letter": "letter"},
        "required": True,
        "timeoutSeconds": 30.0,
        "retryConfig": {"maxAttempts": 2, "retryOnErrors": []},
    }
    assert (write["trigger"], send["trigger"], send["agentExecution"]) == ("auto", "manual", None)
    assert (send["fromPlaces"], send["toPlaces"], send["toPlace"]) == (["written"], ["sent"], "sent")
    [its] = parts["agents"]
    assert (its["id"], its["workflow"], its["llmConfig"]) == ("writer", "letters", {"temperature": 0.1})
    [agent] = await server.ok("{ agents { id workflow llmProvider prompts { system userTemplate } } }")
    assert (agent["id"], agent["workflow"]) == ("writer", "letters")
    assert agent["prompts"] == {"system": "You write letters.", "userTemplate": "Write to {name}"}

    started = await server.ok('mutation { startCase(workflowId: "letters", token: {data: {name: "Ada"}}) { caseId } }')
    case = started["caseId"]
    token = f"{case}.1"
    fire = """mutation ($case: String!, $transition: String!, $form: JSON, $key: String) {
      fireTransition(caseId: $case, transition: $transition, form: $form, idempotencyKey: $key) { state result } }"""
    laid = 'query ($id: String!) { tokensInPlace(caseId: $id, placeId: "written") { id } }'

    async def written() -> bool:
        return await server.ok(laid, id=case) == [{"id": token}]

    await eventually(written)
    reasons = {
        one["transition"]: one
        for one in await server.ok(
            "query ($id: String!) { availableTransitions(tokenId: $id) { transition enabled reasons { kind } } }",
            id=token,
        )
    }
    assert [reason["kind"] for reason in reasons["send"]["reasons"]] == ["person"]
    assert list(reasons) == ["send"], "a token in `written` is nothing to `write`"
    why = await server.ok("query ($id: String!) { why(caseId: $id) { status summary } }", id=case)
    assert why["status"] == "waiting"

    assert await server.code(fire, case=case, transition="send", form={}) == "invalid_request"
    assert await server.code(fire, case=case, transition="write") == "invalid_request"
    assert await server.code(fire, case="nonsense", transition="send") == "not_found"
    for _ in range(2):  # the same key: the same answer
        sent = await server.ok(fire, case=case, transition="send", form={"stamp": "1 d"}, key="k")
        assert sent["state"] == "applied"
    assert await server.code(fire, case=case, transition="send", form={"stamp": "1 d"}) == "conflict"

    view = await server.ok("query ($id: String!) { case(id: $id) { status tokens { place data } } }", id=case)
    assert view == {
        "status": "completed",
        "tokens": [{"place": "sent", "data": {"name": "Ada", "letter": "Dear Ada", "stamp": "1 d"}}],
    }
    [run] = await server.ok(
        "query ($id: String!) { tokenExecutions(tokenId: $id) { executionId status agentId } }", id=token
    )
    assert (run["status"], run["agentId"]) == ("completed", "writer")
    again = await server.ok("query ($id: String!) { agentExecution(id: $id) { transition } }", id=run["executionId"])
    assert again == {"transition": "write"}

    events = await server.events(case)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["kind"], events[-1]["kind"]) == ("case_started", "case_ended")
    assert await server.events(case, after=len(events) - 1) == events[-1:]
    fired = await server.events(case, kinds=["transition_fired"])
    assert [event["transition"] for event in fired] == ["write", "send"]


async def test_a_case_is_cancelled_once(server: Server) -> None:
    await server.ok(CREATE, workflow=WORKFLOW)
    case = (await server.ok('mutation { startCase(workflowId: "letters", token: {data: {name: "A"}}) { caseId } }'))[
        "caseId"
    ]
    cancel = 'mutation ($id: String!) { cancelCase(caseId: $id, reason: "enough") { state result } }'
    assert (await server.ok(cancel, id=case))["result"] == {"status": "cancelled"}
    assert await server.code(cancel, id=case) == "conflict"
    retry = "mutation ($id: String!) { retryIncidents(caseId: $id) { state } }"
    assert await server.code(retry, id=case) == "conflict"
    assert (await server.events(case))[-1]["kind"] == "case_ended"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"places": [{"id": "a", "initial": True}, {"id": "a"}]}, "again"),
        ({"transitions": [{"id": "t", "fromPlaces": ["nowhere"], "toPlace": "sent"}]}, "nowhere"),
        ({"transitions": [{"id": "t", "fromPlaces": [{"place": "draft", "weight": -1}], "toPlace": "sent"}]}, "weight"),
        ({"colours": {"Bad": {"type": 7}}}, "colours"),
        ({"colours": {"Long": {"const": 10**30}}}, "too many digits"),
    ],
)
async def test_what_is_wrong_with_a_workflow_comes_with_its_place(
    server: Server, change: dict[str, Any], message: str
) -> None:
    [error] = (await server.post(CREATE, workflow={**WORKFLOW, **change}))["errors"]
    assert error["extensions"]["code"] == "invalid_definition"
    faults = error["extensions"]["faults"]
    assert any(message in f"{fault['path']} {fault['message']}" for fault in faults), faults
    assert all(fault["line"] >= 1 and fault["column"] >= 1 for fault in faults)


async def test_what_is_not_there_is_null_or_empty(server: Server) -> None:
    nobody = "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11"
    for query, empty in (
        (f'{{ why(caseId: "{nobody}") {{ summary }} }}', None),
        ('{ why(caseId: "x") { summary } }', None),
        (f'{{ agentExecution(id: "{nobody}.1") {{ status }} }}', None),
        (f'{{ tokenExecutions(tokenId: "{nobody}.1") {{ status }} }}', []),
        ('{ tokensInPlace(caseId: "x", placeId: "y") { id } }', []),
        ('{ availableTransitions(tokenId: "x") { transition } }', []),
        ('{ placeAgentConfigs(workflowId: "x") { placeId } }', []),
        ("{ agents { id } }", []),
    ):
        assert await server.ok(query) == empty, query
    status = await server.ok("{ serverStatus { version ready database } }")
    assert status["ready"]


async def test_only_a_server_that_asks_for_credentials_listens_where_others_reach_it(database_url: str) -> None:
    async with Circuit.open(database_url, worker=False) as circuit:
        with pytest.raises(InvalidRequest, match="no authentication is configured"):
            await circuit.serve("0.0.0.0", 0)
        made = await circuit.engine.keys.create("board", ["viewer"], circuit.principal)
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(circuit.serve("0.0.0.0", 0, ready=ready.set_result))
        address = (await ready).replace("0.0.0.0", "127.0.0.1")
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            for headers, status in (({}, 401), ({"authorization": f"Bearer {made.text}"}, 200)):
                answer = await client.post(f"{address}/graphql", json={"query": "{ agents { id } }"}, headers=headers)
                assert answer.status_code == status
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def test_published_keys_are_fetched_and_a_token_of_one_lets_in(database_url: str) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    published = {"keys": [{**json.loads(ECAlgorithm.to_jwk(private.public_key())), "kid": "one", "alg": "ES256"}]}
    served: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(await reader.readuntil(b"\r\n\r\n"))
        body = json.dumps(published).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as keys:
        port = keys.sockets[0].getsockname()[1]
        environment = {"CIRCUIT_JWKS_URL": f"http://127.0.0.1:{port}/jwks", "CIRCUIT_DATABASE_URL": database_url}
        async with Circuit.open(settings=Settings.from_environment(environment), worker=False) as circuit:
            ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            serving = asyncio.create_task(circuit.serve("127.0.0.1", 0, ready=ready.set_result))
            address = await ready
            claims = {"sub": "eve", "aud": "circuit", "exp": 2**33, "roles": ["viewer"]}
            async with httpx.AsyncClient(timeout=SECONDS) as client:
                for key, status in ((private, 200), (private, 200), (ec.generate_private_key(ec.SECP256R1()), 401)):
                    token = jwt.encode(claims, key, "ES256", headers={"kid": "one"})
                    headers = {"authorization": f"Bearer {token}"}
                    asked = {"query": "{ agents { id } }"}
                    answered = await client.post(f"{address}/graphql", json=asked, headers=headers)
                    assert answered.status_code == status
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
    assert len(served) == 1, "the keys are fetched once, not for every request"


async def test_figures_for_prometheus_say_what_the_engine_does(server: Server) -> None:
    async def shown() -> dict[str, float]:
        answer = await server.client.get(f"{server.url}/metrics")
        assert answer.status_code == 200
        families = text_string_to_metric_families(answer.text)
        return {sample.name: sample.value for family in families for sample in family.samples}

    before = await shown()
    assert (before["circuit_workers"], before["circuit_held_cases"], before["circuit_stream_readers"]) == (1, 0, 0)
    await server.ok(CREATE, workflow=WORKFLOW)
    case = (await server.ok('mutation { startCase(workflowId: "letters", token: {data: {name: "A"}}) { caseId } }'))[
        "caseId"
    ]
    await server.circuit.wait(case)  # until its owner has let it go: what a step did is counted after it is stored
    after = await shown()
    assert after["circuit_executions_total"] == before["circuit_executions_total"] + 1
    assert after["circuit_writes_total"] > before["circuit_writes_total"]
    assert after["circuit_lease_losses_total"] == 0
    assert (before["circuit_firings_total"], after["circuit_firings_total"]) == (0, 1)
    assert after["circuit_executions_ended_total"] == 1
    # What is documented is what is served, but for models inside, of which none is loaded here.
    served = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in after if name.startswith("circuit_")}
    listed = {name for name in re.findall(r"`(circuit_[a-z_]+)`", METRICS) if not name.startswith("circuit_model_")}
    # Of rules of redaction and of screening there are figures as soon as something was found.
    assert served == listed - {"circuit_redactions_total", "circuit_screened_total"}


async def test_a_message_is_sent_and_listed(server: Server) -> None:
    await server.ok(
        CREATE,
        workflow={
            "id": "order",
            "start": {"message": "placed"},
            "places": [{"id": "open", "initial": True}, {"id": "paid", "terminal": True}],
            "transitions": [
                {
                    "id": "pay",
                    "fromPlaces": ["open"],
                    "toPlace": "paid",
                    "trigger": {"type": "message", "message": "payment", "correlate": ["data.id"]},
                    "outputMapping": {"data.amount": "message.amount"},
                }
            ],
        },
    )
    send = """mutation ($name: String!, $data: JSON, $key: [String!], $delivery: String) {
      sendMessage(name: $name, data: $data, key: $key, deliveryId: $delivery) { state caseId key duplicate error } }"""
    placed = await server.ok(send, name="placed", data={"id": 7})
    assert placed["state"] == "delivered"
    await server.circuit.wait(placed["caseId"])  # A message that comes before the case waits for it would be kept.
    paid = await server.ok(send, name="payment", data={"amount": 5}, key=["7"], delivery="d")
    assert (paid["state"], paid["caseId"], paid["key"]) == ("delivered", placed["caseId"], ["7"])
    assert (await server.ok(send, name="payment", data={"amount": 5}, key=["7"], delivery="d"))["duplicate"] is True
    assert await server.code(send, name="payment", data={"amount": 6}, key=["7"], delivery="d") == "conflict"
    assert await server.code(send, name="payment", data=[1]) == "invalid_request"
    [one] = await server.ok('{ messages(name: "payment") { state caseId data } }')
    assert one == {"state": "delivered", "caseId": placed["caseId"], "data": {"amount": 5}}


async def test_a_case_names_what_opened_it_and_what_it_opened(server: Server) -> None:
    def one(name: str, action: dict[str, Any]) -> str:
        return json.dumps(
            {
                "workflow": name,
                "places": ["open", "done"],
                "transitions": {"act": {"from_places": "open", "to_place": "done", "action": action}},
            }
        )

    load = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }"
    await server.ok(load, yaml=one("inner", {"type": "human"}))
    await server.ok(load, yaml=one("outer", {"type": "subworkflow", "workflow": "inner"}))
    outer = (await server.ok('mutation { startCase(workflowId: "outer") { caseId } }'))["caseId"]
    query = "query ($id: String!) { case(id: $id) { status parent children { caseId workflow parent } } }"

    async def opened() -> Any:
        return (await server.ok(query, id=outer))["children"]

    [child] = await eventually(opened, within=SECONDS, what="a child")
    assert (child["workflow"], child["parent"]) == ("inner", f"{outer}.1")
    assert (await server.ok(query, id=child["caseId"]))["parent"] == f"{outer}.1"

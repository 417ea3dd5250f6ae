"""Time travel and modification of cases over GraphQL."""

from __future__ import annotations

from eventually import eventually

from tests.api.test_api_operations import Server, server

__all__ = ["server"]

LOAD = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }"
WORKFLOW = """
workflow: notes
places: {asked: {initial: true}, noted: {}, kept: {terminal: true}}
agents:
  writer: {llm_provider: {type: scripted, responses: ["Dear Ada"]}}
transitions:
  note: {from_places: asked, to_place: noted, agent_execution: {agent_id: writer, output_mapping: {data.text: text}}}
  keep: {from_places: noted, to_place: kept, trigger: {type: manual}}
"""
AT = """query ($id: String!, $at: Int) { caseAt(caseId: $id, at: $at) {
  at events event { kind } marking ended tokens { id place data executionId } firings { transition state } fired } }"""
FORK = """mutation ($id: String!, $at: Int, $changes: [TokenChangeInput!], $models: JSON, $key: String) {
  forkCase(caseId: $id, at: $at, changes: $changes, models: $models, idempotencyKey: $key) { caseId workflow } }"""
DIFF = """query ($a: String!, $b: String!) { diffCases(first: $a, second: $b) { same first { caseId }
  second { forkOf { caseId seq } cost { executions costUsd } } marking { place first second }
  values { tokens path first second } path { same first second } } }"""
MODIFY = """mutation ($id: String!, $reason: String!, $put: [NewTokenInput!], $move: [TokenMoveInput!]) {
  modifyCase(caseId: $id, reason: $reason, put: $put, move: $move) { state result } }"""
NOBODY = "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11"


async def noted(server: Server, case: str) -> None:
    async def there() -> bool:
        return (await server.ok(AT, id=case))["marking"] == {"noted": 1}

    await eventually(there)


async def test_the_past_a_fork_and_a_difference(server: Server) -> None:
    await server.ok(LOAD, yaml=WORKFLOW)
    case = (await server.ok('mutation { startCase(workflowId: "notes", token: {data: {n: 1}}) { caseId } }'))["caseId"]
    await noted(server, case)
    was = await server.ok(AT, id=case, at=2)
    assert (was["at"], was["events"], was["event"], was["marking"]) == (2, 3, {"kind": "firing_begun"}, {"asked": 1})
    assert was["tokens"] == [{"id": f"{case}.1", "place": "asked", "data": {"n": 1}, "executionId": f"{case}.1"}]
    assert was["firings"] == [{"transition": "note", "state": "running"}]
    assert await server.ok(AT, id=NOBODY) is None
    assert await server.code(AT, id=case, at=9) == "invalid_request"

    wanted = {"at": 1, "changes": [{"path": "data.n", "value": 2}], "key": "k"}
    models = {"*": {"type": "scripted", "model": "m", "options": {"responses": ["Sir"]}}}
    fork = await server.ok(FORK, id=case, models=models, **wanted)
    assert fork["workflow"] == "notes"
    assert await server.ok(FORK, id=case, models=models, **wanted) == fork
    assert await server.code(FORK, id=fork["caseId"], **wanted) == "conflict"
    assert await server.code(FORK, id=case, changes=[{"path": "n", "value": 2}]) == "invalid_request"
    assert await server.code(FORK, id=NOBODY) == "not_found"
    await noted(server, fork["caseId"])
    found = await server.ok(DIFF, a=case, b=fork["caseId"])
    assert found["second"] == {"forkOf": {"caseId": case, "seq": 1}, "cost": {"executions": 1, "costUsd": None}}
    assert (found["same"], found["marking"]) == (False, [])
    assert sorted(found["values"], key=lambda one: one["path"]) == [
        {"tokens": [1, 1], "path": "data.n", "first": 1, "second": 2},
        {"tokens": [1, 1], "path": "data.text", "first": "Dear Ada", "second": "Sir"},
    ]
    assert found["path"] == [{"same": True, "first": ["note"], "second": ["note"]}]
    assert (await server.ok(DIFF, a=case, b=case))["same"]
    assert await server.code(DIFF, a=case, b=NOBODY) == "not_found"


async def test_a_case_is_modified(server: Server) -> None:
    await server.ok(LOAD, yaml=WORKFLOW)
    case = (await server.ok('mutation { startCase(workflowId: "notes", token: {data: {n: 1}}) { caseId } }'))["caseId"]
    await noted(server, case)
    put = [{"place": "noted", "data": {"n": 2}}, {"place": "asked"}]
    done = await server.ok(MODIFY, id=case, reason="two more", put=put)
    assert done == {"state": "applied", "result": {"put": [2, 3], "taken": [], "changed": [], "cancelled": []}}
    assert await server.code(MODIFY, id=case, reason="x", put=[{"place": "nowhere"}]) == "invalid_request"
    assert await server.code(MODIFY, id=case, reason="x", put=[{"place": "noted", "data": [1]}]) == "invalid_request"
    assert await server.code(MODIFY, id=case, reason="", put=put) == "invalid_request"
    assert await server.code(MODIFY, id=case, reason="x", move=[{"token": 9, "place": "kept"}]) == "conflict"


MIGRATE = """mutation ($to: String, $from: String, $places: JSON, $dry: Boolean!, $first: Int!, $after: String) {
  migrateCases(workflowId: "notes", to: $to, from: $from, places: $places, dryRun: $dry, first: $first, after: $after) {
    version dryRun cases moved left markings { marking cases completion reason } stay { caseId reason } last } }"""


async def test_cases_are_migrated(server: Server) -> None:
    await server.ok(LOAD, yaml=WORKFLOW)
    start = 'mutation { startCase(workflowId: "notes", token: {data: {n: 1}}) { caseId } }'
    cases = sorted([(await server.ok(start))["caseId"] for _ in range(2)])
    for case in cases:
        await noted(server, case)
    await server.ok(LOAD, yaml=WORKFLOW.replace("noted", "written"))
    stays = await server.ok(MIGRATE, dry=True, first=10)
    assert (stays["cases"], stays["moved"], stays["left"], stays["dryRun"]) == (2, 0, 2, True)
    assert {one["caseId"] for one in stays["stay"]} == set(cases)
    assert "no place noted" in stays["markings"][0]["reason"]
    one = await server.ok(MIGRATE, dry=False, first=1, places={"noted": "written"})
    assert (one["moved"], one["last"], one["markings"][0]["completion"]) == (1, cases[0], "proven")
    rest = await server.ok(MIGRATE, dry=False, first=10, places={"noted": "written"}, after=one["last"])
    assert (rest["cases"], rest["moved"], rest["last"]) == (1, 1, None)
    for case in cases:
        assert (await server.ok(AT, id=case))["marking"] == {"written": 1}
    for wrong in ({"first": 0}, {"after": "x"}, {"places": {"a": 1}}, {"places": {"a": "b"}}):
        assert await server.code(MIGRATE, **{"dry": True, "first": 1, **wrong}) == "invalid_request"
    assert await server.code(MIGRATE, dry=True, first=1, to="beef") == "not_found"

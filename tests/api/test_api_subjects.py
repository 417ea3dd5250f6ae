"""Personal data over GraphQL and from chat clients."""

from __future__ import annotations

import json

import httpx
from driven import driven

from circuit.engine.ledger import Sought
from circuit.security.principal import LOCAL
from circuit.settings import Settings

SECRET = "Lovelace-1815"
TOKEN = "t" * 40
FLOW = """
workflow: letter
subject: data.to
places: {begin: {initial: true}, open: {}, end: {terminal: true}}
transitions:
  write: {from_places: begin, to_place: open}
  send: {from_places: open, to_place: end, trigger: {type: manual}}
"""
START = """mutation ($data: JSON!) {
  startCase(workflowId: "letter", token: {data: $data}, subjects: ["eve"]) { caseId } }"""
CASES = "query ($who: String!) { subjectCases(subject: $who) { caseId workflow status erasedAt } }"
DATA = "query ($who: String!, $case: String!) { subjectData(subject: $who, caseId: $case) }"
ERASE = """mutation ($who: String!, $cancel: Boolean!) { eraseSubject(subject: $who, cancel: $cancel) {
  cases archivedCases rows cachedAnswers messagesDeleted unreachable dryRun } }"""


async def test_a_person_is_found_shown_and_erased_by_administrators_alone(database_url: str) -> None:
    settings = Settings.from_environment({"CIRCUIT_DATABASE_URL": database_url, "AGENT_ACCESS_TOKEN": TOKEN})
    async with driven(database_url, settings=settings) as running:
        admin = running.authorized(TOKEN)
        made = await running.circuit.engine.keys.create("desk", ["editor"], LOCAL)
        editor = running.authorized(made.text)
        await running.circuit.load(FLOW)
        case = (await editor.ok(START, data={"to": "ada", "text": SECRET}))["caseId"]
        for query, variables in ((CASES, {}), (DATA, {"case": case}), (ERASE, {"cancel": True})):
            assert await editor.code(query, who="ada", **variables) == "forbidden"
        for who in ("ada", "eve"):
            assert [one["caseId"] for one in await admin.ok(CASES, who=who)] == [case]
        assert SECRET in json.dumps(await admin.ok(DATA, who="ada", case=case))
        assert await admin.ok(DATA, who="tim", case=case) is None
        add = 'mutation ($case: String!) { addSubjects(caseId: $case, subjects: ["tim"]) }'
        assert await editor.ok(add, case=case) is True
        assert await admin.code(ERASE, who="tim", cancel=False) == "conflict"
        done = await admin.ok(ERASE, who="tim", cancel=True)
        assert (done["cases"], done["unreachable"], done["dryRun"]) == (1, [], False)
        assert done["rows"]["token"] == 1
        assert SECRET not in json.dumps(await admin.ok(DATA, who="ada", case=case))
        [erased] = await admin.ok(CASES, who="ada")
        assert (erased["status"], erased["erasedAt"] is not None) == ("cancelled", True)

        # A chat client says whom it is about as it always did.
        async with httpx.AsyncClient(timeout=120, headers={"authorization": f"Bearer {TOKEN}"}) as client:
            body = {"model": "scripted:x", "messages": [{"role": "user", "content": SECRET}], "user": "visitor 7"}
            answer = await client.post(f"{running.url}/v1/chat/completions", json=body)
            assert answer.status_code == 200
            refused = await client.post(f"{running.url}/v1/chat/completions", json={**body, "user": "x" * 301})
            assert refused.status_code == 400
        [asked] = await admin.ok(CASES, who="visitor 7")
        assert SECRET in json.dumps(await admin.ok(DATA, who="visitor 7", case=asked["caseId"]))
        assert (await admin.ok(ERASE, who="visitor 7", cancel=False))["cases"] == 1
        assert SECRET not in json.dumps(await admin.ok(DATA, who="visitor 7", case=asked["caseId"]))
        log = [one async for one in running.circuit.engine.ledger.all(LOCAL, Sought(action="subject"))]
        assert [one.action for one in log].count("subject.erase") == 2
        assert SECRET not in str(log) and "visitor" not in str(log)
        await admin.client.aclose()
        await editor.client.aclose()

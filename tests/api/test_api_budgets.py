"""Budgets over GraphQL: set, raised, used up and taken away; and who may do that."""

from __future__ import annotations

from driven import driven

SET = """mutation ($limits: LimitsInput!, $workflow: String, $case: String, $period: BudgetPeriod) {
  setBudget(limits: $limits, workflowId: $workflow, caseId: $case, period: $period) {
    scope subject limits { calls tokens usd } spent { calls tokens usd } period updatedBy } }"""
WORKFLOW = """
workflow: digest
places: [article, digested]
transitions:
  digest: {from_places: article, to_place: digested}
"""


async def test_budgets_are_set_and_seen(database_url: str) -> None:
    async with driven(database_url) as server:
        await server.ok("mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }", yaml=WORKFLOW)
        made = await server.ok(SET, limits={"usd": 2.5, "tokens": 5e9}, period="MONTH")
        assert (made["scope"], made["subject"], made["period"], made["updatedBy"]) == ("tenant", None, "month", "local")
        assert made["limits"] == {"calls": None, "tokens": 5e9, "usd": 2.5}
        assert made["spent"] == {"calls": 0, "tokens": 0, "usd": 0}
        # What is not named stays, and null takes a limit away.
        assert (await server.ok(SET, limits={"usd": None}))["limits"] == {"calls": None, "tokens": 5e9, "usd": None}
        assert (await server.ok(SET, limits={"calls": 3}, workflow="digest"))["subject"] == "digest"
        listed = await server.ok("{ budgets { scope subject } }")
        assert listed == [{"scope": "tenant", "subject": None}, {"scope": "workflow", "subject": "digest"}]
        one = "query ($id: String) { budget(workflowId: $id) { limits { calls } } }"
        assert await server.ok(one, id="digest") == {"limits": {"calls": 3}}
        assert await server.ok(one, id="other") is None
        assert await server.code(SET, limits={"calls": 3}, workflow="other") == "not_found"
        assert await server.code(SET, limits={"tokens": 1.5}) == "invalid_request"
        assert await server.code(SET, limits={"usd": -1}) == "invalid_request"
        assert await server.code(SET, limits={}, workflow="digest", case="x") == "invalid_request"
        remove = "mutation ($id: String) { removeBudget(workflowId: $id) }"
        assert [await server.ok(remove, id="digest") for _ in range(2)] == [True, False]

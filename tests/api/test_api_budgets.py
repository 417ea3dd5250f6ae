"""Budgets over GraphQL: set, raised, used up and taken away; and who may do that."""

from __future__ import annotations

import pytest
from driven import driven

from circuit.engine.limits import pool
from circuit.errors import Forbidden
from circuit.security.principal import LOCAL, Principal

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


SET_LIMIT = """mutation ($n: Int!, $agent: String, $provider: String, $only: Boolean!) {
  setExecutionLimit(executions: $n, agentId: $agent, provider: $provider, tenantOnly: $only) {
    kind name everyTenant executions held waiting updatedBy } }"""
ASKING = """
workflow: asking
places: [open, done]
agents: {teller: {llm_provider: {type: scripted, model: m, responses: [yes], price: {input: 0, output: 9}}}}
transitions:
  tell: {from_places: open, to_place: done, agent_execution: {agent_id: teller}}
"""
COSTS = """query ($by: [CostDimension!], $case: String, $after: String) {
  costs(by: $by, caseId: $case, after: $after) { since until next total { calls cached inputTokens outputTokens usd
  unpriced } entries { day workflow caseId agentId provider model calls usd } } }"""


async def test_limits_costs_and_where_they_come_from(database_url: str) -> None:
    async with driven(database_url) as server:
        made = await server.ok(SET_LIMIT, n=3, provider="openai", only=True)
        assert (made["kind"], made["name"], made["everyTenant"], made["executions"]) == ("provider", "openai", False, 3)
        assert (await server.ok(SET_LIMIT, n=7, provider="openai", only=False))["everyTenant"] is True
        await server.ok(SET_LIMIT, n=2, agent="teller", only=False)
        listed = await server.ok("{ executionLimits { kind name everyTenant executions } }")
        assert sorted((one["kind"], one["everyTenant"], one["executions"]) for one in listed) == [
            ("agent", False, 2), ("provider", False, 3), ("provider", True, 7)
        ]  # fmt: skip
        assert await server.code(SET_LIMIT, n=-1, agent="a", only=False) == "invalid_request"
        assert await server.code(SET_LIMIT, n=1, agent="a", provider="b", only=False) == "invalid_request"
        remove = 'mutation { removeExecutionLimit(provider: "openai", tenantOnly: true) }'
        assert [await server.ok(remove) for _ in range(2)] == [True, False]
        # Who administers another tenant sets no limit of all of them.
        limits, theirs = server.circuit.engine.limits, Principal("theirs", 2, frozenset({"admin"}))
        with pytest.raises(Forbidden, match="first tenant"):
            await limits.set(theirs, pool(2, provider="openai"), 1)
        assert (await limits.set(theirs, pool(2, provider="openai", tenant_only=True), 1)).row.pool.tenant == 2

        await server.ok("mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }", yaml=ASKING)
        case = await server.circuit.start("asking", {})
        await server.circuit.wait(case)
        [run] = await server.ok(
            """query ($id: String) { executions(caseId: $id) { costUsd attempts starts crashes workflowHash provenance
              answers { agentId provider modelAsked model finish usage rawUsage cached costUsd } } }""",
            id=case,
        )
        [answer] = run["answers"]
        assert (answer["agentId"], answer["provider"], answer["modelAsked"], answer["cached"]) == (
            "teller", "scripted", "m", False
        )  # fmt: skip
        assert run["costUsd"] == answer["costUsd"] > 0 and (run["attempts"], run["starts"], run["crashes"]) == (1, 1, 0)
        assert run["provenance"]["prompt_hash"] and run["workflowHash"]
        told = await server.ok(COSTS, by=["CASE", "AGENT", "MODEL"])
        [entry] = told["entries"]
        assert (entry["caseId"], entry["agentId"], entry["model"], entry["day"]) == (case, "teller", "m", None)
        assert entry["usd"] == told["total"]["usd"] == run["costUsd"] and told["total"]["unpriced"] == 0
        assert (await server.ok(COSTS, case=case))["entries"][0]["workflow"] == "asking"
        assert await server.code(COSTS, case="nobody") == "not_found"
        assert await server.code(COSTS, after="x") == "invalid_request"
        await server.circuit.commands.give_feedback(
            server.circuit.key(case), 1, principal=LOCAL, score=0.5, comment="fair"
        )
        said = '{ feedback(agentId: "teller") { executionId score by workflow agentId provenance } }'
        [one] = await server.ok(said)
        assert (one["executionId"], one["score"], one["by"], one["agentId"]) == (f"{case}.1", 0.5, "local", "teller")

"""Every list of the schema: by pages that make the whole, at a cost in statements that does not grow."""

from __future__ import annotations

from collections import Counter
from typing import Any

from asking import SCHEMA, Operation, operations
from driven import Server
from graphql import (
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    Undefined,
    get_named_type,
    get_nullable_type,
)
from sqlalchemy import event
from test_api_people import server as server

SHORT = {
    "providers", "unanswered", "heldModels", "executionLimits", "availableTransitions", "evaluateRules", "transitions",
    "reasons", "conditions", "rules", "answers", "feedback", "firings", "runs", "entries", "policies", "toolAccess",
    "marking", "values", "path", "markings", "stay", "Workflow.places", "Workflow.agents",
}  # fmt: skip
"""Lists that come whole: of the net, of one execution, of what administrators have set up, of what was asked for."""
MANY = 6
HELPER = """
workflow: helper
places: {asked: {initial: true}, kept: {}, done: {terminal: true}}
agents:
  helper: {llm_provider: {type: scripted, responses: [Yes.]}, conversation: case}
transitions:
  say: {from_places: asked, to_place: kept, agent_execution: {agent_id: helper}}
  end: {from_places: kept, to_place: done, trigger: {type: manual}}
place_agents: [{place_id: kept, agent_id: helper, schedule: {initial_delay_seconds: 3600}}]
"""
PARENT = """
workflow: parent
places: {asked: {initial: true}, done: {terminal: true}}
transitions: {open: {from_places: asked, to_place: done, action: {type: subworkflow, workflow: helper}}}
"""
MUCH = """mutation ($n: String!, $case: String!, $execution: String!) {
  sendMessage(name: "m") { id }
  createApiKey(name: $n, roles: ["viewer"]) { text }
  giveFeedback(executionId: $execution, score: 1) { feedbackId }
  createToken(caseId: $case, placeId: "lost", token: {data: {}}) { tokenId }
  setBudget(workflowId: $n, limits: {calls: 1000}) { scope }
  setAgentPermission(agentId: "nobody", workflows: [$n], effect: ALLOW) }"""
KNOWN_BY = {
    "cases": "caseId", "subjectCases": "caseId", "executions": "executionId", "toolApprovals": "executionId",
    "humanTasks": "taskId", "conversations": "conversationId", "feedback": "feedbackId",
}  # fmt: skip
KINDS = {"cases": 6, "executions": 4}
ASKED: dict[str, dict[str, Any]] = {
    "tokensInPlace": {"placeId": "lost", "workflowId": "office"},
    "subjectCases": {"subject": "ada"},
    "budgets": {"cases": True},
    "costs": {"by": ["CASE"]},
}


def test_every_list_comes_by_pages_or_is_short() -> None:
    whole: set[str] = set()
    for name, kind in SCHEMA.type_map.items():
        if name.startswith("__") or not isinstance(kind, GraphQLObjectType):
            continue
        for field, one in kind.fields.items():
            listed = isinstance(get_nullable_type(one.type), GraphQLList)
            paged = {"first", "after"} <= one.args.keys() or (field == "versions" and "first" in one.args)
            known = f"{name}.{field}" in SHORT
            if listed and not paged and not known and isinstance(get_named_type(one.type), GraphQLObjectType):
                whole.add(field)
            # A client that has no page yet may say so.
            if paged and "after" in one.args and str(one.args["after"].type).startswith("String"):
                assert not str(one.args["after"].type).endswith("!"), (name, field)
    assert whole <= SHORT, whole - SHORT


async def test_no_query_grows_with_what_it_lists(server: Server) -> None:
    """Each list of the schema with all that lies in its entries costs as many statements for six as for one."""
    counted: Counter[str] = Counter()

    def count(_: Any, __: Any, statement: str, *rest: Any) -> None:
        counted["statements"] += 1

    engine: Any = server.circuit.database
    event.listen(engine._engine.sync_engine, "before_cursor_execute", count)
    lists: Counter[str] = Counter()
    asked = {**ASKED, "tokenExecutions": {"tokenId": await _much_of_everything(server)}}
    for operation in operations("query"):
        if not {"first", "after"} <= operation.field.args.keys():
            continue
        defaults = {
            name: one.default_value
            for name, one in operation.field.args.items()
            if isinstance(one.type, GraphQLNonNull) and one.default_value is not Undefined
        }
        costs: list[int] = []
        for first in (2, 4, MANY):
            counted.clear()
            # Each page is to have some of every kind.
            variables = {**defaults, **asked.get(operation.name, {}), "first": first * KINDS.get(operation.name, 1)}
            found = await server.ok(operation.document.replace("first: 3", "first: 2"), **variables)
            entries = len(found if isinstance(found, list) else found["entries"])
            lists[operation.name] = max(lists[operation.name], entries)
            costs.append(counted["statements"])
        # Less may be read: what is asked for at one time goes together.
        assert costs[2] <= max(costs[:2]), (operation.name, costs)
        if operation.name not in ("costs", "tokenExecutions"):
            defaults.pop("first")
            await _pages_make_the_whole(server, operation, {**defaults, **asked.get(operation.name, {})})
    few = {name for name, most in lists.items() if most < MANY}
    assert few == {"models", "publishedAgents", "tokenExecutions"}, lists


async def _pages_make_the_whole(server: Server, operation: Operation, variables: dict[str, Any]) -> None:
    kind = get_named_type(operation.field.type)
    assert isinstance(kind, GraphQLObjectType)
    known = "cursor" if "cursor" in kind.fields else KNOWN_BY.get(operation.name, "id")
    document = operation.document[: operation.document.index("{")] + f"{{ {operation.name}"
    given = ", ".join(f"{name}: ${name}" for name in operation.field.args)
    document += f"({given}) {{ {known} }} }}"
    whole = [one[known] for one in await server.ok(document, **variables, first=200)]
    found: list[str] = []
    while page := await server.ok(document, **variables, first=4, after=found[-1] if found else None):
        found += [one[known] for one in page]
        assert len(found) <= len(whole), operation.name
    assert found == whole, operation.name


async def _much_of_everything(server: Server) -> str:
    """Something in every list; a token of which an execution is known."""
    load = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }"
    for n in range(MANY):
        await server.ok(load, yaml=HELPER.replace("workflow: helper", f"workflow: helper{n}"))
    await server.ok(load, yaml=HELPER)
    await server.ok(load, yaml=PARENT)
    start = """mutation ($id: String!, $data: JSON) {
      startCase(workflowId: $id, token: {data: $data}, subjects: ["ada"]) { caseId } }"""
    token = ""
    for n in range(MANY):
        case = (await server.ok(start, id="office", data={"text": "a bill", "size": 2}))["caseId"]
        await server.ok(start, id="broken", data={"n": 0})
        await server.ok(start, id="parent", data={})
        token = f"{(await server.ok(start, id=f'helper{n}', data={}))['caseId']}.1"
        asked = await server.ok(
            'mutation { executeAgent(agentId: "clerk", input: "hi") { executionId execution { status } } }'
        )
        answer = await server.post(MUCH, n=f"helper{n}", case=case, execution=asked["executionId"])
        assert "errors" not in answer, answer

    # Nothing comes to any list by itself from now on.
    rested: set[str] = set()
    while left := {str(one.key.case) for one in await server.circuit.cases(limit=1_000)} - rested:
        for case in left:
            await server.circuit.wait(case)
        rested |= left
    found = await server.post(
        """{ schedules { caseId } humanTasks { taskId } incidents { id } toolApprovals { executionId }
          deadLetters { id } conversations { conversationId } messages { state } }"""
    )
    assert all(len(listed) >= MANY for listed in found["data"].values()), found
    return token

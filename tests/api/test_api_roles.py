"""Who may ask for what: every operation of the schema, by every role, by scopes, and by nobody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
from asking import operations, plain
from driven import Server, driven
from test_api_people import BROKEN, OFFICE, answers

from circuit.security.permissions import ROLES, Permission
from circuit.settings import Settings

SECRET = "j" * 40
RUN, OPERATE, EDIT, ADMINISTER = Permission.RUN, Permission.OPERATE, Permission.EDIT, Permission.ADMINISTER
NEEDS = {
    "loadWorkflow": EDIT, "createWorkflow": EDIT, "publishWorkflow": EDIT, "retireWorkflow": EDIT,
    "deleteWorkflow": EDIT, "createAgent": EDIT, "deleteAgent": EDIT,
    "createPlaceAgentConfig": EDIT, "migrateCases": EDIT,
    "executeAgent": RUN, "startCase": RUN, "createToken": RUN, "fireTransition": RUN, "signal": RUN,
    "triggerPlaceAgents": RUN, "giveFeedback": RUN, "forkConversation": RUN, "sendMessage": RUN, "addSubjects": RUN,
    "completeTask": None, "approveToolCall": RUN, "refuseToolCall": RUN,
    "cancelCase": OPERATE, "retryIncidents": OPERATE, "resolveIncident": OPERATE, "putBack": OPERATE,
    "retryAllIncidents": OPERATE, "resolveAllIncidents": OPERATE, "putAllBack": OPERATE, "modifyCase": OPERATE,
    "forkCase": OPERATE, "setBudget": EDIT, "removeBudget": EDIT,
    "setExecutionLimit": ADMINISTER, "removeExecutionLimit": ADMINISTER, "setAgentPermission": ADMINISTER,
    "createApiKey": ADMINISTER, "revokeApiKey": ADMINISTER, "eraseSubject": ADMINISTER,
    "createStreamToken": Permission.READ,
}  # fmt: skip
"""What each mutation takes. None: the role that its task asks for, which none of these is."""
ADMINISTRATIVE = dict.fromkeys(("auditLog", "apiKeys", "executionLimits", "subjectCases", "subjectData"), ADMINISTER)
OWN = {"humanTasks", "toolApprovals"}
"""Of which everybody sees those that ask for a role of his."""
SAID: dict[str, dict[str, Any]] = {
    "createToken": {"workflowId": "office"},
    "setBudget": {"workflowId": "office"},
    "removeBudget": {"workflowId": "office"},
    "setExecutionLimit": {"agentId": "clerk"},
    "removeExecutionLimit": {"agentId": "clerk"},
    "resolveIncident": {"set": {"data.n": 1}},
    "resolveAllIncidents": {"set": {"data.n": 1}},
    "modifyCase": {"take": [1]},
    "createApiKey": {"roles": ["viewer"]},
    "tokensInPlace": {"workflowId": "office"},
}
"""What an operation needs to be said beside what it must be given."""


async def test_every_operation_asks_for_its_permission(database_url: str, tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {"CIRCUIT_DATABASE_URL": database_url, "CIRCUIT_HOME": str(tmp_path), "CIRCUIT_JWT_SECRET": SECRET,
         "STREAM_AUTH_SECRET": "s" * 40}
    )  # fmt: skip
    async with driven(database_url, settings=settings) as server:

        def as_one(roles: list[str], scope: str | None = None) -> Server:
            claims = {"sub": "eve", "aud": "circuit", "exp": 2**33, "roles": roles}
            more = {} if scope is None else {"scope": scope}
            return server.authorized(jwt.encode({**claims, **more}, SECRET, "HS256"))

        admin = as_one(["admin"])
        load = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }"
        for text in (OFFICE, BROKEN):
            await admin.ok(load, yaml=text)
        start = 'mutation { startCase(workflowId: "office", token: {data: {text: "x", size: 2}}) { caseId } }'
        case = (await admin.ok(start))["caseId"]
        [task] = await answers(admin, "{ humanTasks { taskId } }")
        asked = await admin.ok('mutation { executeAgent(agentId: "clerk", input: "hi") { executionId } }')
        await answers(admin, "{ toolApprovals { executionId } }")
        names = {
            "caseId": case, "workflowId": "office", "tokenId": f"{case}.1", "executionId": asked["executionId"],
            "taskId": task["taskId"], "agentId": "clerk", "placeId": "asked", "transition": "file", "subject": "ada",
            "id": case,
        }  # fmt: skip
        asking = {role: (as_one([role]), allowed) for role, allowed in ROLES.items() if role != "admin"}
        asking["author"] = (as_one(["author"]), frozenset())
        asking["limited"] = (as_one(["admin"], "read"), frozenset({Permission.READ}))
        needs = NEEDS | {one.name: Permission.READ for one in operations("query")} | ADMINISTRATIVE
        for operation in operations("mutation", "query"):
            need = needs[operation.name]
            variables = operation.variables(lambda name, kind: plain(name, kind, names), optional=False)
            variables |= SAID.get(operation.name, {})
            for who, (one, allowed) in asking.items():
                # Whoever may do it would do it, and there is only one of most things.
                if operation.name in OWN and who == "author":
                    assert await one.ok(operation.document, **variables) == [], "none of them asks for an author"
                elif need not in allowed:
                    answer = await one.post(operation.document, **variables)
                    codes = {error["extensions"]["code"] for error in answer.get("errors", [])}
                    assert codes == {"forbidden"}, (operation.name, who, answer)
                elif operation.root == "query" or operation.name == "createStreamToken":
                    answer = await one.post(operation.document, **variables)
                    assert "forbidden" not in str(answer), (operation.name, who, answer)
        for one, _ in asking.values():
            await one.client.aclose()
        await admin.client.aclose()

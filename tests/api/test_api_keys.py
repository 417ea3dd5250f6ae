"""API keys over GraphQL: made, listed, used, revoked, and by whom."""

from __future__ import annotations

import asyncio

from driven import driven

TOKEN = "t" * 40
CREATE = """mutation ($name: String!, $roles: [String!]!, $scopes: [String!], $life: Float, $key: String) {
  createApiKey(name: $name, roles: $roles, scopes: $scopes, lifetimeSeconds: $life, idempotencyKey: $key) {
    text apiKey { id name roles scopes createdBy expiresAt revokedAt } } }"""
KEYS = "query ($after: String) { apiKeys(first: 2, after: $after) { id name revokedAt } }"
REVOKE = "mutation ($id: String!) { revokeApiKey(id: $id) { id revokedAt } }"
CASES = "{ cases { caseId } }"


async def test_administrators_make_list_and_revoke_keys(database_url: str) -> None:
    async with driven(database_url, token=TOKEN) as server:
        admin = server.authorized(TOKEN)
        made = await admin.ok(CREATE, name="board", roles=["viewer"], life=3600.0, key="one")
        assert made["text"].startswith("ck_1_")
        shown = made["apiKey"]
        assert (shown["roles"], shown["scopes"], shown["createdBy"]) == (["viewer"], None, "service")
        assert shown["expiresAt"] is not None and shown["revokedAt"] is None

        # Asked again it is the same key, and nobody is shown it twice.
        assert await admin.ok(CREATE, name="board", roles=["viewer"], life=3600.0, key="one") == {**made, "text": None}
        assert await admin.code(CREATE, name="board", roles=["admin"], life=3600.0, key="one") == "conflict"
        both = await asyncio.gather(*(admin.ok(CREATE, name="twin", roles=["viewer"], key="two") for _ in range(3)))
        assert len({one["apiKey"]["id"] for one in both}) == 1
        assert [bool(one["text"]) for one in sorted(both, key=lambda one: not one["text"])] == [True, False, False]

        viewer = server.authorized(made["text"])
        assert await viewer.ok(CASES) == []
        for query, variables in (
            (CREATE, {"name": "x", "roles": ["viewer"]}),
            (KEYS, {}),
            (REVOKE, {"id": shown["id"]}),
        ):
            assert await viewer.code(query, **variables) == "forbidden"

        # A credential that is limited makes no key that may do more.
        few = await admin.ok(CREATE, name="few", roles=["admin"], scopes=["administer", "read"])
        limited = server.authorized(few["text"])
        for scopes, code in ((None, "forbidden"), (["read", "edit"], "forbidden"), (["read"], None)):
            answer = await limited.post(CREATE, name="child", roles=["admin"], scopes=scopes)
            assert [error["extensions"]["code"] for error in answer.get("errors", [])] == ([code] if code else [])

        listed = await admin.ok(KEYS)
        assert [one["name"] for one in listed] == ["child", "few"]
        assert [one["name"] for one in await admin.ok(KEYS, after=listed[-1]["id"])] == ["twin", "board"]
        gone = await admin.ok(REVOKE, id=shown["id"])
        assert (await admin.ok(REVOKE, id=shown["id"])) == gone and gone["revokedAt"] is not None
        assert (await viewer.client.post(f"{server.url}/graphql", json={"query": CASES})).status_code == 401
        assert await admin.code(REVOKE, id="nothing") == "not_found"
        for wrong in (
            {"name": ""},
            {"roles": []},
            {"roles": ["*"]},
            {"scopes": ["fly"]},
            {"life": 0.0},
            {"life": 1e300},
        ):
            assert await admin.code(CREATE, **{"name": "x", "roles": ["viewer"], **wrong}) == "invalid_request", wrong
        log = await admin.ok('{ auditLog(action: "key") { action subject target details } }')
        assert log[0] == {
            "action": "key.revoke",
            "subject": "service",
            "target": shown["id"],
            "details": log[0]["details"],
        }
        assert made["text"].split("_", 3)[3] not in str(log)
        for other in (viewer, limited, admin):
            await other.client.aclose()

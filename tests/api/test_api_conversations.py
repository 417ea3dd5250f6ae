"""What agents remember, over GraphQL: listed, read in pages, forked, and gone on with by a new case."""

from __future__ import annotations

import asyncio

from driven import driven
from eventually import eventually

TALKER = """
workflow: talker
places: {asked: {initial: true}, told: {terminal: true}}
agents:
  talker:
    llm_provider: {type: scripted, responses: [{when: "Mine is Ada", response: "You said Ada."}, "Hello."]}
    prompts: {user_template: "{said}"}
    conversation: case
transitions:
  answer:
    from_places: asked
    to_place: told
    agent_execution: {agent_id: talker, input_mapping: {said: data.said}, output_mapping: {data.answer: text}}
"""
START = """mutation ($said: String!, $more: JSON) {
  startCase(workflowId: "talker", token: {data: {said: $said}}, conversations: $more) { caseId } }"""
LIST = """query ($case: String) { conversations(agentId: "talker", caseId: $case) {
  conversationId caseId messageCount forkedFrom forkedAfter messages(first: 1) { number role parts executionId } } }"""
FORK = """mutation ($id: String!, $after: Int, $key: String) {
  forkConversation(id: $id, after: $after, idempotencyKey: $key) { conversationId messageCount } }"""


async def test_conversations_are_read_and_forked(database_url: str) -> None:
    async with driven(database_url) as server:
        await server.ok("mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }", yaml=TALKER)

        async def said(**more: object) -> str:
            case = str((await server.ok(START, **more))["caseId"])

            async def over() -> bool:
                return (await server.ok("query ($c: String!) { case(id: $c) { status } }", c=case)) == {
                    "status": "completed"
                }

            await eventually(over)
            return case

        first = await said(said="Mine is Ada.")
        (kept,) = await server.ok(LIST, case=first)
        assert (kept["messageCount"], kept["forkedFrom"]) == (2, None)
        assert kept["messages"] == [
            {
                "number": 1,
                "role": "user",
                "parts": [{"type": "text", "text": "Mine is Ada."}],
                "executionId": f"{first}.1",
            }
        ]
        one = "query ($id: String!) { conversation(id: $id) { messages(after: 1) { role } } }"
        assert await server.ok(one, id=kept["conversationId"]) == {"messages": [{"role": "assistant"}]}
        assert await server.ok(one, id="nobody") is None
        asked = {"id": kept["conversationId"], "after": 1, "key": "mine"}
        fork, again = await asyncio.gather(*(server.ok(FORK, **asked) for _ in range(2)))
        assert (fork["messageCount"], again) == (1, fork), "asked twice at once, it is one"
        assert await server.code(FORK, **{**asked, "after": None}) == "conflict"
        assert await server.code(FORK, **{**asked, "key": ""}) == "invalid_request"
        second = await said(said="And now?", more={"talker": fork["conversationId"]})
        (grown,) = await server.ok(LIST, case=second)
        assert (grown["messageCount"], grown["forkedAfter"]) == (3, 1)
        assert len(await server.ok(LIST)) == 3
        assert await server.code(FORK, id=kept["conversationId"], after=9) == "invalid_request"
        assert await server.code(FORK, id=first) == "not_found"
        assert await server.code(START, said="x", more={"nobody": kept["conversationId"]}) == "invalid_request"

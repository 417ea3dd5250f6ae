"""Rules of redaction through the whole engine: what each door shows, what is stored, and what models are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from chat_server import ChatServer

from circuit import Circuit
from circuit.app import StreamUpdate
from circuit.errors import DefinitionError
from circuit.events import FiringFailed, StreamType
from circuit.ids import parse_numbered
from circuit.settings import Settings

MAIL, CARD = "ada@example.com", "4111 1111 1111 1111"
CLERK = """
workflow: clerk
redaction: [{kind: email, where: [events, prompts]}]
places: {asked: {initial: true}, answered: {terminal: true, colour: answer}}
colours: {answer: {type: object, properties: {strict: {enum: [1]}}}}
agents:
  clerk:
    llm_provider: {type: custom, model: m, base_url: "${MODEL}"}
    tools: [lookup]
    redaction: [{kind: payment_card, where: [events]}]
transitions:
  work:
    from_places: asked
    to_place: answered
    agent_execution: {agent_id: clerk, output_mapping: {data.said: text}}
"""


def lookup(name: str) -> dict[str, Any]:
    """Look a customer up."""
    return {"mail": f"{name}@example.com", "card": 4111111111111111}


async def test_what_is_shown_is_redacted_and_what_is_stored_for_the_engine_is_not(
    database_url: str, tmp_path: Path
) -> None:
    calls = [{"name": "lookup", "arguments": {"name": "ada"}}]
    answer = f"It is {MAIL}, with {CARD}."
    replies = [{"calls": calls}, {"text": answer, "pieces": 40}]
    async with ChatServer(replies) as server:
        settings = Settings(home=tmp_path, database_url=database_url, environment={"MODEL": server.url})
        async with Circuit.open(settings=settings, tools=[lookup]) as circuit:
            workflow = await circuit.load(CLERK)
            case = await circuit.start(workflow.id, {"question": f"Who is {MAIL}?"})
            frames = [one.frame async for one in circuit.stream(case) if isinstance(one, StreamUpdate)]
            result = await circuit.wait(case)
            execution = parse_numbered(f"{case}.1")
            assert execution is not None
            again = [frame async for frame in circuit.engine.streams.subscribe(execution, circuit.principal.tenant)]
    bodies = [frame.body for frame in frames]
    assert [frame.body for frame in again] == bodies
    assert not any(b"ada@" in body or b"4111" in body for body in bodies)
    events = [orjson.loads(body) for body in bodies]
    shown = "It is [email], with [payment_card]."
    assert "".join(one["content"] for one in events if one["eventType"] == "content_chunk") == shown
    (called,) = [one for one in events if one["eventType"] == "tool_result"]
    assert called["result"] == {"mail": "[email]", "card": "[payment_card]"}
    assert events[-1]["final_response"] == shown
    # Tokens are data: the engine goes on with them, and whoever may read them reads them.
    assert result.tokens[0].data["said"] == answer
    told = [str(request.body) for request in server.requests]
    assert "ada@" not in "".join(told)
    assert "Who is [email]?" in told[0]
    # The card is no secret to this agent's model: the rule is for events.
    assert "4111111111111111" in told[1]


FAILING = """
workflow: failing
redaction: [email]
places: {asked: {initial: true}, answered: {terminal: true, colour: answer}}
colours: {answer: {type: object, properties: {said: {const: nothing}}}}
agents:
  clerk:
    llm_provider: {type: scripted, responses: [RESPONSE]}
transitions:
  work: {from_places: asked, to_place: answered, agent_execution: {agent_id: clerk, output_mapping: {data.said: text}}}
"""


@pytest.mark.parametrize(
    "response",
    ["{error: provider_refused, message: there is no ada@example.com}", "this is of ada@example.com"],
    ids=["of the provider", "of the colour"],
)
async def test_no_error_quotes_what_rules_name(database_url: str, tmp_path: Path, response: str) -> None:
    settings = Settings(home=tmp_path, database_url=database_url)
    async with Circuit.open(settings=settings) as circuit:
        workflow = await circuit.load(FAILING.replace("RESPONSE", response))
        case = await circuit.start(workflow.id, {})
        frames = [one.frame async for one in circuit.stream(case) if isinstance(one, StreamUpdate)]
        view = await circuit.case(case)
    connection = await asyncpg.connect(database_url)
    rows: list[str] = []
    for table in ("firing", "execution", "history", "incident", "stream_event"):
        rows += [row[0] for row in await connection.fetch(f"SELECT to_jsonb(t)::text FROM circuit.{table} t")]
    await connection.close()
    assert len(rows) > 5
    (failed,) = [one.event for one in view.history if isinstance(one.event, FiringFailed)]
    assert ("[email]" in failed.error["message"]) is ("message:" in response)
    assert frames[-1].type is StreamType.FAILED
    assert not any(b"ada@" in frame.body for frame in frames)
    assert not any("ada@" in row for row in rows)


async def test_rules_are_part_of_a_version_and_what_is_wrong_with_them_is_told_by_line(
    database_url: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, database_url=database_url)
    async with Circuit.open(settings=settings) as circuit:
        first = await circuit.load(CLERK)
        assert "redaction" in first.requires["features"]
        assert [rule.name for rule in first.redaction] == ["email"]
        second = await circuit.load(CLERK.replace("kind: email,", "kind: email, replace: hash,"))
        assert second.hash != first.hash
        wrong = CLERK.replace("kind: payment_card", "kind: paymentcard").replace(
            "[{kind: email", "[email, {kind: email"
        )
        with pytest.raises(DefinitionError) as caught:
            await circuit.load(wrong)
    assert [(fault.line, fault.path) for fault in caught.value.faults] == [
        (3, "redaction[1]"),
        (10, "agents.clerk.redaction[0].kind"),
    ]

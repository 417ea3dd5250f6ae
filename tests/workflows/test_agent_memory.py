"""What agents keep from run to run, in Postgres: answers to identical requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chat_server import ChatServer
from postgres import execute

from circuit import Circuit
from circuit.app import StreamUpdate
from circuit.engine.answers import Answers
from circuit.settings import Settings
from circuit.storage import answers

CLERK = """
workflow: cached-clerk
places: {asked: {initial: true}, answered: {terminal: true}}
agents:
  clerk:
    llm_provider: {type: custom, model: gpt-4.1-mini, base_url: "${MODEL}"}
    cache: {ttl: 1h}
transitions:
  work:
    from_places: asked
    to_place: answered
    agent_execution: {agent_id: clerk, output_mapping: {data.said: text, data.usage: usage}}
"""


async def test_identical_requests_share_an_answer(database_url: str, tmp_path: Path) -> None:
    async with ChatServer([{"text": "One."}, {"text": "Two."}, {"text": "Three."}]) as server:
        settings = Settings(home=tmp_path, database_url=database_url, environment={"MODEL": server.url})
        async with Circuit.open(settings=settings) as circuit:
            workflow = await circuit.load(CLERK)

            async def said(data: dict[str, Any]) -> tuple[dict[str, Any], list[bytes], str]:
                case = await circuit.start(workflow.id, data)
                frames = [one.frame.body async for one in circuit.stream(case) if isinstance(one, StreamUpdate)]
                view = await circuit.case(case)
                return dict(view.tokens[0].data), frames, view.executions[0].id

            first, _, _ = await said({"n": 1})
            again, frames, execution = await said({"n": 1})
            other, _, _ = await said({"n": 2})
            assert [first["said"], again["said"], other["said"]] == ["One.", "One.", "Two."]
            assert again["usage"] == {"input_tokens": 0, "output_tokens": 0, "cached_answers": 1, "cost_usd": 0.0}
            assert first["usage"]["input_tokens"] > 0
            assert sum(b"from the cache" in frame for frame in frames) == 1
            record = await circuit.queries.execution(*_key(circuit, execution))
            assert record is not None
            assert [(one.step, one.cached) for one in record.answers] == [("answer:0", True)]
            # What is over counts no more, even while its row is there; a sweep takes the row away.
            await execute(database_url, "UPDATE circuit.cached_answer SET expires_at = now() - interval '1 second'")
            assert (await said({"n": 1}))[0]["said"] == "Three."
            raw = await circuit.database.raw()
            await answers.forget(raw)
            assert await raw.fetchval("SELECT count(*) FROM circuit.cached_answer") == 1
            digest = await raw.fetchval("SELECT digest FROM circuit.cached_answer")
            await raw.close()
            assert await Answers(circuit.database, 1).find(digest) is not None
            assert await Answers(circuit.database, 2).find(digest) is None
            # One that no row can hold is not kept, and nobody hears of it.
            await Answers(circuit.database, 1).keep(b"x", {"text": "a\0b"}, 60)
            assert await Answers(circuit.database, 1).find(b"x") is None
        assert len(server.requests) == 3


def _key(circuit: Circuit, execution: str) -> tuple[Any, int]:
    case, _, firing = execution.rpartition(".")
    return circuit.key(case), int(firing)

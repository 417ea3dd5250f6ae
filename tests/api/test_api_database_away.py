"""A server whose database goes away and comes back: what it still says meanwhile, to whom, and how soon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import psutil
import pytest
from eventually import eventually
from postgres import Server
from prometheus_client.parser import text_string_to_metric_families
from whole import whole

from circuit.app import figures
from circuit.engine import reach
from circuit.security.principal import LOCAL
from circuit.storage import schema

FLOW = "workflow: flow\nplaces: {a: {initial: true, terminal: true}}\ntransitions: {}\n"
QUERY = {"query": "{ cases { caseId } }"}


async def test_figures_and_readiness_while_the_database_is_away(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def hurried() -> Iterator[None]:
        """Nobody waits long for a database that does not answer; one that does has all the time that it has."""
        with monkeypatch.context() as changed:
            changed.setattr(figures, "DATABASE_SECONDS", 0.2)
            changed.setattr(reach, "PATIENCE_SECONDS", 0.2)
            yield

    await schema.upgrade(own_server.url())
    variables = {"AGENT_ACCESS_TOKEN": "the token of the built-in service", "CIRCUIT_RATE_LIMITS": "*=6000"}
    async with whole(own_server.url(), **variables) as (circuit, url), httpx.AsyncClient(timeout=120) as client:
        made = await circuit.engine.keys.create("board", ["viewer"], LOCAL)
        headers = {"authorization": f"Bearer {made.text}"}

        async def shown() -> dict[str, float]:
            answer = await client.get(f"{url}/metrics", headers=headers)
            assert answer.status_code == 200, answer.text
            families = text_string_to_metric_families(answer.text)
            return {sample.name: sample.value for family in families for sample in family.samples}

        before = await shown()
        assert before["circuit_database_up"] == 1 and "circuit_ready_cases" in before
        own_server.stop()
        with hurried():
            for _ in range(2):
                away = await shown()
                assert away["circuit_database_up"] == 0 and "circuit_ready_cases" not in away
                assert {"circuit_held_cases", "circuit_stream_readers", "circuit_flying_writes"} <= away.keys()
                answers = [
                    await client.get(f"{url}/ready"),
                    await client.get(f"{url}/v1/models", headers=headers),
                    await client.post(f"{url}/graphql", json=QUERY, headers=headers),
                ]
                assert [answer.status_code for answer in answers] == [503, 503, 200]
                for answer in answers:
                    assert "database_unreachable" in answer.text
                    assert "postgres" not in answer.text and "127.0.0.1" not in answer.text, (
                        "where it is, is in the log"
                    )
        own_server.start()

        async def back() -> bool:
            return (await client.get(f"{url}/ready")).status_code == 200

        await eventually(back)
        await circuit.load(FLOW)

        async def counted() -> bool:
            return (await shown())["circuit_database_up"] == 1

        await eventually(counted)
        # One that hangs is no better: nobody waits for it with figures.
        head = psutil.Process(int((own_server.data / "postmaster.pid").read_text().split()[0]))
        processes = [head, *head.children()]
        for one in processes:
            with suppress(psutil.NoSuchProcess):
                one.suspend()
        try:
            with hurried():
                assert (await shown())["circuit_database_up"] == 0
        finally:
            for one in processes:
                with suppress(psutil.NoSuchProcess):
                    one.resume()
        await eventually(counted)

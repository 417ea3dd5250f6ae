"""What somebody may do in a deployment is as much with two servers as with one, and after a restart."""

from __future__ import annotations

import httpx
import pytest
from whole import whole

from circuit.security import guesses
from circuit.security.principal import LOCAL

QUERY = {"query": "{ __typename }"}


async def test_two_servers_let_through_what_one_may(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "FIRST_WAIT_SECONDS", 60.0)
    variables = {"AGENT_ACCESS_TOKEN": "the token of the built-in service", "CIRCUIT_RATE_LIMITS": "graphql=1/9,*=1/4"}

    async def ask(url: str, credential: str, path: str = "/graphql") -> httpx.Response:
        headers = {"authorization": f"Bearer {credential}"}
        if path != "/graphql":
            return await client.get(url + path, headers=headers)
        return await client.post(url + path, json=QUERY, headers=headers)

    async with httpx.AsyncClient(timeout=120) as client:
        async with whole(database_url, **variables) as (circuit, one), whole(database_url, **variables) as (_, two):
            keys = [(await circuit.engine.keys.create(name, ["viewer"], LOCAL)).text for name in ("ada", "eve")]
            answers = [await ask((one, two)[number % 2], keys[0]) for number in range(14)]
            assert [answer.status_code for answer in answers] == [200] * 9 + [429] * 5
            assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in answers[9:])
            # Another key, and another part of the server, have buckets of their own.
            assert (await ask(two, keys[1])).status_code == 200
            answers = [await ask((one, two)[number % 2], keys[0], "/v1/models") for number in range(6)]
            assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
            wrong = [await ask((one, two)[number % 2], "nonsense") for number in range(guesses.FREE_GUESSES + 2)]
            assert [answer.status_code for answer in wrong] == [401] * guesses.FREE_GUESSES + [429] * 2
        # Whoever guesses gains nothing by a restart: what is left of his wait is in the database.
        async with whole(database_url, **variables) as (circuit, url):
            async with circuit.database.transaction(0) as connection:
                longer = "UPDATE circuit.wrong_credential SET until = now() + interval '1 hour'"
                await connection.exec_driver_sql(longer)
            refused = await ask(url, "nonsense")
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
            assert 3_000 <= int(refused.headers["retry-after"]) <= 3_600

"""Messages: they find the case that waits for them, wait for one that does not yet, and count once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import invariants
import pytest
from eventually import eventually
from running import engine, publish, start, until

from circuit.engine.engine import Engine
from circuit.engine.messages import MessageView
from circuit.errors import Conflict, InvalidRequest, TokenRefused
from circuit.ids import CaseKey
from circuit.net.reception import message_key
from circuit.security.principal import LOCAL, Principal
from circuit.storage import workers
from circuit.storage.database import Database

PAYMENT = """
workflow: order
colours:
  Order: {type: object, properties: {amount: {type: integer}}}
places:
  open: {initial: true, colour: Order}
  paid: {terminal: true, colour: Order}
transitions:
  pay:
    from_places: open
    to_place: paid
    trigger: {type: message, message: payment, correlate: data.order_id}
    output_mapping: {data.amount: message.amount}
"""


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def send(running: Engine, key: Any = 42, amount: Any = 5, **options: Any) -> MessageView:
    parts = key if isinstance(key, tuple) else (key,)
    return await running.messages.send("payment", {"amount": amount}, principal=LOCAL, key=parts, **options)


async def rows(plain: Any, table: str) -> int:
    return await plain.fetchval(f"SELECT count(*)::int FROM circuit.{table}")


async def test_a_message_fires_the_case_that_waits_for_its_key_and_counts_once(
    database: Database, database_url: str, plain: Any
) -> None:
    async with engine(database) as running:
        await publish(running, PAYMENT)
        mine, other = [await start(running, "order", {"order_id": number}) for number in (42, 43)]
        for key in (mine, other):
            await until(running, key, "waiting")
        why = await running.queries.why(mine)
        assert why is not None
        assert "waits for the message payment with the key 42" in why.transitions[0].obstacles[0].message
        sent = await send(running, delivery_id="d1")
        assert (sent.state, sent.case_id, sent.duplicate) == ("delivered", str(mine), False)
        case = await until(running, mine, "completed")
        assert case.tokens[0].data == {"order_id": 42, "amount": 5}
        taken = next(one.event for one in case.history if one.event.kind == "message_taken")
        assert (taken.message, taken.name, taken.principal) == (sent.id, "payment", LOCAL.subject)
        # Sent again: the answer is what it was, and nothing happens twice.
        again = await send(running, delivery_id="d1")
        assert (again.state, again.id, again.duplicate) == ("delivered", sent.id, True)
        with pytest.raises(Conflict, match="delivery id"):
            await send(running, amount=6, delivery_id="d1")
        assert (await until(running, other, "waiting")).status.value == "waiting"
    assert await rows(plain, "awaited_message") == 1
    await invariants.check(database_url)


async def test_a_message_that_comes_before_anyone_waits_is_kept_and_the_first_sent_comes_first(
    database: Database, plain: Any
) -> None:
    async with engine(database) as running:
        await publish(running, PAYMENT)
        first = await send(running, amount=1)
        second = await send(running, amount=2)
        assert {first.state, second.state} == {"kept"}
        cases = [await start(running, "order", {"order_id": "42"}) for _ in range(2)]
        amounts = [(await until(running, key, "completed")).tokens[0].data["amount"] for key in cases]
        assert sorted(amounts) == [1, 2]

        async def delivered() -> bool:
            listed = await running.messages.list(LOCAL, name="payment")
            return [(one.state, one.data["amount"]) for one in listed] == [("delivered", 2), ("delivered", 1)]

        await eventually(delivered, what="both are delivered")
        # One that is over is nobody's.
        short = await send(running, key="late", lifetime_seconds=0.001)
        key = await start(running, "order", {"order_id": "late"})
        await until(running, key, "waiting")

        async def gone() -> bool:
            return (await running.messages.outcome(LOCAL, UUID(short.id))).state == "expired"

        await eventually(gone, what="an expired message")
        assert (await until(running, key, "waiting")).tokens[0].place == "open"


async def test_what_does_not_fit_is_refused_and_the_case_goes_on_waiting(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, PAYMENT)
        key = await start(running, "order", {"order_id": 42})
        await until(running, key, "waiting")
        refused = await send(running, amount="much")
        assert refused.state == "refused" and refused.error is not None
        assert refused.error["code"] == "colour_mismatch"
        missing = await running.messages.send("payment", {}, principal=LOCAL, key=["42"])
        assert missing.error is not None and missing.error["code"] == "mapping_error"
        assert (await send(running)).state == "delivered"
        await until(running, key, "completed")
        for wrong in ({"key": 1.5}, {"key": True}, {"key": "\ud800"}, {"lifetime_seconds": 0}, {"delivery_id": ""}):
            with pytest.raises(InvalidRequest):
                await send(running, **wrong)
        with pytest.raises(InvalidRequest):
            await running.messages.send("a\nb", principal=LOCAL)


STARTING = """
workflow: intake
start: {message: order_placed}
colours:
  Order: {type: object, required: [id], properties: {id: {type: string}}}
places:
  placed: {initial: true, colour: Order}
  shipping: {}
  done: {terminal: true}
transitions:
  check: {from_places: placed, to_place: shipping, conditions: ["data.id != ''"]}
  ship:
    from_places: shipping
    to_place: done
    trigger: {type: message, message: shipped, correlate: [data.id, case.workflow_id]}
    output_mapping: {data.shipment: message}
"""


async def test_a_message_starts_one_case_however_often_it_comes(database: Database, plain: Any) -> None:
    async with engine(database) as running:
        await publish(running, STARTING)
        sent = await asyncio.gather(
            *[running.messages.send("order_placed", {"id": "a"}, principal=LOCAL, delivery_id="one") for _ in range(5)]
        )
        assert len({one.case_id for one in sent}) == 1 and sum(not one.duplicate for one in sent) == 1
        key = CaseKey(1, UUID(sent[0].case_id))
        await until(running, key, "waiting")
        assert await rows(plain, "case") == 1
        with pytest.raises(TokenRefused):
            await running.messages.send("order_placed", {"id": 5}, principal=LOCAL)
        assert await rows(plain, "sent_message") == 1
        with pytest.raises(Conflict, match="starts cases of intake already"):
            await publish(running, STARTING.replace("workflow: intake", "workflow: other"))
        shipped = await running.messages.send("shipped", {"by": "bike"}, principal=LOCAL, key=["a", "intake"])
        assert shipped.state == "delivered"
        case = await until(running, key, "completed")
        assert case.tokens[0].data == {"id": "a", "shipment": {"by": "bike"}}
        assert case.tokens[0].metadata["message"]["delivery_id"] == "one"
        await running.commands.retire("intake", LOCAL)
        assert (await running.messages.send("order_placed", {"id": "b"}, principal=LOCAL)).state == "kept"


async def test_tenants_do_not_hear_each_other(database: Database, plain: Any) -> None:
    await plain.execute("INSERT INTO circuit.tenant (tenant_id, name) VALUES (2, 'other')")
    stranger = Principal("eve", 2, LOCAL.roles)
    async with engine(database) as running:
        await publish(running, PAYMENT)
        key = await start(running, "order", {"order_id": 42})
        await until(running, key, "waiting")
        foreign = await running.messages.send("payment", {"amount": 1}, principal=stranger, key=["42"])
        assert foreign.state == "kept"
        assert await running.messages.list(LOCAL) == []
        await until(running, key, "waiting")
        # The same delivery id of another tenant is another message.
        mine = await send(running, delivery_id=foreign.delivery_id)
        assert (mine.state, mine.duplicate) == ("delivered", False)


async def test_whatever_dies_each_message_is_taken_once(database: Database, database_url: str, plain: Any) -> None:
    """Workers are declared dead again and again while doubled messages meet cases that wait, in both orders."""
    number = 40
    async with engine(database) as running, engine(database) as second:
        await publish(running, PAYMENT)
        for one in range(0, number, 2):
            await send(running, key=one, amount=one, delivery_id=str(one), wait_seconds=0)
        keys = [await start(running, "order", {"order_id": one}) for one in range(number)]

        async def kill() -> None:
            for one in [running, second] * 3:
                tenure = one.worker.tenure if one.worker is not None else None
                if tenure is not None:
                    await workers.take_over(plain, tenure.incarnation.id)
                await asyncio.sleep(0)

        async def late() -> None:
            for one in range(number):
                await send(second, key=one, amount=one, delivery_id=str(one), wait_seconds=0)

        await asyncio.gather(kill(), late())
        for one, key in enumerate(keys):
            case = await until(running, key, "completed")
            assert case.tokens[0].data["amount"] == one
        assert await plain.fetchval("SELECT count(*)::int FROM circuit.history WHERE kind = 'message_taken'") == number

        async def delivered() -> bool:
            return await plain.fetchval("SELECT bool_and(state = 'delivered') FROM circuit.sent_message")

        await eventually(delivered, what="every message delivered")
        assert await rows(plain, "awaited_message") == 0
    await invariants.check(database_url)


def test_a_key_is_text_or_whole_numbers() -> None:
    assert message_key([]) == ""
    assert message_key([42]) == message_key(["42"]) == message_key([42.0]) == '["42"]'
    assert message_key(["a", "b"]) != message_key(["a,b"])
    assert message_key([""]) != ""
    for wrong in (None, True, 1.5, {}, []):
        assert message_key([wrong]) is None

"""Many that ask the database for the same kind of thing at once, and what becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from postgres import execute

from circuit.app import Circuit
from circuit.engine.commands import TokenInput
from circuit.errors import Conflict, DatabaseUnreachable, NotFound
from circuit.ids import CaseKey, uuid7
from circuit.security.principal import LOCAL
from circuit.storage import ledger
from circuit.storage.ferry import LANES, MOST_AT_ONCE, MOST_BYTES, Ferry
from circuit.storage.ledger import Sought
from circuit.streams.log import Log

FLOW = """
workflow: burst
places: {begin: {initial: true}, end: {terminal: true}}
transitions: {go: {from_places: begin, to_place: end}}
"""


class Crossings:
    """What crossed, with whom; each crossing waits for `go`."""

    def __init__(self) -> None:
        self.made: list[tuple[int, list[int]]] = []
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.errors: dict[int, Exception] = {}

    async def __call__(self, tenant: int, items: Sequence[int]) -> Sequence[int]:
        self.made.append((tenant, list(items)))
        self.begun.release()
        await self.go.wait()
        for item in items:
            if item in self.errors:
                raise self.errors[item]
        return [10 * item for item in items]


async def test_who_comes_while_the_lanes_are_busy_goes_together() -> None:
    crossings = Crossings()
    ferry = Ferry(crossings)
    first = [asyncio.ensure_future(ferry.take(1, number)) for number in range(LANES)]
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(ferry.take(1, number)) for number in range(LANES, LANES + 2 * MOST_AT_ONCE)]
    elsewhere = asyncio.ensure_future(ferry.take(2, 7))
    gone = others.pop(3)
    await asyncio.sleep(0)
    gone.cancel()
    crossings.go.set()
    answers = await asyncio.gather(*first, *others, elsewhere)
    assert sorted(answers[:-1]) == [10 * n for n in range(LANES + 2 * MOST_AT_ONCE) if n != LANES + 3]
    assert answers[-1] == 70
    assert (2, [7]) in crossings.made
    # A thousand are a few crossings, whose order is that in which they came.
    mine = [items for tenant, items in crossings.made if tenant == 1]
    assert len(mine) <= LANES + 3 and max(map(len, mine)) == MOST_AT_ONCE
    assert [item for items in mine for item in items if item != LANES + 3] == sorted(
        item for items in mine for item in items if item != LANES + 3
    )


async def test_who_asks_again_as_soon_as_he_is_answered_is_answered_where_all_lanes_end_at_once() -> None:
    crossings = Crossings()
    ferry = Ferry(crossings)

    async def twice(number: int) -> list[int]:
        return [await ferry.take(1, number), await ferry.take(1, number + LANES)]

    async with asyncio.timeout(60):
        asking = asyncio.ensure_future(twice(0))
        await crossings.begun.acquire()
        others: list[asyncio.Future[int]] = []
        for number in range(1, LANES):
            others.append(asyncio.ensure_future(ferry.take(1, number)))
            await crossings.begun.acquire()
        crossings.go.set()
        assert await asking == [0, 10 * LANES] and all(other.done() for other in others)
    assert not ferry._under_way and not ferry._waiting, "nothing is kept of a tenant that asks for nothing"


async def test_one_that_is_refused_takes_nobody_down_and_what_may_pass_is_told_to_all() -> None:
    crossings = Crossings()
    ferry = Ferry(crossings)
    crossings.go.set()
    crossings.errors[3] = Conflict("no")
    told = await asyncio.gather(*(ferry.take(1, number) for number in range(6)), return_exceptions=True)
    assert [one for one in told if not isinstance(one, Conflict)] == [0, 10, 20, 40, 50]
    # What gave way to others goes once more. The last number is how many crossings there are in all.
    for state, count in ((None, 1), ("57014", 1), ("40P01", 2), ("55P03", 2)):
        crossings.errors[3] = DatabaseUnreachable("away", details={"sqlstate": state})
        crossings.made.clear()
        told = await asyncio.gather(*(ferry.take(1, number) for number in range(6)), return_exceptions=True)
        assert all(isinstance(one, DatabaseUnreachable) for one in told) and len(crossings.made) == count, state


async def test_who_is_large_goes_with_few() -> None:
    crossings = Crossings()
    ferry = Ferry(crossings, weigh=lambda number: MOST_BYTES // 2 if number > 100 else 1)
    first = [asyncio.ensure_future(ferry.take(1, number)) for number in range(LANES)]
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(ferry.take(1, number)) for number in (10, 101, 102, 103, 11, 104, 12)]
    await asyncio.sleep(0)
    crossings.go.set()
    assert await asyncio.gather(*first, *others) == [0, 10, 100, 1010, 1020, 1030, 110, 1040, 120]
    together = [items for _, items in crossings.made]
    assert [items for items in together if items[0] >= 10] == [[10, 101, 102], [103, 11, 104], [12]]


async def test_who_asks_for_the_same_goes_as_one_if_answers_may_be_shared() -> None:
    crossings = Crossings()
    ferry = Ferry(crossings, shared=True)
    first = [asyncio.ensure_future(ferry.take(1, 7)) for _ in range(LANES)]
    await asyncio.sleep(0)
    # What is under way began before these asked: they go with the next, of which nobody's leaving takes it from others.
    others = [asyncio.ensure_future(ferry.take(1, number)) for number in (7, 7, 8, 7, 9, 8)]
    elsewhere = asyncio.ensure_future(ferry.take(2, 7))
    await asyncio.sleep(0)
    others.pop(4).cancel()
    others.pop(0).cancel()
    crossings.errors[8] = Conflict("no")
    crossings.go.set()
    assert await asyncio.gather(*first, elsewhere) == [70] * (LANES + 1)
    told = await asyncio.gather(*others, return_exceptions=True)
    assert [one for one in told if isinstance(one, int)] == [70, 70]
    assert [type(one) for one in told if not isinstance(one, int)] == [Conflict] * 2
    mine = [items for tenant, items in crossings.made if tenant == 1]
    assert mine[0] == [7] and sorted(map(tuple, mine[-3:])) == [(7,), (7, 8), (8,)] and len(mine) <= LANES + 3


async def test_a_burst_that_meets_a_deadlock_is_started(database_url: str) -> None:
    async with Circuit.open(database_url, worker=False) as circuit:
        await circuit.load(FLOW)
        await execute(
            database_url,
            "CREATE SEQUENCE public.written",
            "GRANT USAGE ON public.written TO PUBLIC",
            "CREATE FUNCTION public.stumble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF nextval('public.written') = 1 THEN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END IF;"
            " RETURN NULL; END $$",
            "CREATE TRIGGER stumble AFTER INSERT ON circuit.token EXECUTE FUNCTION public.stumble()",
        )
        started = await asyncio.gather(*(circuit.start("burst", {"n": number}) for number in range(5)))
        assert len(set(started)) == len(await circuit.cases()) == 5


async def test_a_burst_of_starts_waits_its_turn_and_each_is_written_down(database_url: str) -> None:
    async with Circuit.open(database_url, worker=False) as circuit:
        workflow = await circuit.load(FLOW)
        transactions, whole = 0, circuit.database.transaction

        def counted(tenant: int) -> object:
            nonlocal transactions
            transactions += 1
            return whole(tenant)

        circuit.database.transaction = counted  # type: ignore[method-assign, assignment]
        started = await asyncio.gather(*(circuit.start(workflow.id, {"n": number}) for number in range(500)))
        assert len(set(started)) == 500 and transactions < 40
        for number in (0, 250, 499):
            view = await circuit.case(started[number])
            assert [token.data for token in view.tokens] == [{"n": number}] and len(view.history) == 1
        async with whole(1) as connection:
            written = await ledger.entries(connection, 1, Sought(action="case.start"), limit=1000)
        assert {entry.target for entry in written} == set(started)


async def test_what_is_refused_in_a_burst_is_refused_alone(database_url: str) -> None:
    async with Circuit.open(database_url, worker=False) as circuit:
        await circuit.load(FLOW)
        told = await asyncio.gather(
            circuit.start("burst", {"n": 1}),
            circuit.start("no-such-workflow", {}),
            circuit.commands.start_case("burst", TokenInput({"n": 2}), principal=LOCAL, subjects=["ada"]),
            circuit.commands.start_case("burst", TokenInput({"n": 3}), principal=LOCAL, key="once"),
            circuit.commands.start_case("burst", TokenInput({"n": 3}), principal=LOCAL, key="once"),
            return_exceptions=True,
        )
        assert isinstance(told[1], NotFound)
        assert told[3] == told[4] and len({str(told[0]), str(told[2]), str(told[3])}) == 3
        assert len(await circuit.cases()) == 3


async def test_many_that_follow_at_once_are_answered_together_and_each_with_its_own(database_url: str) -> None:
    async with Circuit.open(database_url, worker=False) as circuit:
        await circuit.load(FLOW)
        cases = [
            circuit.key(one) for one in await asyncio.gather(*(circuit.start("burst", {"n": n}) for n in range(60)))
        ]
        nobody = CaseKey(1, uuid7(1, 1))
        transactions, whole = 0, circuit.database.transaction

        def counted(tenant: int) -> object:
            nonlocal transactions
            transactions += 1
            return whole(tenant)

        circuit.database.transaction = counted  # type: ignore[method-assign, assignment]
        log = Log(circuit.database)
        pages = await asyncio.gather(
            *(log.events(key, 0) for key in cases), log.events(cases[0], 1), log.events(nobody, 0),
            log.events(CaseKey(2, cases[0].case), 0),
        )  # fmt: skip
        standings = await asyncio.gather(*(circuit.queries.standing(key) for key in [*cases, nobody]))
    assert transactions < 10
    *pages, behind, missing, foreign = pages
    numbers = [page.events[0].event.produced[0].data["n"] for page in pages if page]  # type: ignore[attr-defined]
    assert numbers == list(range(60)) and missing is None and foreign is None
    assert behind is not None and behind.events == [] and not behind.ended
    assert standings[-1] is None and {one.seq for one in standings[:-1] if one} == {1}

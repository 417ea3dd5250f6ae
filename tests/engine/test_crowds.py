"""A case with very many tokens in one place: what it costs grows with them, and not with their square."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from running import engine, publish, start, until

from circuit.cli.outcome import print_tokens
from circuit.cli.terminal import Terminal
from circuit.engine.modification import MOST_CHANGES, Modification, NewToken
from circuit.errors import CircuitError, DefinitionError
from circuit.net.marking import Marking
from circuit.security.principal import LOCAL
from circuit.storage.database import Database

SIZES = (500, 2_000)
WORKFLOW = """
workflow: crowd
places: {begin: {initial: true}, ticket: {}, lying: {}, done: {terminal: true}}
transitions:
  make:
    from_places: begin
    to_places: [ticket, {place: lying, each: data.items, data: {n: item}, most: 10000}]
    trigger: {type: manual}
  pick: {from_places: lying, to_place: done, trigger: {type: manual}, conditions: ["data.n >= 0"]}
  clear: {from_places: lying, to_place: done, conditions: ["case.fired.pick > 0"]}
"""


class Touched(Marking):
    """Counts how often tokens are looked at."""

    __slots__ = ()
    times = 0

    @property
    def _tokens(self) -> Any:
        return _COUNTED.__get__(self)

    @_tokens.setter
    def _tokens(self, value: dict[int, Any]) -> None:
        _COUNTED.__set__(self, Counted(value))


class Counted(dict[int, Any]):
    def __getitem__(self, number: int) -> Any:
        Touched.times += 1
        return super().__getitem__(number)

    def get(self, number: int, default: Any = None) -> Any:
        Touched.times += 1
        return super().get(number, default)


_COUNTED = Marking.__dict__["_tokens"]


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Touched]]:
    monkeypatch.setattr("circuit.engine.memory.Marking", Touched)
    monkeypatch.setattr("circuit.engine.diagnosis.Marking", Touched, raising=False)
    yield Touched


async def test_loading_firing_and_asking_why_grow_with_the_tokens_and_no_faster(
    database: Database, touched: type[Touched]
) -> None:
    costs: dict[str, list[int]] = {"why": [], "all": []}
    async with engine(database) as running:
        await publish(running, WORKFLOW)
        for size in SIZES:
            key = await start(running, "crowd", {"items": list(range(size))})
            await until(running, key, "waiting")
            await running.commands.fire(key, "make", {}, principal=LOCAL)
            case = await until(running, key, "waiting")
            assert case.marking == {"ticket": 1, "lying": size}
            touched.times = 0
            found = await running.queries.why(key)
            assert found is not None and "pick" in found.summary
            costs["why"].append(touched.times)
            touched.times = 0
            # It is claimed, read and fired, and then all the others move by themselves, a thousand in a commit.
            assert (await running.commands.fire(key, "pick", {}, principal=LOCAL)).state == "applied"
            case = await until(running, key, "stuck")
            assert case.marking == {"ticket": 1, "done": size}
            costs["all"].append(touched.times)
    growth = SIZES[1] / SIZES[0]
    for what, (few, many) in costs.items():
        assert few > SIZES[0], f"{what}: {few} looks are fewer than there are tokens"
        assert many <= 1.5 * growth * few, f"{what}: {few} looks at {SIZES[0]} tokens, {many} at {SIZES[1]}"


def test_what_people_are_shown_of_them_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    """One long token does not make the lines of all the others long."""
    tokens: list[Any] = [
        SimpleNamespace(id=f"case.{n}", place="lying", data={"text": "x" * (5_000 if n == 1 else 5)}, metadata={})
        for n in range(1, 3_001)
    ]
    view: Any = SimpleNamespace(tokens=tokens, case_id="case")
    print_tokens(view, Terminal(), width=10_000)
    out = capsys.readouterr().out
    assert "2,900 tokens more in lying" in out
    assert len(out) < 5_000 + 100 * 300


@pytest.mark.parametrize("door", ["modify", "places", "each", "most"])
async def test_more_than_a_case_takes_at_once_is_refused_with_the_limit(door: str, database: Database) -> None:
    million = 1_000_000
    async with engine(database) as running:
        if door == "modify":
            with pytest.raises(
                CircuitError, match=f"{MOST_CHANGES:,} changes at a time, not by 1,000,000: ask"
            ) as told:
                Modification("many", put=[NewToken("lying", {}, {})] * million).as_payload()
            assert told.value.code == "invalid_request"
        elif door == "places":
            many = "{begin: {initial: true, tokens: [" + "{}," * 1_001 + "]}, "
            with pytest.raises(DefinitionError, match="1,000 entries at most"):
                await publish(running, WORKFLOW.replace("{begin: {initial: true}, ", many))
        elif door == "most":
            with pytest.raises(DefinitionError, match="most must be between 1 and 10,000, not 1000000"):
                await publish(running, WORKFLOW.replace("10000", str(million)))
        else:
            await publish(running, WORKFLOW)
            key = await start(running, "crowd", {"items": [0] * million})
            await until(running, key, "waiting")
            await running.commands.fire(key, "make", {}, principal=LOCAL)
            case = await until(running, key, "attention")
            [incident] = case.incidents
            assert (incident.code, case.marking) == ("mapping_error", {"begin": 1})
            assert "1000000 elements; at most 10000: make several lists" in incident.message

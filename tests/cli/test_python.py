"""The Python API: what the README promises in under ten lines, and what lies beneath the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit import Circuit
from circuit.app import CaseUpdate, StreamUpdate, SystemClock, SystemIds
from circuit.errors import DefinitionError, InvalidRequest, NotFound, ProviderMisconfigured, SchemaMismatch
from circuit.events import CaseEnded, FiringBegun, StreamType, TransitionFired
from circuit.settings import Settings
from tests.cli.commanding import WORKFLOWS, scripted_workflow


async def test_open_load_start_stream_wait(database_url: str) -> None:
    async with Circuit.open(database_url) as circuit:
        workflow = await circuit.load(WORKFLOWS / "hello.yaml")
        case = await circuit.start(workflow.id, {"name": "Ada"})
        happened = [happening async for happening in circuit.stream(case)]
        result = await circuit.wait(case)
    assert result.marking == {"said": 1}
    assert result.tokens[0].data == {"text": "Hello, Ada!"}
    events = [happening.event for happening in happened if isinstance(happening, CaseUpdate)]
    assert isinstance(events[-1], CaseEnded)


async def test_a_workflow_is_loaded_from_its_text(database_url: str) -> None:
    async with Circuit.open(database_url) as circuit:
        text = (WORKFLOWS / "hello.yaml").read_text()
        assert (await circuit.load(text)).id == "hello"
        with pytest.raises(DefinitionError):
            await circuit.load("workflow: x\n")
        with pytest.raises(InvalidRequest, match="cannot be read"):
            await circuit.load("nowhere.yaml")


async def test_a_stream_is_in_order(database_url: str, tmp_path: Path) -> None:
    """What an execution says comes between the event that begins it and the one that ends it."""
    file = scripted_workflow(tmp_path, responses="[one two three four five six]", delay=0.01)
    async with Circuit.open(database_url) as circuit:
        workflow = await circuit.load(file)
        case = await circuit.start(workflow.id)
        happened = [happening async for happening in circuit.stream(case)]
        again = [happening async for happening in circuit.stream(case)]
        silent = [happening async for happening in circuit.stream(case, silent=[f"{case}.1"])]
    kinds = [type(happening.event if isinstance(happening, CaseUpdate) else happening.frame) for happening in happened]
    frames = [happening.frame for happening in happened if isinstance(happening, StreamUpdate)]
    begun, fired = kinds.index(FiringBegun), kinds.index(TransitionFired)
    assert kinds[begun + 1 : fired] == [type(frames[0])] * len(frames)
    assert [frame.sequence for frame in frames] == list(range(1, len(frames) + 1))
    assert frames[-1].type is StreamType.COMPLETED
    assert [happening for happening in again if isinstance(happening, CaseUpdate)] == [
        happening for happening in happened if isinstance(happening, CaseUpdate)
    ]
    assert [happening.frame.body for happening in again if isinstance(happening, StreamUpdate)] == [
        frame.body for frame in frames
    ]
    assert not any(isinstance(happening, StreamUpdate) for happening in silent)


async def test_a_worker_takes_only_the_cases_that_it_is_told_to(database_url: str) -> None:
    async with Circuit.open(database_url, only=[]) as circuit:
        await circuit.load(WORKFLOWS / "hello.yaml")
        left = await circuit.start("hello")
        taken = await circuit.start("hello")
        circuit.take(taken)
        assert (await circuit.wait(taken)).status == "completed"
        assert (await circuit.case(left)).status == "running"
        circuit.take(left)
        assert (await circuit.wait(left)).status == "completed"


async def test_what_is_not_there(database_url: str) -> None:
    async with Circuit.open(database_url, worker=False) as circuit:
        with pytest.raises(NotFound):
            await circuit.start("nothing")
        with pytest.raises(NotFound):
            await circuit.case("0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11")
        with pytest.raises(InvalidRequest):
            await circuit.case("nothing")
        with pytest.raises(NotFound):
            await circuit.wait("0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11")


async def test_a_model_is_checked_without_being_asked(database_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=database_url, environment={})
    async with Circuit.open(settings=settings, worker=False) as circuit:
        workflow = await circuit.load(scripted_workflow(tmp_path))
        circuit.check_models(workflow, {})
        with pytest.raises(ProviderMisconfigured, match="OPENAI_API_KEY"):
            circuit.check_models(workflow, {"*": {"type": "openai", "model": "gpt-4.1-mini"}})
        # Where the first one lacks its key, one that falls in is enough; but not for one that was chosen.
        text = """
workflow: falling
places: {a: {initial: true}, b: {terminal: true}}
agents: {x: {llm_provider: {type: openai, model: gpt-4.1}, fallback: [{type: google, model: g}, {type: OTHER}]}}
transitions: {t: {from_places: a, to_place: b, agent_execution: x}}
"""
        falling = await circuit.load(text.replace("OTHER", "scripted"))
        circuit.check_models(falling, {})
        with pytest.raises(ProviderMisconfigured, match="GOOGLE_API_KEY"):
            circuit.check_models(falling, {"*": {"type": "google", "model": "g"}})
        hopeless = await circuit.load(text.replace("OTHER", "anthropic, model: c"))
        with pytest.raises(ProviderMisconfigured, match="OPENAI_API_KEY"):
            circuit.check_models(hopeless, {})


async def test_an_empty_database_is_refused_and_named(empty_database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="circuit db upgrade"):
        async with Circuit.open(empty_database_url):
            pass


async def test_the_embedded_database_is_migrated_when_it_is_opened(home: Path) -> None:
    heard: list[str] = []
    async with Circuit.open(home=home, progress=heard.append) as circuit:
        await circuit.load(WORKFLOWS / "hello.yaml")
        case = await circuit.start("hello")
        assert (await circuit.wait(case)).status == "completed"
    assert heard
    heard.clear()
    async with Circuit.open(home=str(home), worker=False, progress=heard.append) as circuit:
        assert (await circuit.case(case)).marking == {"said": 1}
    assert heard == []


def test_ids_only_ever_grow() -> None:
    ids = SystemIds(SystemClock())
    made = [ids.uuid() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(one.version == 7 for one in made)

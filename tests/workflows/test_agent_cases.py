"""Agents with tools and capabilities through the whole engine, on Postgres: what is stored and what is streamed."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_server import ChatServer

from circuit import Circuit
from circuit.actions.functions import action
from circuit.agents.tools import ToolContext
from circuit.app import StreamUpdate
from circuit.errors import DefinitionError
from circuit.events import StreamType
from circuit.settings import Settings

CLERK = """
workflow: clerk
places: {asked: {initial: true}, answered: {terminal: true}, gone: {terminal: true, outcome: failed}}
agents:
  clerk:
    llm_provider:
      type: scripted
      responses:
        - - {tool_calls: [{name: fs.write_file, arguments: {path: notes.txt, content: "one\\ntwo"}},
                          {name: fs.delete, arguments: {}}], response: "I write it down."}
          - {tool_calls: [{name: fs.wc, arguments: {path: notes.txt}}]}
          - {lines: 2}
          - {confidence: 0.9, issues: []}
    capabilities: [react, self_reflection]
    tools: [fs.*]
    policies: [{deny: fs.edit_file}]
    output_schema: {type: object, required: [lines], properties: {lines: {type: integer}}}
transitions:
  work:
    from_places: asked
    to_place: answered
    agent_execution:
      agent_id: clerk
      output_mapping: {data.lines: lines, data.sure: reasoning.confidence, data.usage: usage}
"""


async def test_an_agent_works_with_files_and_says_what_it_does(database_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=database_url)
    async with Circuit.open(settings=settings) as circuit:
        workflow = await circuit.load(CLERK)
        case = await circuit.start(workflow.id, {"n": 1})
        happened = [happening async for happening in circuit.stream(case)]
        result = await circuit.wait(case)
    assert result.marking == {"answered": 1}
    assert result.tokens[0].data["lines"] == 2
    assert result.tokens[0].data["sure"] == 0.9
    assert (tmp_path / "workspaces" / case / "notes.txt").read_text() == "one\ntwo"
    kinds = [update.frame.type for update in happened if isinstance(update, StreamUpdate)]
    assert kinds.count(StreamType.TOOL_CALL) == kinds.count(StreamType.TOOL_RESULT) == 3
    assert kinds[-1] is StreamType.COMPLETED
    bodies = [update.frame.body for update in happened if isinstance(update, StreamUpdate)]
    assert any(b'"tool_unknown"' in body for body in bodies)
    assert any(b'"status":"draft"' in body for body in bodies)


CHIEF = """
workflow: chief
places: {asked: {initial: true}, answered: {terminal: true}}
agents:
  chief:
    llm_provider:
      type: scripted
      responses: [[{tool_calls: [{name: agent.clerk, arguments: {task: Count it.}}]}, "The clerk counted two."]]
    tools: [{agent: clerk}]
  clerk:
    description: Counts lines.
    llm_provider:
      type: scripted
      responses: [[{tool_calls: [{name: fs.list, arguments: {}}]}, "Two lines."]]
    tools: [fs.list, {agent: chief}]
transitions:
  work: {from_places: asked, to_place: answered, agent_execution: {agent_id: chief, output_mapping: {data.said: text}}}
"""


async def test_an_agent_asks_another_one(database_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=database_url)
    async with Circuit.open(settings=settings) as circuit:
        workflow = await circuit.load(CHIEF)
        case = await circuit.start(workflow.id, {})
        happened = [happening async for happening in circuit.stream(case)]
        result = await circuit.wait(case)
    assert result.tokens[0].data["said"] == "The clerk counted two."
    frames = [update.frame for update in happened if isinstance(update, StreamUpdate)]
    calls = [frame.body for frame in frames if frame.type is StreamType.TOOL_CALL]
    assert [b'"agent.clerk"' in body for body in calls] == [True, False]
    assert b'"clerk/fs.list"' in calls[1]
    assert any(b'"agent clerk"' in frame.body and b"Two lines." in frame.body for frame in frames)
    assert not any(b"Two lines." in frame.body for frame in frames if frame.type is StreamType.CONTENT_CHUNK)


RELAY = """
workflow: relay
places: {asked: {initial: true}, answered: {terminal: true}}
agents:
  front:
    llm_provider:
      type: scripted
      responses: [[{tool_calls: [{name: hand_over.back, arguments: {why: It counts.}}]}, {lines: 0}]]
    tools: [{hand_over: back}]
    output_schema: {type: object, required: [lines], properties: {lines: {type: integer}}}
    conversation: case
  back:
    llm_provider: {type: scripted, responses: [[{tool_calls: [{name: fs.list, arguments: {}}]}, {lines: 2}]]}
    tools: [fs.list]
transitions:
  work:
    from_places: asked
    to_place: answered
    agent_execution: {agent_id: front, output_mapping: {data.lines: lines, data.by: agent_id}}
"""


async def test_an_agent_hands_over_and_the_other_one_answers(database_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=database_url)
    async with Circuit.open(settings=settings) as circuit:
        workflow = await circuit.load(RELAY)
        case = await circuit.start(workflow.id, {})
        frames = [one.frame.body async for one in circuit.stream(case) if isinstance(one, StreamUpdate)]
        result = await circuit.wait(case)
        (kept,) = await circuit.conversations.list(circuit.principal, case=circuit.key(case).case)
        said = await circuit.conversations.messages(circuit.principal, kept.id)
    assert (result.tokens[0].data["lines"], result.tokens[0].data["by"]) == (2, "back")
    assert sum(b"back takes over from front" in frame for frame in frames) == 1
    assert [one.agent_id for one in said] == [None, None, None, "back", "back", "back"]


GATED = """
workflow: gated
places: {asked: {initial: true}, answered: {terminal: true}}
agents:
  clerk:
    llm_provider: {type: custom, model: m, base_url: "${MODEL}"}
    tools: [fs.*]
    policies: [{require_approval: fs.write_file, roles: [editor]}]
transitions:
  work: {from_places: asked, to_place: answered, agent_execution: {agent_id: clerk, output_mapping: {data.said: text}}}
"""


@pytest.mark.parametrize("approved", [True, False])
async def test_a_person_allows_a_call_and_another_process_goes_on(
    database_url: str, tmp_path: Path, approved: bool
) -> None:
    calls = [{"name": "fs_write_file", "arguments": {"path": "a.txt", "content": "yes"}}]
    async with ChatServer([{"calls": calls}, {"text": "Done."}]) as server:
        settings = Settings(home=tmp_path, database_url=database_url, environment={"MODEL": server.url})
        async with Circuit.open(settings=settings) as circuit:
            workflow = await circuit.load(GATED)
            case = await circuit.start(workflow.id, {})
            await circuit.wait(case)
            why = await circuit.why(case)
            assert "for somebody of editor to allow its call of fs.write_file" in why.summary
        written = tmp_path / "workspaces" / case / "a.txt"
        assert not written.exists()
        async with Circuit.open(settings=settings) as circuit:
            await circuit.signal(case, 1, {"approved": approved, "reason": "not now"})
            result = await circuit.wait(case)
        assert result.tokens[0].data["said"] == "Done."
        assert written.exists() is approved
        assert len(server.requests) == 2, "the answer that asked for the call was not asked for again"
        assert ("not now" in str(server.requests[1].body)) is not approved


BORROWED = """
workflow: borrowed
places: {asked: {initial: true}, answered: {terminal: true}}
transitions:
  work: {from_places: asked, to_place: answered, agent_execution: {agent_id: chief, output_mapping: {data.said: text}}}
"""


async def test_a_workflow_takes_agents_that_are_published_as_they_are_then(database_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=database_url)
    async with Circuit.open(settings=settings) as circuit:
        with pytest.raises(DefinitionError, match="there is no agent 'chief'"):
            await circuit.load(BORROWED)
        await circuit.load(CHIEF)
        first = await circuit.load(BORROWED)
        assert sorted(first.agents) == ["chief", "clerk"]
        case = await circuit.start(first.id, {})
        assert (await circuit.wait(case)).tokens[0].data["said"] == "The clerk counted two."
        assert (await circuit.load(BORROWED)).hash == first.hash
        await circuit.load(CHIEF.replace("counted two", "counted three"))
        assert (await circuit.load(BORROWED)).hash != first.hash


LIBRARIAN = """
workflow: librarian
places: {asked: {initial: true}, answered: {terminal: true}}
agents:
  librarian:
    llm_provider:
      type: scripted
      responses: [[{tool_calls: [{name: look_up, arguments: {isbn: "1"}}, {name: shelf, arguments: {}}]}, "Found."]]
    tools: [look_up, "she*"]
transitions:
  work:
    from_places: asked
    to_place: answered
    agent_execution: {agent_id: librarian, output_mapping: {data.said: text}}
"""


async def test_python_functions_are_tools(database_url: str, tmp_path: Path) -> None:
    seen: list[str] = []

    def look_up(isbn: str, language: str = "en") -> dict[str, str]:
        """Looks a book up."""
        seen.append(f"{isbn} {language}")
        return {"title": "A book"}

    async def shelf(around: ToolContext) -> str:
        """Says where it stands."""
        seen.append(around.agent_id)
        return "left"

    def look_around() -> str:
        seen.append("around")
        return "there"

    settings = Settings(home=tmp_path, database_url=database_url)
    async with Circuit.open(settings=settings, tools=[look_up, shelf]) as circuit:
        workflow = await circuit.load(LIBRARIAN)
        case = await circuit.start(workflow.id, {})
        assert (await circuit.wait(case)).tokens[0].data["said"] == "Found."
    assert sorted(seen) == ["1 en", "librarian"]
    # The functions of a module of actions are tools too, wherever cases are worked on.
    async with Circuit.open(settings=settings, actions=[look_up, action(name="shelf")(look_around)]) as circuit:
        case = await circuit.start(workflow.id, {})
        assert (await circuit.wait(case)).tokens[0].data["said"] == "Found."
    assert sorted(seen) == ["1 en", "1 en", "around", "librarian"]
    async with Circuit.open(settings=settings) as circuit:
        case = await circuit.start(workflow.id, {})
        assert "there is no tool 'look_up'" in str((await circuit.wait(case)).as_dict())

"""Agents with tools and capabilities through the whole engine, on Postgres: what is stored and what is streamed."""

from __future__ import annotations

from pathlib import Path

from circuit import Circuit
from circuit.app import StreamUpdate
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

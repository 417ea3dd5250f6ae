"""`circuit conversations` and `circuit run --conversation`: what agents remember, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commanding import Command

TALKER = """
workflow: talker
places: {asked: {initial: true}, told: {terminal: true}}
agents:
  talker:
    llm_provider: {type: scripted, responses: [[{tool_calls: [{name: fs.list, arguments: {}}]}, "Nothing there."]]}
    tools: [fs.list]
    conversation: token
transitions: {answer: {from_places: asked, to_place: told, agent_execution: talker}}
"""


def test_conversations_are_listed_shown_forked_and_gone_on_with(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "talker.yaml"
    file.write_text(TALKER)
    home = {"CIRCUIT_HOME": str(tmp_path / "home")}
    assert circuit("conversations", "list", **home).out == "no conversations\n"
    case = json.loads(circuit("run", file, "--json").out)["case_id"]
    (kept,) = json.loads(circuit("conversations", "list", "--agent", "talker", "--case", case, "--json").out)
    assert (kept["agent_id"], kept["token"], kept["messages"]) == ("talker", f"{case}.1", 4)
    conversation = kept["conversation_id"]
    assert conversation in circuit("conversations", "list").out
    shown = circuit("conversations", "show", conversation).out
    assert "2 assistant: > fs.list {}" in shown
    assert "4 assistant: Nothing there." in shown
    said = json.loads(circuit("conversations", "show", conversation, "--after", "3", "--json").out)["said"]
    assert [(one["number"], one["role"]) for one in said] == [(4, "assistant")]
    fork = json.loads(circuit("conversations", "fork", conversation, "--json").out)
    assert (fork["messages"], fork["forked_from"], fork["created_by"]) == (4, conversation, "local")
    again = circuit("run", file, "--conversation", f"talker={fork['conversation_id']}", "--json")
    (grown,) = json.loads(circuit("conversations", "list", "--case", json.loads(again.out)["case_id"], "--json").out)
    assert grown["messages"] == 8
    assert circuit("run", file, "--conversation", "talker").code == 2
    assert circuit("run", file, "--conversation", f"nobody={conversation}").code == 2
    assert circuit("conversations", "show", case).code == 2
    assert circuit("conversations", "fork", conversation, "--after", "5").code == 2

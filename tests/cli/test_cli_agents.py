"""`circuit agents`, `circuit tools`, `circuit chat`: what they show, and that they need no database."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from circuit.cli.main import main
from tests.cli.commanding import Command, Outcome

CLERK = """
workflow: clerk
places: {asked: {initial: true}, answered: {terminal: true}}
agents:
  clerk:
    llm_provider:
      type: scripted
      responses: [[{tool_calls: [{name: fs.write_file, arguments: {path: a.txt, content: hi}}]}, "Written, {name}."]]
    prompts: {system: "You are a clerk.", user_template: "Write for {name}."}
    capabilities: [react]
    tools: [fs.*]
    policies:
      - deny: fs.edit_file
      - {require_approval: fs.wc, roles: [editor]}
      - {require: fs.stat, before: fs.head}
      - {limit: "fs.h*", to: 2}
transitions:
  work: {from_places: asked, to_place: answered, agent_execution: {agent_id: clerk, input_mapping: {name: data.name}}}
"""


HELPERS = """\
  helper: {llm_provider: {type: scripted, responses: ["Yes."]}}
  clerk:
"""
"""Another agent of the file, whom the clerk asks and hands over to."""


TALKER = """
workflow: talker
places: {asked: {initial: true}, answered: {terminal: true}}
agents:
  talker:
    llm_provider: {type: scripted, responses: ["Ada.", "Today."]}
    prompts: {system: "You talk."}
transitions:
  talk: {from_places: asked, to_place: answered, agent_execution: talker}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIRCUIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CIRCUIT_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    path = tmp_path / "clerk.yaml"
    path.write_text(CLERK)
    return path


def test_agents_are_listed_and_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents", "list", str(file)]) == 0
    assert "scripted:scripted" in capsys.readouterr().out
    assert main(["agents", "list", str(file), "--json"]) == 0
    (agent,) = json.loads(capsys.readouterr().out)["agents"]
    assert (agent["id"], agent["capabilities"], agent["tools"]) == ("clerk", ["react"], ["fs.*"])
    asking = CLERK.replace("  clerk:\n", HELPERS).replace("[fs.*]", "[fs.*, agent: helper, hand_over: helper]")
    file.write_text(asking)
    assert main(["validate", str(file)]) == 0
    assert "is valid (2 places, 1 transition, 2 agents)" in capsys.readouterr().out
    assert main(["agents", "list", str(file)]) == 0
    assert "  fs.*, agent.helper, hand_over.helper\n" in capsys.readouterr().out
    file.write_text(CLERK)
    assert main(["agents", "show", str(file), "clerk"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"]["system"] == "You are a clerk."
    assert main(["agents", "show", str(file), "nobody"]) == 2
    assert "it has: clerk" in capsys.readouterr().err


def test_an_agent_is_tried(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents", "test", str(file), "--input", '{"name": "Ada"}']) == 0
    out = capsys.readouterr().out
    assert '> fs.write_file {"path":"a.txt","content":"hi"}' in out
    assert "Written, {name}." in out
    assert (tmp_path / "home" / "workspaces" / "cli" / "a.txt").read_text() == "hi"
    assert main(["agents", "test", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "Written, {name}."
    assert main(["agents", "test", str(file), "--model", "openai:gpt-4o"]) == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err


def test_tools_are_listed_and_called(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", "list", str(file)]) == 0
    assert "fs.read_file" in capsys.readouterr().out
    assert main(["tools", "list", str(file), "--json"]) == 0
    listed = {tool["name"]: tool for tool in json.loads(capsys.readouterr().out)}
    assert listed.keys() > {"fs.grep", "fs.csv_query"}
    line = CLERK.splitlines().index("      - deny: fs.edit_file") + 1
    limit = {"policy": 4, "says": "allows 2 calls of fs.h* in a run", "line": line + 3}
    for name, access, *policies in (
        ("fs.grep", "allowed"),
        ("fs.edit_file", "denied", {"policy": 1, "says": "denies fs.edit_file", "line": line}),
        ("fs.wc", "needs_approval", {"policy": 2, "says": "asks for approval of fs.wc by editor", "line": line + 1}),
        ("fs.head", "allowed", {"policy": 3, "says": "asks for fs.stat before fs.head", "line": line + 2}, limit),
    ):
        assert (listed[name]["access"], listed[name]["policies"]) == (access, policies)
    assert main(["tools", "list", str(file)]) == 0
    assert f"denied: policy 1 (line {line}) denies fs.edit_file" in capsys.readouterr().out
    assert main(["agents", "show", str(file)]) == 0
    shown = {one["tool"]: one for one in json.loads(capsys.readouterr().out)["access"]}
    assert shown["fs.wc"] == {"tool": "fs.wc", **{key: listed["fs.wc"][key] for key in ("access", "policies")}}
    written = json.dumps({"path": "b.txt", "content": "x"})
    assert main(["tools", "call", str(file), "fs.write_file", "--arguments", written]) == 0
    assert json.loads(capsys.readouterr().out) == "wrote 1 bytes to b.txt"
    assert main(["tools", "call", str(file), "fs.edit_file"]) == 1
    assert "a policy denies fs.edit_file" in capsys.readouterr().err
    assert main(["tools", "call", str(file), "fs.nosuch"]) == 2


def test_a_chat_goes_on_until_nothing_is_said(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Write something.\nAnd again.\n"))
    assert main(["chat", str(file)]) == 0
    out, err = capsys.readouterr()
    assert "nothing of this conversation is kept: " in err
    assert out.count("> fs.write_file") == 2
    assert out.count("Written, {name}.") == 2


def test_a_chat_is_kept_continued_listed_and_copied(
    circuit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "talker.yaml"
    file.write_text(TALKER)

    def chat(said: str, *arguments: str) -> Outcome:
        monkeypatch.setattr("sys.stdin", io.StringIO(said))
        return circuit("chat", file, *arguments, CIRCUIT_HOME=str(tmp_path / "home"))

    first = chat("Who?\nBy when?\n")
    assert (first.code, first.out.splitlines()) == (0, ["Ada.", "Today."])
    [told] = [line for line in first.err.splitlines() if "--continue" in line]
    conversation = told.rpartition(" ")[2]
    again = chat("And now?\n", "--continue", conversation)
    # The agent hears what was said before, and so does who goes on with it.
    assert [line.partition(": ")[2] for line in again.out.splitlines()[:4]] == ["Who?", "Ada.", "By when?", "Today."]
    shown = circuit("conversations", "show", conversation, "--json").json
    assert [(one["role"], one["parts"][0]["text"]) for one in shown["said"]] == [
        ("user", "Who?"), ("assistant", "Ada."), ("user", "By when?"), ("assistant", "Today."),
        ("user", "And now?"), ("assistant", "Ada."),
    ]  # fmt: skip
    assert conversation in circuit("chat", file, "--list").out
    assert conversation in circuit("chat", "--list").out
    # What nobody keeps, and what belongs to somebody else.
    assert "--continue" not in chat("Who?\n", "--no-store").err
    other = file.with_name("other.yaml")
    other.write_text(TALKER.replace("talker", "other"))
    assert "no conversations" in circuit("chat", other, "--list").out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    copied = circuit("chat", other, "--continue", conversation)
    assert "other goes on with a copy" in copied.err
    assert chat("x", "--continue", "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11").code != 0
    assert chat("x", "--continue", conversation, "--no-store").code == chat("x", "--list", "--no-store").code == 2
    assert circuit("chat").code == 2


def test_ctrl_c_interrupts_an_answer_and_at_the_prompt_lets_go_at_once(file: Path) -> None:
    # It calls a tool at once, and says nothing for a long time then.
    says = '[[{tool_calls: [{name: fs.list}]}, "Late."]], delay_seconds: 600'
    tools = 'prompts: {system: "You talk."}\n    tools: [fs.list]'
    file.write_text(TALKER.replace('["Ada.", "Today."]', says).replace('prompts: {system: "You talk."}', tools))
    inside, outside = pty.openpty()
    program = [sys.executable, "-m", "circuit", "chat", str(file), "--no-store"]
    process = subprocess.Popen(program, stdin=outside, stdout=outside, stderr=outside, start_new_session=True)
    os.close(outside)
    try:
        shown = b""

        def until(text: bytes) -> None:
            nonlocal shown
            while text not in shown:
                shown += os.read(inside, 4096)
            shown = shown.partition(text)[2]

        until(b"you> ")
        os.write(inside, b"Well?\n")
        until(b"< []")
        process.send_signal(signal.SIGINT)
        until(b"interrupted")
        until(b"you> ")
        process.send_signal(signal.SIGINT)
        # Nothing more is typed.
        assert process.wait(60) == 130
    finally:
        process.kill()
        os.close(inside)


FRAGMENT = """
llm_provider: {type: scripted, responses: ["Hello {name}."]}
prompts: {user_template: "Greet {name}."}
"""
USES = """
workflow: uses
places: {asked: {initial: true}, told: {terminal: true}}
transitions:
  greet:
    from_places: asked
    to_place: told
    agent_execution: {agent_id: greeter, input_mapping: {name: data.name}, output_mapping: {data.said: text}}
"""


INCLUDES = """
workflow: includes
include: greeting.yaml
places: {asked: {initial: true}, told: {terminal: true}}
transitions: {}
"""


def test_an_agent_is_published_and_used_by_its_id(circuit: Command, tmp_path: Path) -> None:
    fragment, uses = tmp_path / "greeter.yaml", tmp_path / "uses.yaml"
    fragment.write_text(FRAGMENT)
    uses.write_text(USES)
    home = {"CIRCUIT_HOME": str(tmp_path / "home")}
    assert circuit("load", uses, **home).code == 2
    added = circuit("agents", "add", "greeter", fragment, "--description", "Greets.", "--json")
    assert (added.code, json.loads(added.out)["new"]) == (0, True)
    assert "is already published" in circuit("agents", "add", "greeter", fragment, "--description", "Greets.").out
    listed = circuit("agents", "list", "--json")
    assert [one["id"] for one in json.loads(listed.out)["agents"]] == ["greeter"]
    assert json.loads(circuit("agents", "show", "greeter").out)["description"] == "Greets."
    assert "Hello {name}." in circuit("agents", "test", "greeter", "--input", '{"name": "Ada"}').out
    assert circuit("validate", uses).code == 2
    assert circuit("validate", "--published", uses).code == 0
    ran = circuit("run", uses, "--set", "data.name=Ada", "--json")
    assert (ran.code, json.loads(ran.out)["tokens"][0]["data"]["said"]) == (0, "Hello {name}.")
    # The same where only a fragment names it, and for what looks at a file without running it.
    includes = tmp_path / "includes.yaml"
    includes.write_text(INCLUDES)
    (tmp_path / "greeting.yaml").write_text("fragment: greeting\n" + USES[USES.index("transitions:") :])
    assert circuit("load", includes).code == 0
    for file in (uses, includes):
        assert "sound" in circuit("analyse", file).out
        assert "greeter" in circuit("draw", file).out
        simulated = circuit("simulate", file, "--cases", "2", "--set", "data.name=Ada", "--json")
        assert simulated.json["statuses"] == {"completed": 2}
    front = ("agents", "add", "front", "--model", "openai:gpt-4.1-mini", "--system", "Hi.", "--tool", "fs.*")
    assert circuit(*front, "--capability", "react").code == 0
    shown = json.loads(circuit("agents", "show", "front").out)
    assert (shown["llm_provider"]["model"], shown["capabilities"]) == ("gpt-4.1-mini", [{"name": "react"}])
    wrong = circuit("agents", "add", "other", "--capability", "reakt", "--model", "openai:m")
    assert (wrong.code, "agent other: capabilities[0]: " in wrong.err) == (2, True)
    for text in ("tools: [fs.*]\npolicies:\n  - deny: nope\n", "agents:\n  other:\n    policies: [{deny: nope}]\n"):
        fragment.write_text(text)
        wrong = circuit("agents", "add", "other", fragment, "--model", "openai:gpt-4o", "--tool", "fs.*")
        assert f"{fragment}:3:{text.splitlines()[2].index('nope') + 1}: policies[0].deny: " in wrong.err
    fragment.write_text(FRAGMENT + "images: [photo]\n")
    assert circuit("agents", "add", "seeing", fragment).code == 0
    assert circuit("agents", "show", "nobody").code != 0
    missing = circuit("agents", "add", "nobody", tmp_path / "uses.yaml")
    assert missing.code == 2


def test_without_a_database_it_is_said_why_a_published_agent_is_missing(bare: Command, tmp_path: Path) -> None:
    uses, home = tmp_path / "uses.yaml", tmp_path / "home"
    uses.write_text(USES)
    for command in ("analyse", "draw", "simulate"):
        ended = bare(command, uses)
        assert ended.code == 2
        assert "does not define greeter, and no database could be asked" in ended.err
        assert "there is no agent 'greeter'" in ended.err
    # None is made for that.
    assert "there is no database in" in bare("draw", uses, CIRCUIT_DATABASE_URL="", CIRCUIT_HOME=str(home)).err
    assert not home.exists()

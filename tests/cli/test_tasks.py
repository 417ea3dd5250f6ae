"""`circuit tasks` and `circuit complete`; `circuit approvals`, `approve` and `refuse`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commanding import Command

WORKFLOW = """
workflow: approval
places: [asked, answered]
transitions:
  approve:
    from_places: asked
    to_place: answered
    action:
      type: human
      form: {type: object, required: [approved], properties: {approved: {type: boolean}}}
      output_mapping: {data.approved: approved}
"""


def test_tasks_are_listed_and_completed(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "approval.yaml"
    file.write_text(WORKFLOW)
    started = circuit("run", str(file), "--json")
    assert started.code == 3, started.err
    [task] = circuit("tasks", "--workflow", "approval", "--json").json
    assert task["title"] == "approve" and task["case_id"] == started.json["case_id"]
    assert task["task"] in circuit("tasks").out
    assert circuit("complete", task["task"], "--set", "approved=perhaps").code == 1
    done = circuit("complete", task["task"], "--data", "{}", "--set", "approved=true", "--json")
    assert done.code == 0 and done.json["status"] == "completed", done.err
    again = circuit("complete", task["task"], "--set", "approved=false", "--json")
    assert again.code == 1 and again.json["error"]["code"] == "conflict"
    assert circuit("tasks", "--workflow", "approval").out.strip() == "no tasks"
    assert circuit("complete", "nonsense").code == 2
    assert circuit("complete", task["task"], "--set", "approved").code == 2


PAYING = """
workflow: paying
places: {asked: {initial: true}, done: {terminal: true}}
agents:
  clerk:
    llm_provider:
      type: scripted
      responses:
        - - {tool_calls: [{name: fs.write_file, arguments: {path: a.txt, content: "100"}}], response: ""}
          - {tool_calls: [{name: fs.write_file, arguments: {path: a.txt, content: "90​"}}], response: ""}
          - Written.
    tools: [fs.*]
    policies: [{require_approval: fs.write_file, roles: [cashier], timeout: 2d}]
transitions:
  pay: {from_places: asked, to_place: done, agent_execution: {agent_id: clerk, output_mapping: {data.said: text}}}
"""


def test_calls_of_tools_are_seen_whole_and_each_is_decided_on_for_itself(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "paying.yaml"
    file.write_text(PAYING)
    home = tmp_path / "home"
    started = circuit("run", str(file), CIRCUIT_HOME=str(home))
    assert started.code == 3 and "waits for somebody to allow the call of a tool (circuit approvals)" in started.out
    assert "for at most 2 d" in started.out and "of cashier to allow its call of fs.write_file" in started.out
    [first] = circuit("approvals", "--json").json
    execution = first["execution_id"]
    assert (first["agent"], first["tool"], first["roles"]) == ("clerk", "fs.write_file", ["cashier"])
    shown = circuit("approvals", "--case", first["case_id"]).out
    assert 'clerk asks to call fs.write_file {"path":"a.txt","content":"100"}' in shown
    assert f"circuit approve {execution} --call {first['call']}" in shown
    assert f"circuit approvals --case {first['case_id']}" in circuit("why", first["case_id"]).out

    assert circuit("refuse", execution, "--reason", "too much").code == 0
    late = circuit("approve", execution, "--call", first["call"])
    assert late.code == 1 and "waits with another call by now" in late.err
    assert not list(home.rglob("a.txt"))
    [second] = circuit("approvals", "--json").json
    assert second["call"] != first["call"] and r"90\u200b" in circuit("approvals").out, "what nobody sees is shown"
    allowed = circuit("approve", execution, "--call", second["call"], "--json")
    assert allowed.code == 0 and allowed.json["status"] == "completed", allowed.err
    assert [one.read_text() for one in home.rglob("a.txt")] == ["90​"]
    assert circuit("approve", execution).code == 1 and circuit("refuse", "nonsense").code == 2
    assert circuit("approvals").out.strip() == "no call of a tool waits to be allowed"

"""`circuit tasks` and `circuit complete`."""

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

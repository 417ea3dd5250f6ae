"""A case that opens another one, from `circuit run` to `circuit show`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commanding import Command

CHILD = """
workflow: credit
places: [asked, known]
transitions:
  ask:
    from_places: asked
    to_place: known
    action: {type: human, form: {type: object, required: [score]}, output_mapping: {data.score: score}}
"""
PARENT = """
workflow: order
places: [open, checked]
transitions:
  check:
    from_places: open
    to_place: checked
    action: {type: subworkflow, workflow: credit, output_mapping: {data.score: score, data.credit: case_id}}
"""


def test_one_worker_for_one_case_runs_what_that_opens(circuit: Command, tmp_path: Path) -> None:
    for name, text in (("credit", CHILD), ("order", PARENT)):
        (tmp_path / f"{name}.yaml").write_text(text)
    refused = circuit("run", str(tmp_path / "order.yaml"))
    assert refused.code == 2 and "there is no such workflow" in refused.err
    assert circuit("load", str(tmp_path / "credit.yaml")).code == 0
    started = circuit("run", str(tmp_path / "order.yaml"), "--json")
    assert started.code == 3, started.err
    parent = started.json["case_id"]
    [task] = circuit("tasks", "--json").json
    shown = circuit("show", parent)
    assert f"opened case {task['case_id']} of the workflow credit: waiting" in shown.out
    assert f"circuit why {task['case_id']}" in circuit("why", parent).out
    assert circuit("complete", task["task"], "--set", "score=7").code == 0
    done = circuit("run", "--resume", parent, "--json")
    assert done.code == 0, done.err
    [token] = done.json["tokens"]
    assert token["data"] == {"score": 7, "credit": task["case_id"]}
    assert f"opened by the execution {parent}.1" in circuit("show", task["case_id"]).out

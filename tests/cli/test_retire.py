"""`circuit retire` and `circuit unretire`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commanding import Command, scripted_workflow


def test_a_workflow_is_retired_and_taken_back(circuit: Command, tmp_path: Path) -> None:
    circuit("load", scripted_workflow(tmp_path))
    retired = circuit("retire", "story")
    assert (retired.code, retired.out.strip()) == (
        0,
        "workflow story is retired: its cases go on, and no new ones begin",
    )
    assert "is already retired" in circuit("retire", "story").out
    back = circuit("unretire", "story", "--json").json
    assert back == {"workflow": "story", "retired": False, "changed": True}
    unknown = circuit("retire", "storey")
    assert unknown.code != 0 and "did you mean 'story'" in unknown.err

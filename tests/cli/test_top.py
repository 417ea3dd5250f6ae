"""`circuit top`: one look at a deployment, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commanding import Command, scripted_workflow


def test_a_look_counts_what_is_there(circuit: Command, tmp_path: Path) -> None:
    file = scripted_workflow(tmp_path)
    for _ in range(2):
        assert circuit("run", file, "--json").code == 0
    assert circuit("load", file).code == 0
    looked = circuit("top", "--once", "--json", "--every", "0.1")
    assert looked.code == 0, looked.err
    shown = json.loads(looked.out)
    assert shown["cases"] == {"completed": 2}
    assert shown["executions"] == {"completed": 2}
    assert shown["tokens"] > 0
    assert shown["queue"] == {"cases": 0, "oldest_seconds": 0.0}
    assert shown["events_per_second"] >= 0
    assert shown["workers"] == []
    printed = circuit("top", "--once", "--every", "0.1", "--window", "10m")
    assert printed.code == 0, printed.err
    assert "2 completed" in printed.out
    assert "cases of the last 10m" in printed.out
    for wrong in ("soon", "0s", "-1h", "9999d"):
        refused = circuit("top", "--once", "--window", wrong)
        assert refused.code == 2
        assert "--window" in refused.err

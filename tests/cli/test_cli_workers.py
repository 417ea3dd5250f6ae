"""`circuit workers` on a worker in a process of its own."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commanding import Command, Spawn, scripted_workflow


def test_a_worker_is_listed_asked_and_drained(
    circuit: Command, spawned: Spawn, database_url: str, tmp_path: Path
) -> None:
    worker = spawned("worker", CIRCUIT_DATABASE_URL=database_url, CIRCUIT_LEASE_SECONDS="6")
    worker.read_until(b"ready")
    assert circuit("load", scripted_workflow(tmp_path)).code == 0
    [listed] = circuit("workers", "--json").json
    assert (listed["pid"], listed["state"], listed["cases"]) == (worker.pid, "alive", 0)
    assert str(worker.pid) in circuit("workers").out
    name = listed["worker_id"]
    released = circuit("workers", "release", name, "--json")
    assert (released.code, released.json) == (0, {"state": "done", "worker_id": name, "released": []})
    refused = circuit("workers", "release", name, "--fence")
    assert refused.code == 2 and "lives" in refused.err
    drained = circuit("workers", "drain", name[:13], "--wait", "120", "--json")
    assert (drained.code, drained.json) == (0, {"worker_id": name, "ended": True})
    assert worker.wait() == 0, "the process ends with its worker"
    assert circuit("workers").out == "no workers; `circuit worker` starts one\n"
    [ended] = circuit("workers", "--all", "--json").json
    assert ended["state"] == "retired"
    assert circuit("workers", "drain", name).code == 2

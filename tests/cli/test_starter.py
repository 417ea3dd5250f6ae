"""What `circuit init` writes is sound, runs, and passes its own test; and nothing that was there is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from circuit.definition import json_schema
from tests.cli.commanding import PROCESS_SECONDS, Command

FILES = ["ticket.yaml", "test_ticket.py", "workflow.schema.json", "README.md", ".gitignore"]


def test_a_start_is_valid_proven_runs_and_its_test_passes(
    circuit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "meine Ablage \u00fc"
    begun = circuit("init", folder, "--json").json
    assert (begun["folder"], begun["written"], begun["kept"]) == (str(folder), FILES, [])
    assert begun["next"][0] == f"cd '{folder}'" and begun["next"][1].endswith("circuit validate ticket.yaml")
    monkeypatch.chdir(folder)
    checked = circuit("validate", "ticket.yaml", "--json").json
    assert checked["valid"] and "warnings" not in checked["files"][0]
    proofs = circuit("analyse", "ticket.yaml", "--json")
    told = {
        name: found["verdict"] for name, found in proofs.json.items() if isinstance(found, dict) and "verdict" in found
    }
    assert proofs.code == 0 and "unknown" not in told.values() and told["soundness"] == "proven", told
    for text, place in (("The server is on fire", "urgent"), ("A comma is missing", "later")):
        ran = circuit("run", "ticket.yaml", "--json", "--set", f"data.text={text}")
        assert (ran.code, ran.json["marking"]) == (0, {place: 1}), ran.err
    assert orjson.loads((folder / "workflow.schema.json").read_bytes()) == json_schema()
    assert (folder / "ticket.yaml").read_text().startswith("# yaml-language-server: $schema=workflow.schema.json\n")
    tested = subprocess.run([sys.executable, "-m", "unittest"], capture_output=True, text=True, timeout=PROCESS_SECONDS)
    assert tested.returncode == 0 and "Ran 3 tests" in tested.stderr, tested.stderr


def test_nothing_is_overwritten(bare: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".gitignore").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    begun = bare("init")
    assert begun.code == 0 and "kept README.md: it was there already" in begun.out
    assert "cd " not in begun.out and "Next:" in begun.out
    assert (tmp_path / "README.md").read_text() == "mine" and not (tmp_path / "nowhere").exists()
    before = {name: (tmp_path / name).read_text() for name in FILES[:4]}
    again = bare("init", tmp_path, "--json")
    assert (again.code, again.json["error"]["code"]) == (2, "conflict")
    assert "ticket.yaml and test_ticket.py already: nothing was written" in again.json["error"]["message"]
    assert before == {name: (tmp_path / name).read_text() for name in FILES[:4]}
    for name in ("README.md", "README.md/below"):
        refused = bare("init", name)
        assert refused.code == 2 and "is a file" in refused.err

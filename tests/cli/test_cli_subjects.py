"""`circuit subjects`: cases of a person found, exported and erased."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commanding import Command

SECRET = "Lovelace-1815"
FLOW = """
workflow: letter
subject: data.to
places: {begin: {initial: true}, open: {}, end: {terminal: true}}
transitions:
  write: {from_places: begin, to_place: end, conditions: ["!has(data.wait)"]}
  hold: {from_places: begin, to_place: open, conditions: [has(data.wait)]}
  send: {from_places: open, to_place: end, trigger: {type: manual}}
"""


def test_what_is_held_of_a_person_is_exported_and_erased(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "letter.yaml"
    file.write_text(FLOW)
    ended, waiting = (
        circuit("run", str(file), "--json", "--token", json.dumps({"to": "ada", "text": SECRET, **more})).json
        for more in ({}, {"wait": True})
    )
    listed = circuit("subjects", "cases", "ada", "--json").json
    assert [(one["case_id"], one["status"]) for one in listed] == [
        (ended["case_id"], "completed"),
        (waiting["case_id"], "waiting"),
    ]
    assert circuit("subjects", "add", "eve", ended["case_id"], "--json").json == {"cases": 1}
    out = tmp_path / "ada.jsonl"
    assert circuit("subjects", "export", "ada", "--out", str(out)).code == 0
    assert SECRET in out.read_text() and oct(out.stat().st_mode)[-3:] == "600"
    assert {json.loads(line)["table"] for line in out.read_text().splitlines()} >= {"case", "token", "history"}
    again = circuit("subjects", "export", "ada", "--out", str(out))
    assert again.code == 2 and "cannot be written" in again.err

    refused = circuit("subjects", "erase", "ada")
    assert refused.code == 2 and waiting["case_id"] in refused.err
    assert circuit("subjects", "erase", "ada", "--dry-run", "--json").json["cases"] == 2
    done = circuit("subjects", "erase", "ada", "--cancel", "--json")
    assert (done.code, done.json["cases"], done.json["dry_run"]) == (0, 2, False)
    shown = circuit("show", ended["case_id"], "--json")
    assert SECRET not in shown.out and "$erased" in shown.out
    assert "2 of them erased" in circuit("fsck").out
    assert circuit("subjects", "cases", "eve").out.count("completed") == 1

"""`circuit draw`: which format, where to, and the run that a proof found."""

from __future__ import annotations

from pathlib import Path

from circuit.net.analysis.pnml import read_pnml
from tests.cli.commanding import WORKFLOWS, Command

STEALS = """workflow: steals
places: {a: {initial: true}, b: {}, c: {}, d: {terminal: true}}
transitions:
  split: {from_places: a, to_places: [b, c]}
  join: {from_places: [b, c], to_place: d}
  steal: {from_places: b, to_place: d}
"""


def test_the_format_is_guessed_from_the_file(bare: Command, tmp_path: Path) -> None:
    source = str(WORKFLOWS / "document_review.yaml")
    begins = {"svg": "<svg", "dot": "digraph", "mmd": "flowchart", "pnml": "<?xml"}
    for end, begin in begins.items():
        file = tmp_path / f"out.{end}"
        assert bare("draw", source, "--output", str(file)).code == 0
        assert file.read_text().startswith(begin)
    assert bare("draw", source).out.startswith("flowchart LR")
    [written] = read_pnml((tmp_path / "out.pnml").read_bytes())
    assert written.net.named(written.net.initial) == {"submitted": 1}
    assert bare("draw", str(tmp_path / "out.pnml")).out.startswith("<svg")
    assert "drawn as svg or pnml" in bare("draw", str(tmp_path / "out.pnml"), "--format", "dot").err


def test_a_violation_is_drawn(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "steals.yaml"
    file.write_text(STEALS)
    text = bare("draw", str(file), "--format", "svg", "--trace", "deadlock_freedom").out
    assert text.count('class="badge"') == 2
    assert "add --format svg" in bare("draw", str(file), "--trace", "soundness").err
    nothing = bare("draw", str(file), "--trace", "boundedness", "--format", "svg")
    assert nothing.code == 2
    assert "no trace to draw" in nothing.err


def test_what_deadlocks_is_refused_unless_one_insists(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "steals.yaml"
    file.write_text(STEALS)
    refused = bare("validate", str(file), "--json")
    assert refused.code == 2
    [checked] = refused.json["files"]
    assert not checked["valid"]
    assert "1. split 2. steal" in checked["faults"][0]["message"]
    assert "--allow-unsound" in checked["faults"][0]["hint"]
    assert bare("load", str(file)).code == 2
    allowed = bare("validate", str(file), "--allow-unsound", "--json")
    assert allowed.code == 0
    assert any("soundness is violated" in warning for warning in allowed.json["files"][0]["warnings"])


def test_a_loop_without_bound_is_a_warning(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "loops.yaml"
    file.write_text(
        "workflow: loops\nplaces: {a: {initial: true}, b: {terminal: true}}\n"
        "transitions:\n  again: {from_places: a, to_place: a}\n  end: {from_places: a, to_place: b}\n"
    )
    outcome = bare("validate", str(file))
    assert outcome.code == 0
    assert "warning" in outcome.err and "cycle of again" in outcome.err

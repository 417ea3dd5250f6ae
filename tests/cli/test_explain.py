"""`circuit explain`: what it says of choices, of tokens that are taken together, and of what is made to undo things."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commanding import WORKFLOWS, Command

ODD = """workflow: odd
places: {a: {initial: true}, b: {}, c: {capacity: 2}, z: {terminal: true}, gpu: {shared: true, capacity: 2}}
transitions:
  split: {from_places: a, to_places: [b, c]}
  pick: {from_any: [b, c], to_place: z, description: Whichever comes first.}
  both: {from_places: [b, c], to_place: z, priority: 2}
  late: {from_places: b, to_place: z, trigger: {type: timer, after: 2h}}
"""


def test_a_choice_and_a_join_are_told_apart(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(ODD)
    told = bare("explain", str(file), "--json").json
    assert "c takes 2 tokens at most; what would bring more waits." in told["cases"]
    entries = {entry["transition"]: entry for entry in told["transitions"]}
    assert list(entries) == ["both", "late", "pick", "split"]
    assert entries["pick"]["takes"] == ["any one of: a token of b, a token of c (each fires it on its own)"]
    assert entries["pick"]["choices"] == ["pick@b", "pick@c"]
    assert entries["both"]["takes"] == ["a token of b", "a token of c"]
    assert entries["late"]["fires"] == "2 h after its tokens came"
    text = bare("explain", str(file), "both").out
    assert "takes        all at once: a token of b\n               and a token of c\n" in text
    assert "pick" not in text
    assert bare("explain", str(file), "pick@c").out.startswith("pick: Whichever comes first.\n")
    unknown = bare("explain", str(file), "nope")
    assert unknown.code == 2 and "it has both, late, pick, split" in unknown.err


def test_agents_and_undoing_are_told_where_they_were_written(bare: Command) -> None:
    told = bare("explain", str(WORKFLOWS / "journey.yaml"), "--json").json
    entries = {entry["transition"]: entry for entry in told["transitions"]}
    assert set(entries) == {"call_off", "drive", "fly", "give_back", "house"}
    assert entries["fly"]["also"] == ["can be undone, by agent desk"]
    assert entries["give_back"]["gives"] == ["a token to given_back"]
    assert entries["give_back"]["also"] == ["first undoes all steps that can be undone, the newest first"]
    assert entries["drive"]["does"] == "agent rental, scripted:scripted; one try of 5 min at most"
    assert entries["drive"]["if_it_fails"] == "what it took goes to broken"


def test_every_shipped_workflow_can_be_told(bare: Command) -> None:
    files = sorted(WORKFLOWS.glob("*.yaml"))
    assert len(files) > 5
    for file in files:
        assert bare("explain", str(file)).code == 0, file

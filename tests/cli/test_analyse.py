"""`circuit analyse`: the verdicts for people and as JSON, the limits, the exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commanding import WORKFLOWS, Command

NET = """<pnml><net id="n" type="http://www.pnml.org/version-2009/grammar/ptnet">
<place id="i"><initialMarking><text>1</text></initialMarking></place><place id="a"/><place id="b"/><place id="o"/>
<transition id="split"><name><text>Split it</text></name></transition><transition id="join"/>{more}
<arc source="i" target="split"/><arc source="split" target="a"/><arc source="split" target="b"/>
<arc source="a" target="join"/><arc source="b" target="join"/><arc source="join" target="o"/>
</net></pnml>"""
LOSES = '<transition id="lose"/><arc source="a" target="lose"/>'


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    file = tmp_path / "sound.pnml"
    file.write_text(NET.format(more=""))
    return file


@pytest.fixture
def unsound(tmp_path: Path) -> Path:
    file = tmp_path / "unsound.pnml"
    file.write_text(NET.format(more=LOSES))
    return file


def test_a_sound_net(bare: Command, sound: Path) -> None:
    outcome = bare("analyse", str(sound), "--json")
    assert outcome.code == 0
    for name in ("soundness", "boundedness", "deadlock_freedom", "dead_transitions", "workflow_net", "free_choice"):
        assert outcome.json[name]["verdict"] == "proven", name
        assert outcome.json[name]["method"]
        assert outcome.json[name]["seconds"] >= 0
    assert outcome.json["k_safeness"]["witness"]["k"] == 1
    assert outcome.json["home_markings"]["witness"]["marking"] == {"o": 1}
    assert outcome.json["net"]["places"] == 4


def test_an_unsound_net(bare: Command, unsound: Path) -> None:
    outcome = bare("analyse", str(unsound), "--json")
    assert outcome.code == 1
    assert outcome.json["deadlock_freedom"]["verdict"] == "violated"
    assert outcome.json["deadlock_freedom"]["trace"] == ["split", "lose"]
    assert outcome.json["deadlock_freedom"]["witness"]["marking"] == {"b": 1}
    assert outcome.json["soundness"]["verdict"] == "violated"
    text = bare("analyse", str(unsound)).out
    assert "VIOLATED  deadlock freedom" in text
    assert "1. split (Split it)" in text


def test_several_files_and_one_property(bare: Command, sound: Path, unsound: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pnml"
    broken.write_text("<pnml>")
    outcome = bare("analyse", "--only", "soundness", "--json", str(sound), str(unsound), str(broken))
    assert outcome.code == 2
    first, second, third = outcome.json["files"]
    assert first["soundness"]["verdict"] == "proven"
    assert second["soundness"]["verdict"] == "violated"
    assert "boundedness" not in first
    assert third["error"]["code"] == "invalid_definition"
    assert "no property 'luck'" in bare("analyse", "--only", "luck", str(sound)).err


@pytest.mark.parametrize("name", ["hello", "document_review", "research_fork_join"])
def test_the_workflows_that_are_shipped_are_sound(bare: Command, name: str) -> None:
    outcome = bare("analyse", str(WORKFLOWS / f"{name}.yaml"), "--json")
    assert outcome.code == 0
    for prove in ("soundness", "boundedness", "deadlock_freedom", "dead_transitions", "reachable_names"):
        assert outcome.json[prove]["verdict"] == "proven", prove


def test_a_limit_is_told(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "large.pnml"
    ways = [f'<arc source="e{i}" target="b{i}"/><arc source="b{i}" target="p{i}"/>' for i in range(14)]
    back = "".join(f'<transition id="b{i}"/>{way}' for i, way in enumerate(ways))
    file.write_text(independent(14).replace("</net>", f"{back}</net>"))
    outcome = bare("analyse", str(file), "--only", "home_markings", "--max-states", "500", "--json")
    assert outcome.json["home_markings"]["verdict"] == "unknown"
    assert "500 states" in outcome.json["home_markings"]["reason"]


def test_which_net_of_several(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "two.pnml"
    file.write_text(
        '<pnml><net id="x" type="ptnet"><place id="p"/></net><net id="y" type="ptnet"><place id="q"/></net></pnml>'
    )
    assert any("other nets: y" in note for note in bare("analyse", str(file), "--json").json["notes"])
    assert bare("analyse", str(file), "--net", "y", "--json").json["net"]["name"] == "y"
    assert "holds no net 'z'" in bare("analyse", str(file), "--net", "z").err


def test_ten_thousand_places_end_in_bounded_time(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "huge.pnml"
    file.write_text(independent(10_000))
    outcome = bare(
        "analyse", str(file), "--only", "soundness", "--only", "deadlock_freedom", "--seconds", "5", "--json"
    )
    assert outcome.code == 0
    assert outcome.json["soundness"]["verdict"] in ("proven", "unknown")


def independent(count: int) -> str:
    """So many places with a token each, which can go its own way to an end."""
    nodes = [
        f'<place id="p{i}"><initialMarking><text>1</text></initialMarking></place><place id="e{i}"/>'
        f'<transition id="t{i}"/><arc source="p{i}" target="t{i}"/><arc source="t{i}" target="e{i}"/>'
        for i in range(count)
    ]
    return f'<pnml><net id="n" type="ptnet">{"".join(nodes)}</net></pnml>'

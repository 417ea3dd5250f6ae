"""`circuit workflows`: versions listed, an earlier one chosen again, and a workflow taken away."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commanding import Command, scripted_workflow


def test_versions_are_listed_chosen_and_taken_away(circuit: Command, tmp_path: Path) -> None:
    assert circuit("workflows", "list").out.startswith("no workflows")
    first = circuit("load", scripted_workflow(tmp_path), "--json").json["hash"]
    second = circuit("load", scripted_workflow(tmp_path, responses="[Once more]"), "--json").json["hash"]
    [listed] = circuit("workflows", "list", "--json").json
    assert (listed["workflow"], listed["hash"]) == ("story", second)
    assert second[:12] in circuit("workflows", "list").out
    versions = circuit("workflows", "versions", "story", "--json").json
    assert [(one["hash"], one["current"]) for one in versions] == [(second, True), (first, False)]

    chosen = circuit("workflows", "publish", "story", first[:8], "--json")
    assert chosen.json == {"workflow": "story", "hash": first, "changed": True}
    assert "is already the current one" in circuit("workflows", "publish", "story", first).out
    shown = circuit("workflows", "versions", "story").out.splitlines()
    assert [line.split()[1] for line in shown if line.startswith(first[:12])] == ["current"]
    for version in ("ffff", "", "nothing"):
        unknown = circuit("workflows", "publish", "story", version, "--json")
        assert (unknown.code, unknown.json["error"]["code"]) == (2, "not_found")
    for command in (["versions", "stroy"], ["publish", "stroy", first], ["delete", "stroy"]):
        unknown = circuit("workflows", *command)
        assert unknown.code == 2 and "did you mean 'story'" in unknown.err

    assert circuit("workflows", "delete", "story", "--json").json == {"workflow": "story", "deleted": True}
    assert circuit("workflows", "list", "--json").json == []
    assert circuit("workflows", "delete", "story").code == 2

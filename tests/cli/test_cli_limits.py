"""`circuit limits`: set, listed, taken away."""

from __future__ import annotations

from tests.cli.commanding import Command


def test_limits_from_the_command_line(circuit: Command) -> None:
    assert "no limits" in circuit("limits").out
    assert circuit("limits", "set", "5", "--agent", "reviewer").code == 0
    assert circuit("limits", "set", "20", "--provider", "openai:gpt-4.1").code == 0
    assert circuit("limits", "set", "100", "--json").json == {"executions": 100}
    listed = [(one["kind"], one["name"], one["executions"], one["held"]) for one in circuit("limits", "--json").json]
    assert listed == [("agent", "reviewer", 5, 0), ("provider", "openai:gpt-4.1", 20, 0), ("tenant", None, 100, 0)]
    assert circuit("limits", "set", "2", "--provider", "openai", "--tenant-only").code == 0
    assert "agent reviewer" in (told := circuit("limits").out) and "provider openai (this tenant)" in told
    assert circuit("limits", "remove", "--agent", "reviewer", "--json").json == {"removed": True}
    assert circuit("limits", "remove", "--agent", "reviewer", "--json").json == {"removed": False}
    for arguments, message in (
        (("set", "-1"), "No such option"),
        (("set", "1000000"), "a limit is 0 to"),
        (("set", "1", "--agent", "a", "--provider", "b"), "a limit is of an agent"),
        (("set", "1", "--agent", ""), "a name has 1 to"),
    ):
        outcome = circuit("limits", *arguments)
        assert outcome.code == 2 and message in outcome.err, (arguments, outcome)

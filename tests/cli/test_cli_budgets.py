"""`circuit budgets`: set, shown, used up, raised, taken away."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commanding import Command

WORKFLOW = """
workflow: digest
budget: {calls: 0}
places: {article: {initial: true}, digested: {terminal: true}}
agents:
  reader:
    llm_provider: {type: scripted, responses: [short], price: {input: 1, output: 1}}
    llm_config: {max_tokens: 100}
transitions:
  digest:
    from_places: article
    to_place: digested
    agent_execution: {agent_id: reader, output_mapping: {data.digest: text}}
"""


def test_budgets_from_the_command_line(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "digest.yaml"
    file.write_text(WORKFLOW)
    assert circuit("budgets").out == "no budgets; `circuit budgets set` begins one\n"
    outcome = circuit("run", file, "--json")
    assert outcome.code == 1
    case = outcome.json["case_id"]
    [incident] = circuit("incidents", "list", "--json").json
    assert incident["code"] == "budget_exhausted" and f"--case {case} --calls" in incident["message"]
    raised = circuit("budgets", "set", "--case", case, "--calls", "3", "--usd", "0.5", "--json")
    assert raised.json["limits"] == {"calls": 3, "tokens": None, "usd": 0.5}
    assert circuit("retry", case).code == 0
    assert circuit("run", "--resume", case).code == 0
    shown = circuit("budgets", "show", "--case", case, "--json").json
    assert shown["spent"]["calls"] == 1 and 0 < shown["spent"]["usd"] < 0.001 and shown["held"]["calls"] == 0
    ran = circuit("executions", "show", f"{case}.2", "--json").json
    assert ran["cost_usd"] == ran["answers"][0]["cost_usd"] == shown["spent"]["usd"]
    assert f"cost: {ran['cost_usd']:.6f}".rstrip("0") in circuit("executions", "show", f"{case}.2").out
    report = circuit("costs", "--by", "agent", "--by", "model", "--json").json
    [entry] = report["entries"]
    assert (entry["agent"], entry["calls"], entry["usd"]) == ("reader", 1, ran["cost_usd"]) and report["next"] is None
    assert {**entry, **report["total"]} == entry, "there is one answer, so the sum is the same"
    assert "reader" in circuit("costs", "--case", case, "--by", "agent").out
    assert circuit("costs", "--by", "colour").code == 2 and circuit("costs", "--since", "never").code == 2
    assert circuit("executions", "rate", f"{case}.2", "--score", "1").code == 0
    [said] = circuit("feedback", "list", "--agent", "reader", "--json").json
    assert (said["execution_id"], said["score"], said["workflow"]) == (f"{case}.2", 1.0, "digest")
    kept = tmp_path / "feedback.jsonl"
    assert circuit("feedback", "export", kept).json == {"file": str(kept), "entries": 1}
    assert json.loads(kept.read_text()) == said and circuit("feedback", "export", kept).code == 2
    assert circuit("fsck").code == 0
    assert circuit("budgets", "set", "--workflow", "digest", "--tokens", "1_000", "--per", "day").code == 0
    assert circuit("budgets", "set", "--usd", "10").code == 0
    assert circuit("budgets", "set", "--tokens", "5").code == 0
    scopes = [(one["scope"], one["subject"], one["period"]) for one in circuit("budgets", "--cases", "--json").json]
    assert scopes == [("tenant", None, None), ("workflow", "digest", "day"), ("case", case, None)]
    lines = circuit("budgets").out.splitlines()
    assert len(lines) == 4 and "10.00" in lines[-2] + lines[-3], "the tenant has two limits, the workflow one"
    assert circuit("budgets", "set", "--usd", "none", "--json").json["limits"] == {
        "calls": None,
        "tokens": 5,
        "usd": None,
    }
    assert circuit("budgets", "remove", "--json").json == {"removed": True}
    assert circuit("budgets", "show").code == 2


def test_what_is_no_budget_is_refused(circuit: Command) -> None:
    for arguments, message in (
        (("set",), "a budget limits something"),
        (("set", "--usd", "much"), "takes a number"),
        (("set", "--usd", "nan"), "a budget is 0 to"),
        (("set", "--calls", "-1"), "a budget in calls is 0 to"),
        (("set", "--per", "week", "--usd", "1"), "--per is day, month or ever"),
        (("set", "--workflow", "none-such", "--usd", "1"), "there is no workflow 'none-such'"),
        (("set", "--case", "x", "--usd", "1"), "there is no case 'x'"),
        (("set", "--case", "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11", "--usd", "1"), "there is no case 0199f3a2"),
        (("show", "--case", "x", "--workflow", "y"), "a budget is that of a case"),
    ):
        outcome = circuit("budgets", *arguments)
        assert outcome.code == 2 and message in outcome.err, (arguments, outcome)

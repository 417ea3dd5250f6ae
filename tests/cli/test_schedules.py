"""`circuit schedules` and `circuit trigger`: what waits for a time, and what is not waited for."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commanding import Command

WORKFLOW = """\
workflow: letters
places: {inbox: {initial: true}, done: {terminal: true}}
agents:
  sorter: {llm_provider: {type: scripted, responses: ["a bill"]}}
place_agents:
  - {place_id: inbox, agent_id: sorter, output_mapping: {data.kind: text}, schedule: {initial_delay_seconds: 3600}}
transitions:
  file: {from_places: inbox, to_place: done, trigger: {type: manual}}
"""


def test_what_waits_for_a_time_is_listed_and_need_not_wait(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "letters.yaml"
    file.write_text(WORKFLOW)
    assert circuit("schedules").out.startswith("no case waits")
    case = circuit("run", file, "--token", "{}", "--json").json["case_id"]
    [waiting] = circuit("schedules", "--json").json
    assert (waiting["case_id"], waiting["workflow"]) == (case, "letters")
    [run] = waiting["runs"]
    assert (run["agent"], run["place"], run["token"], run["runs"]) == ("sorter", "inbox", f"{case}.1", 0)
    assert run["due_at"] == waiting["due_at"]
    assert "sorter" in circuit("schedules", "--workflow", "letters", "--case", case).out
    assert circuit("schedules", "--workflow", "other", "--json").json == []
    assert circuit("schedules", "--case", "x").code != 0

    for wrong, code in (
        ([case, "nowhere"], "invalid_request"),
        ([case, "inbox", "--agent", "nobody"], "invalid_request"),
        ([case, "inbox", "--token", "9"], "conflict"),
        (["0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11", "inbox"], "not_found"),
    ):
        refused = circuit("trigger", *wrong, "--json")
        error = refused.json.get("error") or refused.json["result"]["error"]
        assert refused.code != 0 and error["code"] == code, refused
    ran = circuit("trigger", case, "inbox", "--agent", "sorter", "--token", "1", "--json")
    assert (ran.code, ran.json["result"]) == (0, {"executions": [f"{case}.1"]})
    [token] = circuit("show", case, "--json").json["tokens"]
    assert token["data"]["kind"] == "a bill"

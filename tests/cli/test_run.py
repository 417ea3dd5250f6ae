"""`circuit run`: exit codes, what it prints, and what another process sees of it afterwards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.commanding import WORKFLOWS, Command, scripted_workflow

FAILING = """\
workflow: failing
places:
  submitted: {initial: true}
  done: {terminal: true}
agents:
  writer:
    llm_provider: {type: scripted, model: script, responses: [{error: provider_refused, message: "No.\\e[2J"}]}
transitions:
  write: {from_places: [submitted], to_place: done, agent_execution: {agent_id: writer, required: true}}
"""

WAITING = """\
workflow: waiting
colours:
  Draft: {type: object, required: [content], properties: {content: {type: string}}}
places:
  draft: {initial: true, colour: Draft}
  done: {terminal: true}
transitions:
  sign:
    from_places: [draft]
    to_place: done
    trigger:
      type: manual
      form: {type: object, required: [name], properties: {name: {type: string}}}
    output_mapping: {data.signed_by: form.name}
"""

STUCK = """\
workflow: stuck
places:
  here: {initial: true}
  there: {terminal: true}
transitions:
  go: {from_places: [here], to_place: there, conditions: ["data.ready == true"]}
"""

ENDING_BADLY = """\
workflow: bad-end
places:
  here: {initial: true}
  lost: {terminal: true, outcome: failed}
transitions:
  lose: {from_places: [here], to_place: lost}
"""

RETRYING = """\
workflow: retrying
places:
  submitted: {initial: true}
  done: {terminal: true}
agents:
  writer:
    llm_provider:
      type: scripted
      model: script
      responses: [{error: rate_limit, message: slow down, text: "Half an ans"}]
transitions:
  write:
    from_places: [submitted]
    to_place: done
    agent_execution:
      agent_id: writer
      required: false
      retry_config: {max_attempts: 2, backoff_seconds: 0.05, retry_on_errors: [rate_limit]}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "workflow.yaml"
    file.write_text(text)
    return file


def test_a_completed_case(circuit: Command) -> None:
    outcome = circuit("run", WORKFLOWS / "hello.yaml", "--set", "data.name=Ada", "--json")
    assert outcome.code == 0, outcome.err
    case = outcome.json
    assert {"case_id", "status", "marking", "tokens", "history"} <= case.keys()
    assert case["status"] == "completed"
    assert sum(case["marking"].values()) == len(case["tokens"]) == 1
    (token,) = case["tokens"]
    assert {"id", "place", "data", "metadata"} == token.keys()
    assert token["data"]["text"] == "Hello, Ada!"
    assert token["id"].startswith(case["case_id"] + ".")
    assert [event["seq"] for event in case["history"]] == list(range(1, len(case["history"]) + 1))
    assert case["history"][0]["kind"] == "case_started"
    assert case["history"][-1]["kind"] == "case_ended"
    assert all({"seq", "kind", "at"} <= event.keys() for event in case["history"])


def test_what_was_run_is_there_for_others(circuit: Command, process: Command, database_url: str) -> None:
    case = circuit("run", WORKFLOWS / "hello.yaml", "--json").json
    shown = process("show", case["case_id"], "--json", CIRCUIT_DATABASE_URL=database_url)
    assert shown.code == 0
    assert shown.json == case
    listed = circuit("cases", "--json").json
    assert listed == [{name: case[name] for name in ("case_id", "status", "workflow", "started_at")}]
    assert circuit("cases", "--json", "--workflow", "hello", "--status", "completed").json == listed
    assert circuit("cases", "--json", "--status", "stuck").json == []
    text = circuit("show", case["case_id"])
    assert text.code == 0
    assert "is completed" in text.out and "say_hello fired: greeting -> said" in text.out
    assert case["case_id"] in circuit("cases").out


def test_without_a_terminal_there_are_plain_lines(circuit: Command, tmp_path: Path) -> None:
    file = scripted_workflow(tmp_path, responses='["Once upon a time.\\nThe end."]')
    outcome = circuit("run", file)
    assert outcome.code == 0, outcome.err
    assert "\x1b" not in outcome.out
    lines = outcome.out.splitlines()
    assert "write | Once upon a time." in lines
    assert "write | The end." in lines
    assert lines.index("write | The end.") < lines.index("write fired: submitted -> done")
    assert "case completed" in lines
    assert any(line.startswith("completed: 1 token in done") for line in lines)
    notices = [line for line in lines if "scripted" in line and "--model openai:NAME" in line]
    assert len(notices) == 1
    assert "OPENAI_API_KEY" in notices[0] and "OPENAI_BASE_URL" in notices[0]


def test_with_json_everything_else_goes_to_standard_error(circuit: Command, tmp_path: Path) -> None:
    outcome = circuit("run", scripted_workflow(tmp_path), "--json")
    assert outcome.code == 0
    assert outcome.json["status"] == "completed"
    assert outcome.json["tokens"][0]["data"]["text"] == "Once upon a time"
    assert "write | Once upon a time" in outcome.err
    begun = next(event for event in outcome.json["history"] if event["kind"] == "firing_begun")
    assert begun["execution_id"] == f"{outcome.json['case_id']}.1"


def test_what_models_say_is_not_obeyed_by_the_terminal(circuit: Command, tmp_path: Path) -> None:
    outcome = circuit("run", scripted_workflow(tmp_path, responses='["\\e]0;owned\\a [bold]x[/bold]"]'))
    assert outcome.code == 0
    assert "\x1b" not in outcome.out and "\x07" not in outcome.out
    assert "[bold]x[/bold]" in outcome.out


def test_a_failed_agent_needs_attention(circuit: Command, tmp_path: Path) -> None:
    outcome = circuit("run", write(tmp_path, FAILING), "--json")
    assert outcome.code == 1
    case = outcome.json
    assert case["status"] == "attention"
    assert case["marking"] == {"submitted": 1}
    text = circuit("run", write(tmp_path, FAILING))
    assert text.code == 1
    assert "provider_refused" in text.out
    assert "circuit retry" in text.out
    assert "\x1b" not in text.out
    why = circuit("why", case["case_id"], "--json")
    assert why.code == 0
    assert why.json["status"] == "attention"
    again = circuit("retry", case["case_id"], "--json")
    assert again.code == 0, again.err
    assert again.json["state"] == "applied"
    assert again.json["status"] == "attention"
    assert circuit("cases", "--status", "attention", "--json").json[0]["workflow"] == "failing"


def test_a_case_that_ends_badly(circuit: Command, tmp_path: Path) -> None:
    outcome = circuit("run", write(tmp_path, ENDING_BADLY), "--json")
    assert outcome.code == 1
    assert outcome.json["status"] == "failed"
    assert outcome.json["marking"] == {"lost": 1}


def test_a_stuck_case_says_why(circuit: Command, tmp_path: Path) -> None:
    outcome = circuit("run", write(tmp_path, STUCK), "--set", "data.ready=false")
    assert outcome.code == 3
    assert "stuck: 1 token in here" in outcome.out
    assert "go cannot fire" in outcome.out
    outcome = circuit("run", write(tmp_path, STUCK), "--set", "data.ready=true")
    assert outcome.code == 0


def test_a_case_that_waits_for_a_person_goes_on_when_the_person_acts(circuit: Command, tmp_path: Path) -> None:
    outcome = circuit("run", write(tmp_path, WAITING), "--token", '{"content": "x"}', "--json")
    assert outcome.code == 3
    case = outcome.json["case_id"]
    assert outcome.json["status"] == "waiting"
    resumed = circuit("run", "--resume", case)
    assert resumed.code == 3
    assert "sign" in resumed.out
    refused = circuit("fire", case, "sign", "--form", "{}")
    assert refused.code == 2
    assert "form" in refused.err
    assert circuit("fire", case, "nonsense", "--form", '{"name": "Ada"}').code == 2
    fired = circuit("fire", case, "sign", "--form", '{"name": "Ada"}', "--json")
    assert fired.code == 0, fired.err
    assert (fired.json["state"], fired.json["status"]) == ("applied", "completed")
    shown = circuit("show", case, "--json").json
    assert shown["tokens"][0]["data"] == {"content": "x", "signed_by": "Ada"}
    late = circuit("fire", case, "sign", "--form", '{"name": "Eve"}')
    assert late.code == 1  # well put, but the case does not take it
    assert "completed" in late.err
    done = circuit("run", "--resume", case, "--json")
    assert done.code == 0
    assert done.json == shown


def test_a_case_can_be_cancelled(circuit: Command, tmp_path: Path) -> None:
    case = circuit("run", write(tmp_path, WAITING), "--token", '{"content": "x"}', "--json").json["case_id"]
    outcome = circuit("cancel", case)
    assert outcome.code == 0, outcome.err
    assert circuit("show", case, "--json").json["status"] == "cancelled"
    assert circuit("run", "--resume", case).code == 1


def test_a_run_waits_through_retries(circuit: Command, tmp_path: Path) -> None:
    outcome = circuit("run", write(tmp_path, RETRYING))
    assert outcome.code == 0, outcome.err
    assert "write failed at try 1: rate_limit: slow down; try 2 follows in" in outcome.out
    assert "without its output: rate_limit: slow down" in outcome.out


def test_a_token_that_does_not_fit_its_place_is_refused(circuit: Command, tmp_path: Path) -> None:
    outcome = circuit("run", write(tmp_path, WAITING), "--set", "data.content=3", "--json")
    assert outcome.code == 2
    assert outcome.json["error"]["code"] == "token_refused"
    assert "content" in outcome.json["error"]["message"]
    assert circuit("cases", "--json").json == []


def test_a_model_that_does_not_take_what_the_agent_asks_is_refused_before_the_case_starts(
    circuit: Command, tmp_path: Path
) -> None:
    file = scripted_workflow(tmp_path)
    file.write_text(file.read_text().replace("  writer:\n", "  writer:\n    llm_config: {max_tokens: 5000}\n"))
    for choice in ("openai:gpt-4-turbo", "writer=openai:gpt-4-turbo"):
        outcome = circuit("run", file, "--model", choice, OPENAI_API_KEY="k")
        assert outcome.code == 2, outcome
        assert "agent writer cannot be answered by openai:gpt-4-turbo: max_tokens is 5000, and" in outcome.err
    assert circuit("cases", "--json").json == []


def test_a_model_without_its_key_is_refused_before_the_case_starts(circuit: Command, tmp_path: Path) -> None:
    outcome = circuit("run", scripted_workflow(tmp_path), "--model", "openai:gpt-4.1-mini")
    assert outcome.code == 2
    assert "OPENAI_API_KEY" in outcome.err
    assert circuit("cases", "--json").json == []
    outcome = circuit("run", scripted_workflow(tmp_path), "--model", "telepathy:x")
    assert outcome.code == 2
    assert "telepathy" in outcome.err


@pytest.mark.parametrize("command", [["show"], ["why"], ["retry"], ["cancel"], ["run", "--resume"]], ids=" ".join)
def test_a_case_that_is_not_there(circuit: Command, command: list[str]) -> None:
    outcome = circuit(*command, "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11", "--json")
    assert outcome.code == 2
    assert outcome.json["error"]["code"] == "not_found"
    outcome = circuit(*command, "nonsense")
    assert outcome.code == 2
    assert "'nonsense' is not the id of a case" in outcome.err


def test_loading_publishes_once(circuit: Command) -> None:
    first = circuit("load", WORKFLOWS / "hello.yaml", "--json")
    assert first.code == 0
    assert (first.json["workflow"], first.json["new"]) == ("hello", True)
    second = circuit("load", WORKFLOWS / "hello.yaml", "--json")
    assert (second.json["hash"], second.json["new"]) == (first.json["hash"], False)
    assert re.search("already published", circuit("load", WORKFLOWS / "hello.yaml").out)

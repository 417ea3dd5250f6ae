"""`circuit simulate`: the same seed gives the same cases; answers, times, costs, failures, routes and heat."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.cli.commanding import WORKFLOWS, Command

REVIEW = str(WORKFLOWS / "document_review.yaml")
DESK = """workflow: desk
places: {in: {initial: true}, asked: {}, done: {terminal: true}, gone: {terminal: true, outcome: failed}}
agents:
  helper:
    llm_provider: {type: scripted, model: script}
    output_schema: {type: object, required: [sure], properties: {sure: {type: boolean}}}
transitions:
  help:
    from_places: in
    to_place: asked
    agent_execution:
      agent_id: helper
      output_mapping: {data.sure: sure}
      required: REQUIRED
      retry_config: {max_attempts: 2, backoff_seconds: 1}
    on_failure: gone
  decide:
    from_places: asked
    to_place: done
    trigger: {type: manual, form: {type: object, required: [ok], properties: {ok: {type: boolean}}}}
    output_mapping: {data.ok: form.ok}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    file = tmp_path / "desk.yaml"
    file.write_text(DESK.replace("REQUIRED", "true"))
    return file


def test_the_same_seed_gives_the_same_cases(bare: Command) -> None:
    first, second, other = (
        bare("simulate", REVIEW, "--cases", "30", "--seed", seed, "--json").json for seed in ("7", "7", "8")
    )
    assert first == second
    assert first["seconds"] != other["seconds"]
    assert first["statuses"] == {"completed": 30}
    assert sum(route["cases"] for route in first["routes"]) == 30
    assert first["seconds"]["min"] <= first["seconds"]["p50"] <= first["seconds"]["p99"] <= first["seconds"]["max"]
    assert first["fired"]["ai_review"] == first["fired"]["revise"] + 30
    assert first["agent_runs"]["max"] <= 5, "what the proof says is the most"


def test_scripted_and_recorded_answers_take_their_routes(bare: Command, tmp_path: Path) -> None:
    scripted = bare("simulate", REVIEW, "--cases", "3", "--answers", "scripted", "--json").json
    assert scripted["distinct_routes"] == 1
    assert scripted["routes"][0]["route"] == ["ai_review", "send_back", "revise", "ai_review", "approve"]
    answer = {"assessment": "reject", "confidence_score": 3, "issues": [], "comment": "no"}
    file = tmp_path / "answers.json"
    file.write_bytes(orjson.dumps({"content-reviewer": [answer]}))
    recorded = bare("simulate", REVIEW, "--cases", "5", "--answers", str(file), "--json").json
    assert recorded["routes"] == [{"route": ["ai_review", "reject"], "cases": 5, "share": 1.0}]
    file.write_text('{"nobody": []}')
    assert "nobody" in bare("simulate", REVIEW, "--answers", str(file)).err


def test_times_and_costs_are_those_that_are_given(bare: Command, desk: Path) -> None:
    slow = bare(
        "simulate", str(desk), "--cases", "150", "--seconds", "helper=100", "--seconds", "decide=1e-6", "--json"
    )
    assert 75 < slow.json["seconds"]["mean"] < 125
    dear = bare("simulate", str(desk), "--cases", "20", "--cost", "helper=0.25", "--json").json
    assert dear["cost"]["mean"] == dear["cost"]["max"] == 0.25 and "cost_assumed" not in dear
    priced = desk.read_text().replace("model: script", "model: script, price: {input: 1000, output: 1000}")
    desk.write_text(priced)
    found = bare("simulate", desk, "--cases", "5", "--json").json
    assert 0 < found["cost"]["min"] <= found["cost"]["max"] < 1 and "four bytes a token" in found["cost_assumed"]
    desk.write_text(
        priced.replace("{type: scripted", "{type: openai").replace(", price: {input: 1000, output: 1000}", "")
    )
    found = bare("simulate", desk, "--cases", "5", "--json").json
    assert found["unpriced"] == ["helper"] and "cost" not in found, "what is not known is not taken for nothing"
    assert "no agent" in bare("simulate", str(desk), "--cases", "1", "--cost", "nobody=1").err
    assert "NAME=NUMBER" in bare("simulate", str(desk), "--seconds", "helper").err


def test_agents_that_fail_go_the_way_of_failures(bare: Command, desk: Path) -> None:
    all_fail = bare("simulate", str(desk), "--cases", "10", "--failures", "1", "--json").json
    assert all_fail["statuses"] == {"failed": 10}
    assert all_fail["routes"][0]["route"] == ["help failed"]
    assert all_fail["failures"] == [{"failure": "help goes to gone: every attempt failed", "cases": 10}]
    desk.write_text(desk.read_text().replace("required: true", "required: false"))
    moved_on = bare("simulate", str(desk), "--cases", "10", "--failures", "1", "--json").json
    assert moved_on["statuses"] == {"completed": 10}
    [failure] = moved_on["failures"]
    assert failure == {"failure": "help goes on without its output: every attempt failed", "cases": 10}
    some = bare("simulate", str(desk), "--cases", "40", "--failures", "0.5", "--json").json
    assert some["statuses"] == {"completed": 40}


def test_why_cases_need_somebody_is_told(bare: Command, desk: Path) -> None:
    asking = desk.read_text().replace("agent_id: helper", "agent_id: helper\n      input_mapping: {q: data.text}")
    desk.write_text(asking)
    diverted = bare("simulate", str(desk), "--cases", "3")
    assert "3 cases: 3 failed" in diverted.out
    assert "a failure in 3 of them: help goes to gone: input q: data.text is missing" in diverted.out
    desk.write_text(asking.replace("    on_failure: gone\n", ""))
    told = bare("simulate", str(desk), "--cases", "3", "--json").json
    assert told["statuses"] == {"attention": 3}
    assert [(one["cases"], one["fault"][:45]) for one in told["faults"]] == [
        (3, "help: input q: data.text is missing; mark it ")
    ]
    assert (
        "an incident in 3 of them: help: input q: data.text is missing"
        in bare("simulate", str(desk), "--cases", "3").out
    )
    assert "faults" not in bare("simulate", str(desk), "--cases", "3", "--set", "data.text=x", "--json").json


def test_the_heat_is_drawn(bare: Command, desk: Path, tmp_path: Path) -> None:
    drawing = tmp_path / "heat.svg"
    outcome = bare("simulate", str(desk), "--cases", "12", "--svg", str(drawing))
    assert outcome.code == 0
    assert "12 cases: 12 completed" in outcome.out
    assert "help → decide" in outcome.out
    assert "12 firings" in drawing.read_text()


def test_what_messages_and_actions_give_is_made_up_as_their_targets_ask_for_it(
    circuit: Command, tmp_path: Path
) -> None:
    file = tmp_path / "order.yaml"
    file.write_text(
        """workflow: order
colours: {Order: {type: object, properties: {amount: {type: integer, minimum: 1}, score: {enum: [good]}}}}
places: {open: {initial: true, colour: Order}, paid: {colour: Order}, done: {terminal: true, colour: Order}}
transitions:
  pay:
    from_places: open
    to_place: paid
    trigger: {type: message, message: payment}
    output_mapping: {data.amount: message.payment.amount, metadata.all: message}
  check:
    from_places: paid
    to_place: done
    action: {type: subworkflow, workflow: credit, output_mapping: {data.score: score, metadata.child: case_id}}
"""
    )
    found = circuit("simulate", str(file), "--cases", "5", "--json")
    assert found.code == 0 and found.json["statuses"] == {"completed": 5}, found.out + found.err

"""`circuit incidents`, from the list to the rate, on a real database."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from circuit.cli.token import assignments
from circuit.engine.bulk import ask_each
from circuit.engine.commands import CommandOutcome, OutcomeState
from circuit.errors import Conflict, InvalidRequest
from circuit.ids import CaseKey, uuid7
from circuit.storage import cases
from tests.cli.commanding import Command

BROKEN = """
workflow: {name}
colours:
  Story: {{type: object, properties: {{about: {{type: string, maxLength: 10}}}}}}
places:
  submitted: {{initial: true, colour: Story}}
  done: {{terminal: true}}
  lost: {{dead_letter: true}}
agents:
  writer:
    llm_provider:
      type: scripted
      model: script
      responses: ['{{"text": "Once"}}']
transitions:
  write:
    from_places: [submitted]
    to_place: done
    agent_execution: {{agent_id: writer, input_mapping: {{about: data.about}}}}
{more}
"""


@pytest.fixture
def broken(tmp_path: Path) -> Any:
    """A workflow whose agent needs data.about, which a token may lack."""

    def write(name: str = "story", more: str = "") -> Path:
        file = tmp_path / f"{name}.yaml"
        text = BROKEN.format(name=name, more=more)
        file.write_text(text if more else text.replace("  lost: {dead_letter: true}\n", ""))
        return file

    return write


def test_incidents_are_listed_shown_resolved_and_retried(circuit: Command, broken: Any) -> None:
    file = broken()
    cases = [circuit("run", file, "--set", "data.x=1", "--json").json["case_id"] for _ in range(3)]
    listed = circuit("incidents", "list", "--workflow", "story", "--code", "mapping_error", "--json").json
    assert sorted(one["case_id"] for one in listed) == sorted(cases)
    assert circuit("incidents", "list", "--code", "timeout").out.strip() == "no open incidents"
    shown = circuit("incidents", "show", cases[0], "1").out
    assert "mapping_error" in shown and f"token {cases[0]}.1 in submitted" in shown

    refused = circuit("incidents", "resolve", cases[0], "1", "--set", "data.about=much too long a word", "--json")
    assert refused.code == 1 and refused.json["result"]["error"]["code"] == "token_refused"
    done = circuit("incidents", "resolve", cases[0], "1", "--set", "data.about=sea", "--json")
    assert (done.code, done.json["state"], done.json["status"]) == (0, "applied", "completed")
    assert "data changed by local for incident 1" in circuit("show", cases[0]).out

    # Tried again as they are, they fail again, each with an incident of its own.
    again = circuit("incidents", "retry", "--all", "--workflow", "story", "--rate", "1000", "--json")
    assert (again.code, again.json) == (0, {"asked": 2, "applied": 2, "refused": 0, "pending": 0, "refusals": {}})
    assert {one["incident"] for one in circuit("incidents", "list", "--json").json} == {2}
    bulk = circuit("incidents", "resolve", "--all", "--code", "mapping_error", "--set", "data.about=sea", "--json")
    assert bulk.json["applied"] == 2
    assert circuit("incidents", "list").out.strip() == "no open incidents"


def test_what_is_asked_of_many_is_worked_on_while_it_is_asked_and_no_longer(
    circuit: Command, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no worker lives, the command takes each case itself. One that rests again is not claimed a second time."""
    claimed: list[CaseKey] = []
    claim = cases.claim

    async def counted(*arguments: Any) -> Any:
        found = await claim(*arguments)
        claimed.extend(found)
        return found

    file = broken("letters", "    on_failure: lost")
    for _ in range(4):
        circuit("run", file, "--set", "data.x=1")
    monkeypatch.setattr(cases, "claim", counted)
    tally = circuit("incidents", "put-back", "--all", "--rate", "10", "--json").json
    assert tally["applied"] == 4
    assert len([key for key, _ in groupby(claimed)]) == len(set(claimed)) == 4


def test_dead_letters_are_listed_and_put_back(circuit: Command, broken: Any) -> None:
    file = broken("letters", "    on_failure: lost")
    case = circuit("run", file, "--set", "data.x=1", "--json").json["case_id"]
    [letter] = circuit("incidents", "dead", "--json").json
    assert (letter["id"], letter["place"], letter["metadata"]["failure"]["place"]) == (f"{case}.1", "lost", "submitted")
    assert "mapping_error" in circuit("incidents", "dead", "--workflow", "letters").out
    back = circuit("incidents", "put-back", letter["id"], "--place", "done", "--json")
    assert (back.code, back.json["status"]) == (0, "completed")
    assert circuit("incidents", "dead").out.strip() == "no dead letters"
    circuit("run", file, "--set", "data.x=1")
    tally = circuit("incidents", "put-back", "--all", "--code", "mapping_error").out
    assert tally.startswith("1 asked: 1 applied")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["retry"], "give --all"),
        (["retry", "x", "--all"], "exclude each other"),
        (["resolve", "--all"], "--set"),
        (["resolve", "--all", "--set", "place=x"], "begins with"),
        (["put-back", "x"], "CASE.NUMBER"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_done(bare: Command, words: list[str], said: str) -> None:
    outcome = bare("incidents", *words)
    assert outcome.code == 2
    assert said in outcome.err


def test_values_are_json_where_they_can_be() -> None:
    assert assignments(["data.a=1", "data.b=x", 'data.c={"d": [true]}']) == {
        "data.a": 1,
        "data.b": "x",
        "data.c": {"d": [True]},
    }
    with pytest.raises(InvalidRequest):
        assignments(["data.a=\0"])


async def test_the_rate_is_kept_and_a_refusal_stops_nobody() -> None:
    time, waits = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal time
        waits.append(seconds)
        time += seconds

    async def items() -> Any:
        for number in range(5):
            yield number

    async def ask(number: int) -> CommandOutcome:
        if number == 2:
            raise Conflict("it is over")
        state = OutcomeState.PENDING if number == 3 else OutcomeState.APPLIED
        return CommandOutcome(state, {}, uuid7(0, number))

    tally = await ask_each(items(), ask, 4, sleep=sleep, monotonic=lambda: time)
    assert waits == [0.25] * 4
    assert tally.as_dict() == {
        "asked": 5,
        "applied": 3,
        "pending": 1,
        "refused": 1,
        "refusals": {"it is over": 1},
    }

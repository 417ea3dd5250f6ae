"""Actions in workflow files: short and long forms, and what is at fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit.definition import load, load_workflow
from circuit.errors import DefinitionError

FILE = """workflow: small
places: [start, end]
transitions:
  go:
    from_places: start
    to_place: end
"""


def faults(step: str) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        load_workflow(FILE + "".join(f"    {line}\n" for line in step.split("\n")), "file.yaml")
    return [f"{fault.line}:{fault.column}: {fault.message} ({fault.hint})" for fault in caught.value.faults]


def test_short_and_long_form_are_one_version() -> None:
    short = load_workflow(FILE + "    action: charge\n", "file.yaml")
    long = load_workflow(FILE + "    action: {name: charge, type: function, required: true}\n", "file.yaml")
    assert short.hash == long.hash
    assert short.actions["go"].kind == "function" and short.actions["go"].config == {"name": "charge"}
    assert short.requires["actions"] == ["function:charge"] and short.net.transitions["go"].acting


def test_all_keys_of_a_function() -> None:
    loaded = load(
        FILE + "    action: {type: function, name: shop.charge, heartbeat_seconds: 1m, timeout_seconds: 2h,"
        " required: false, input_mapping: {a: data.b}, output_mapping: {data.c: d}, retry_config: {max_attempts: 2}}\n"
    )
    assert loaded.plain["transitions"]["go"]["action"] == {
        "type": "function",
        "name": "shop.charge",
        "heartbeat_seconds": 60.0,
        "timeout_seconds": 7200.0,
        "required": False,
        "input_mapping": {"a": "data.b"},
        "output_mapping": {"data.c": "d"},
        "retry_config": {"max_attempts": 2},
    }


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ("action: {name: charge}", ["7:5: the key 'type' is missing in action (known types: "]),
        ("action: {type: functoin, name: x}", ["7:20: action type must be one of function"]),
        ("action: {type: function, nam: x}", ["the key 'name' is missing", "unknown key 'nam' (did you mean name?)"]),
        ("action: {type: function}", ["the key 'name' is missing"]),
        ("action: 'two words'", ["7:13: 'two words' is not the name of a function"]),
        ("action: [charge]", ["action must be the name of a function, or a mapping like {type: function"]),
        ("action: {type: function, name: x, timeout_seconds: 0}", ["timeout_seconds must be more than 0"]),
        ("action: {type: function, name: x, heartbeat_seconds: 0}", ["heartbeat_seconds must be more than 0"]),
        ("action: {type: function, name: x, input_mapping: {a: tokens.end.data.b}}", ["end"]),
        ("action: {type: function, name: x, output_mapping: {b: c}}", ["b must begin with data."]),
        ("action: {type: function, name: x, retry_config: {retry_on_errors: [nope]}}", ["no error code 'nope'"]),
        (
            "action: x\noutput_mapping: {data.a: b}",
            ["output_mapping here is for transitions that a person or a message fires (move it into action)"],
        ),
    ],
)
def test_faults(step: str, found: list[str]) -> None:
    told = faults(step)
    assert len(told) == len(found), told
    for one, part in zip(told, found, strict=True):
        assert part in one


def test_an_agent_and_an_action_exclude_each_other() -> None:
    told = faults("agent_execution: helper\naction: charge")
    assert "8:5: agent_execution and action exclude each other" in told[-1]


def test_the_page_that_shows_actions_shows_one_that_runs(tmp_path: Path) -> None:
    import re
    import subprocess
    import sys

    page = (Path(__file__).parents[2] / "docs" / "how-to" / "actions.md").read_text()
    code = "\n\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    [text] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shop.py").write_text(code)
    workflow = load_workflow(text, "payment.yaml")
    assert workflow.actions["charge"].config["name"] == "charge_card"
    checked = subprocess.run(
        [sys.executable, "-c", "from circuit.actions.functions import collect; print(*collect(['shop.py']))"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert checked.stdout.split() == ["charge_card", "order_parts"]

"""`validate`, `draw`, `schema`: what needs no database, and every fault of a file with its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.cli.commanding import WORKFLOWS, Command, scripted_workflow

SHIPPED = sorted(WORKFLOWS.glob("*.yaml"))


def write(folder: Path, text: str) -> Path:
    file = folder / "broken.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_what_ships_is_valid(bare: Command, file: Path) -> None:
    outcome = bare("validate", file)
    assert outcome.code == 0, outcome.err
    assert "is valid" in outcome.out


def test_the_workflows_that_ship() -> None:
    assert {file.stem for file in SHIPPED} >= {"hello", "document_review", "research_fork_join"}


def test_several_files_are_one_json_object(bare: Command, tmp_path: Path) -> None:
    outcome = bare(
        "validate", "--json", WORKFLOWS / "hello.yaml", write(tmp_path, "workflow: x\nplaces: {a: }\nnet: 1\n")
    )
    assert outcome.code == 2
    answer = outcome.json
    assert answer["valid"] is False
    assert [file["valid"] for file in answer["files"]] == [True, False]
    assert answer["files"][0]["workflow"] == "hello"
    fault = answer["files"][1]["faults"][0]
    assert {"file", "line", "column", "path", "message", "hint"} <= fault.keys()


def test_all_faults_are_shown_with_their_lines_and_a_caret(bare: Command, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "workflow: broken\n"
        "places:\n"
        "  start: {initial: true}\n"
        "  done: {terminal: true}\n"
        "transitions:\n"
        "  go: {from_places: [start], to_place: nowhere}\n"
        "  ask:\n"
        "    from_places: [start]\n"
        "    to_place: done\n"
        "    agent_execution: {agent_id: nobody}\n"
        "  choose: {from_places: [start], to_place: done, conditions: ['data.x ==']}\n",
    )
    outcome = bare("validate", file)
    assert outcome.code == 2
    lines = outcome.err.splitlines()
    for place in (":6:", ":10:", ":11:"):
        assert any(line.startswith(f"{file}{place}") for line in lines), outcome.err
    assert "nowhere" in outcome.err and "nobody" in outcome.err
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{file}:6:"))
    column = int(lines[first].removeprefix(f"{file}:6:").split(":")[0])
    assert lines[first + 1].strip() == "go: {from_places: [start], to_place: nowhere}"
    assert lines[first + 2].index("^") == 4 + column - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("places: [a\n  b: ]", "broken.yaml:"),
        ("workflow: x\nplaces: {a: {initial: true}}\ntransitionz: {}\n", "transitionz"),
        (
            "workflow: x\nplaces: {a: {initial: true}, b: {terminal: true}}\nagents:\n  w:\n"
            "    llm_provider: {type: scripted}\n    prompts: {user_template: 'Say {nonsense}'}\n"
            "transitions:\n  t: {from_places: a, to_place: b, agent_execution: {agent_id: w}}\n",
            "nonsense",
        ),
        ("", "broken.yaml:1:"),
        ("- a\n- b\n", "broken.yaml:1:"),
    ],
    ids=["no yaml", "unknown key", "unknown variable", "empty", "a list"],
)
def test_a_bad_file_is_refused_by_every_command_that_reads_one(
    bare: Command, tmp_path: Path, text: str, expected: str
) -> None:
    file = write(tmp_path, text)
    for command in ("validate", "draw", "load", "run"):
        outcome = bare(command, file)
        assert outcome.code == 2, (command, outcome)
        assert expected in outcome.err, (command, outcome.err)
        assert "Traceback" not in outcome.err


def test_a_file_that_is_not_there(bare: Command, tmp_path: Path) -> None:
    outcome = bare("validate", tmp_path / "nowhere.yaml")
    assert outcome.code == 2
    assert "does not exist" in outcome.err
    outcome = bare("run", "hello.yaml")
    assert outcome.code == 2
    assert str(WORKFLOWS / "hello.yaml") in outcome.err


def test_a_file_that_is_no_text(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"workflow: \xff")
    outcome = bare("validate", "--json", file)
    assert outcome.code == 2
    assert "not UTF-8" in outcome.json["files"][0]["message"]


def test_a_hostile_file_does_not_reach_the_terminal(bare: Command, tmp_path: Path) -> None:
    outcome = bare("validate", write(tmp_path, 'workflow: x\n"\\e[2Jkey[bold]": 1\nplaces: {a: {initial: true}}\n'))
    assert outcome.code == 2
    assert "\x1b" not in outcome.err
    assert "[bold]" in outcome.err


@pytest.mark.parametrize(("form", "head"), [("mermaid", ("flowchart", "graph", "stateDiagram")), ("dot", ("digraph",))])
def test_a_net_is_drawn(bare: Command, form: str, head: tuple[str, ...]) -> None:
    outcome = bare("draw", WORKFLOWS / "document_review.yaml", "--format", form)
    assert outcome.code == 0
    assert any(outcome.out.lstrip().startswith(word) or f"\n{word}" in outcome.out for word in head), outcome.out
    for name in ("submitted", "ai_review", "approved", "rejected"):
        assert name in outcome.out


def test_another_format_is_refused(bare: Command) -> None:
    outcome = bare("draw", WORKFLOWS / "hello.yaml", "--format", "png")
    assert outcome.code == 2
    assert "png" in outcome.err


def test_the_schema_is_json_schema(bare: Command) -> None:
    outcome = bare("schema")
    assert outcome.code == 0
    document = orjson.loads(outcome.out)
    assert "places" in document["properties"]


def test_the_schema_takes_what_ships(bare: Command) -> None:
    import jsonschema_rs
    import yaml

    validator = jsonschema_rs.validator_for(bare("schema").json)
    for file in SHIPPED:
        validator.validate(yaml.safe_load(file.read_text()))


def test_checking_a_file_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """So it is quick: half a second on a machine that does nothing else."""
    program = "import sys; from circuit.cli.main import main; assert main(sys.argv[1:]) == 0; print(*sys.modules)"
    arguments = ["validate", str(scripted_workflow(tmp_path))]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "circuit.definition.loader" in loaded
    slow = {"asyncpg", "circuit.app", "circuit.engine", "circuit.storage", "httpx", "rich", "sqlalchemy", "strawberry"}
    assert not slow & loaded


def test_a_secret_that_stands_in_a_file_is_not_shown_again(bare: Command, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "workflow: leaky\n"
        "places: [a, b]\n"
        "agents:\n"
        "  x:\n"
        "    prompts: {system: x}\n"
        "    llm_provider: {type: custom, model: m, api_key: sk-literal, headers: {A: literal-too}}\n"
        "    fallback: [{type: openai, model: m, api_key: sk-literal, options: {secret: literal-too},\n"
        "                base_url: 'https://h?key=literal-too'}]\n"
        "    tools: [{mcp: {name: t, url: 'https://h?token=literal-too'}}]\n"
        "transitions: {t: {from_places: a, to_place: nowhere}}\n",
    )
    outcome = bare("validate", file)
    assert outcome.code == 2
    assert "api_key" in outcome.err
    assert "headers.A" in outcome.err
    assert "literal" not in outcome.err.replace("Literal", "")
    assert "to_place: nowhere" in outcome.err  # other lines are shown

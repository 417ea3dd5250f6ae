"""How the command is used and misused: help, usage errors, one shape of error, one exit code for each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.commanding import Command, scripted_workflow

COMMANDS = [
    ["init"],
    ["run"],
    ["validate"],
    ["load"],
    ["analyse"],
    ["explain"],
    ["draw"],
    ["simulate"],
    ["schema"],
    ["cases"],
    ["show"],
    ["why"],
    ["fork"],
    ["diff"],
    ["fire"],
    ["signal"],
    ["send"],
    ["messages"],
    ["schedules"],
    ["trigger"],
    ["tasks"],
    ["complete"],
    ["approvals"],
    ["approve"],
    ["refuse"],
    ["retry"],
    ["modify"],
    ["cancel"],
    ["incidents", "list"],
    ["incidents", "show"],
    ["incidents", "retry"],
    ["incidents", "resolve"],
    ["incidents", "dead"],
    ["incidents", "put-back"],
    ["workflows", "list"],
    ["workflows", "versions"],
    ["workflows", "publish"],
    ["workflows", "delete"],
    ["retire"],
    ["unretire"],
    ["migrate"],
    ["fsck"],
    ["serve"],
    ["worker"],
    ["agents", "list"],
    ["agents", "show"],
    ["agents", "add"],
    ["agents", "delete"],
    ["agents", "test"],
    ["chat"],
    ["models", "list"],
    ["models", "load"],
    ["models", "unload"],
    ["models", "sleep"],
    ["models", "wake"],
    ["models", "try"],
    ["tools", "list"],
    ["tools", "call"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
    ["tenants", "create"],
    ["tenants", "list"],
    ["archive"],
    ["archive", "show"],
    ["archive", "list"],
    ["archive", "check"],
    ["streams", "compact"],
    ["streams", "list"],
    ["agents", "allow"],
    ["agents", "deny"],
    ["agents", "permissions"],
    ["subjects", "add"],
    ["subjects", "cases"],
    ["subjects", "export"],
    ["subjects", "erase"],
    ["redact"],
    ["screen"],
    ["conversations", "list"],
    ["conversations", "show"],
    ["conversations", "fork"],
    ["executions", "read"],
    ["executions", "show"],
    ["executions", "rate"],
    ["feedback", "list"],
    ["feedback", "export"],
    ["costs"],
    ["budgets"],
    ["budgets", "show"],
    ["budgets", "set"],
    ["budgets", "remove"],
    ["limits"],
    ["limits", "set"],
    ["limits", "remove"],
    ["workers"],
    ["workers", "drain"],
    ["workers", "release"],
    ["top"],
    ["audit", "list"],
    ["audit", "export"],
    ["outbox", "tail"],
    ["outbox", "consumers"],
    ["outbox", "forget"],
    ["db", "status"],
    ["db", "upgrade"],
]
REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"
NO_CASE = "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_the_reference_knows_all_of_it(
    bare: Command, command: list[str]
) -> None:
    outcome = bare(*command, "--help")
    assert outcome.code == 0
    assert re.search(r"Examples?:\s.*circuit " + " ".join(command), outcome.out)
    text = REFERENCE.read_text()
    assert f"`circuit {' '.join(command)}" in text
    for option in re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", outcome.out, re.MULTILINE):
        assert option == "--help" or f"`{option}" in text, option


def test_every_command_is_listed_and_tested(bare: Command) -> None:
    outcome = bare("--help")
    assert outcome.code == 0
    listed = re.findall(r"^  ([a-z]+)  ", outcome.out.partition("Commands:")[2], re.MULTILINE)
    assert sorted(listed) == sorted({command[0] for command in COMMANDS})
    assert bare() == outcome
    assert "upgrade" in bare("db").out


def test_every_summary_is_whole_on_a_narrow_terminal(bare: Command) -> None:
    groups = {command[0] for command in COMMANDS if len(command) > 1}
    pages = [bare(*group.split(), "--help", COLUMNS="80").out for group in ("", *sorted(groups))]
    lines = [line for page in pages for line in page.partition("Commands:")[2].splitlines()]
    assert len(lines) > len(COMMANDS) / 2 and [line for line in lines if line.endswith("...")] == []


def test_the_version(bare: Command) -> None:
    from circuit import __version__

    assert bare("--version").out == f"circuit {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "No such command 'nope'"),
        (["run"], "needs a workflow FILE"),
        (["run", "a.yaml", "--resume", NO_CASE], "--resume takes a case that exists"),
        (["run", "--resume", NO_CASE, "--set", "data.x=1"], "--resume takes a case that exists"),
        (["run", "--frobnicate"], "--frobnicate"),
        (["validate"], "FILE"),
        (["cases", "--limit", "0"], "--limit"),
        (["cases", "--status", "happy"], "--status 'happy' is none of"),
        (["serve", "--port", "70000"], "--port"),
        (["fire", NO_CASE, "go", "--form", "{"], "--form is not JSON"),
        (["fire", NO_CASE, "go", "--form", "[]"], "--form must be a JSON object"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_misuse_is_explained(bare: Command, arguments: list[str], message: str) -> None:
    outcome = bare(*arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.out == ""
    outcome = bare(*arguments, "--json")
    if "No such option: --json" not in outcome.out and "--json" not in message:
        assert outcome.code == 2
        assert outcome.json["error"]["message"]


def test_an_error_is_one_json_object_on_standard_output(bare: Command) -> None:
    outcome = bare("show", NO_CASE, "--json")
    assert outcome.code == 1
    error = outcome.json["error"]
    assert error["code"] == "database_unreachable"
    assert {"code", "message", "details", "timestamp"} == error.keys()
    outcome = bare("show", NO_CASE)
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token", "nonsense"], "--token is not JSON"),
        (["--set", "x=1"], "write --set data.x=VALUE"),
        (["--model", "gpt"], "does not name a model"),
        (["--model", "reader=openai:x"], "has no agent 'reader'"),
        (["--model", "telepathy:x"], "'telepathy' is not a provider"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_bad_option_of_run_is_refused_before_anything_is_opened(
    bare: Command, tmp_path: Path, options: list[str], message: str
) -> None:
    outcome = bare("run", scripted_workflow(tmp_path), *options)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_bad_setting_is_named(bare: Command) -> None:
    outcome = bare("cases", CIRCUIT_PORT="http")
    assert outcome.code == 2
    assert "CIRCUIT_PORT" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_traceback_is_shown_to_who_asks_for_one(bare: Command) -> None:
    outcome = bare("cases", CIRCUIT_LOG_LEVEL="debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.err

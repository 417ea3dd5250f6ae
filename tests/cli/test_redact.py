"""`circuit redact`, the rules of a deployment, and the logs that they are applied to."""

from __future__ import annotations

import io
import logging
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from commanding import Command

from circuit.app import Circuit
from circuit.app.rules import at_odds, warn_of_rules
from circuit.cli.session import configure_logging
from circuit.errors import CircuitError, DefinitionError, InvalidRequest
from circuit.observability.logs import LONGEST_SAID, JSONFormatter, RedactingFormatter, about
from circuit.security.redactor import Redactor
from circuit.security.rules import Rule
from circuit.settings import Settings

KEY = {"CIRCUIT_REDACTION_KEY": "0123456789abcdef"}
RULES = "redaction:\n  - {kind: email, replace: hash}\n  - {name: customer, pattern: 'KD-\\d{3}', where: [events]}\n"
LARGE = "(a{1,280}|b{1,280}|c{1,280}|d{1,280})"
EMAILS = Redactor([Rule("email", "email")])


def test_a_text_is_shown_redacted_with_what_was_found_where(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("to ada@example.com\nof KD-123, ada@example.com")
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    outcome = bare("redact", str(file), "--rules", str(rules))
    assert (outcome.code, outcome.out) == (0, "to [email]\nof [customer], [email]\n")
    assert outcome.err.splitlines() == [
        "email: line 1, column 4: [email]",
        "customer: line 2, column 4: [customer]",
        "email: line 2, column 12: [email]",
    ]
    told = bare("redact", str(file), "--rules", str(rules), "--where", "logs", "--json").json
    assert told["text"] == "to [email]\nof KD-123, [email]"
    assert told["counts"] == {"email": 2}
    assert told["found"][0] == {"rule": "email", "line": 1, "column": 4, "start": 3, "end": 18, "instead": "[email]"}
    assert told["longest"] == 345
    assert bare("redact", "--kind", "iban", "--text", "x").out == "x\n"
    workflow = tmp_path / "workflow.yaml"
    workflow.write_text(
        "workflow: w\nredaction: [email]\nplaces: [a, b]\ntransitions: {t: {from_places: a, to_place: b}}\n"
        "agents: {x: {llm_provider: {type: scripted}, redaction: [email, {name: customer, pattern: 'KD-\\d{3}'}]}}\n"
    )
    assert bare("redact", str(file), "--rules", str(workflow)).out == "to [email]\nof [customer], [email]\n"
    assert bare("redact", "--list", "--json").json[0]["kind"] == "email"


def test_an_agent_that_is_tried_is_shown_as_its_stream_would_be(bare: Command, tmp_path: Path) -> None:
    file = tmp_path / "clerk.yaml"
    file.write_text(
        "workflow: w\nplaces: [a, b]\ntransitions: {t: {from_places: a, to_place: b, agent_execution: x}}\n"
        "redaction: [{kind: email, where: [events]}]\n"
        "agents:\n  x:\n    redaction: [{name: customer, pattern: 'KD-\\d{3}', where: [prompts]}]\n"
        "    llm_provider:\n      {type: scripted, chunk_size: 2,\n"
        "       responses: [{when: '[customer]', response: 'ada@example.com, KD-123'}]}\n"
    )
    outcome = bare("agents", "test", str(file), "--input", '{"who": "KD-123"}')
    assert (outcome.code, outcome.out.strip()) == (0, "[email], KD-123")
    told = bare("agents", "test", str(file), "--input", '{"who": "KD-123"}', "--json")
    assert told.json["text"] == "[email], KD-123"
    assert "ada@" not in told.out + told.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give a FILE"),
        (["x", "--text", "y"], "Give a FILE"),
        (["--text", "y"], "There are no rules"),
        (["--text", "y", "--kind", "emial"], "--kind 'emial' is none of email"),
        (["--text", "y", "--kind", "email", "--where", "log"], "--where 'log' is none of logs"),
        (["--text", "y", "--rules", "missing.yaml"], "does not exist"),
    ],
)
def test_misuse_of_redact(bare: Command, arguments: list[str], said: str) -> None:
    outcome = bare("redact", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err


def test_a_deployment_names_kinds_or_a_file(tmp_path: Path) -> None:
    given = Settings.from_environment({"CIRCUIT_REDACTION": "email, payment_card"})
    assert [rule.name for rule in given.redactor.rules] == ["email", "payment_card"]
    file = tmp_path / "redaction.yaml"
    file.write_text(RULES)
    given = Settings.from_environment({"CIRCUIT_REDACTION": str(file), **KEY})
    assert given.redactor.rules[1] == Rule("customer", None, r"KD-\d{3}", None, ("events",))
    assert given.redactor.at("logs").text("ada@example.com").startswith("[email:")
    assert not Settings.from_environment({}).redactor.at("logs")


def test_rules_of_a_deployment_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "redaction.yaml"

    def refusal(value: str) -> CircuitError:
        with pytest.raises((InvalidRequest, DefinitionError)) as caught:
            Settings.from_environment({"CIRCUIT_REDACTION": value})
        return caught.value

    assert "emial" in refusal("email,emial").message
    assert "No such file" in refusal(str(file)).message
    file.write_bytes(b"\xff\xff")
    assert "UTF-8" in refusal(str(file)).message
    file.write_text(
        "redaction:\n- emial\n- {name: a, pattern: 'b+'}\n- {name: b, pattern: x, kind: email}\n- {pattern: ab}\n- {}\n"
    )
    error = refusal(str(file))
    assert isinstance(error, DefinitionError)
    assert [(fault.line, fault.column) for fault in error.faults] == [(2, 3), (3, 22), (4, 13), (5, 3), (6, 3)]
    for text, path in (
        ("redaction: [email, email]", "redaction[1]"),
        ("redaction: [email, {name: post, pattern: mail}]", "redaction[0]"),
        (f"redaction: [{{name: a, pattern: '{LARGE}e'}}, {{name: b, pattern: '{LARGE}f'}}]", "redaction[1]"),
        ("rules: []", "rules"),
    ):
        file.write_text(text)
        error = refusal(str(file))
        assert isinstance(error, DefinitionError)
        assert path in [fault.path for fault in error.faults]


def test_what_would_change_the_mark_of_another_rule_that_counts_beside_it_is_refused(
    bare: Command, tmp_path: Path
) -> None:
    file = tmp_path / "workflow.yaml"
    agents = "llm_provider: {type: scripted}, redaction: [{name: NAME, pattern: 'PATTERN'}]"
    file.write_text(
        "workflow: w\nredaction: [RULE]\nplaces: {a: {initial: true}, b: {terminal: true}}\n"
        "transitions: {t: {from_places: a, to_place: b, agent_execution: x}}\nagents:\n"
        f"  x: {{tools: [{{agent: y}}], {agents.replace('NAME', 'own').replace('PATTERN', 'KD-[0-9]{3}')}}}\n"
        f"  y: {{description: it helps, {agents}}}\n"
    )
    whole = file.read_text()

    def faults(rule: str, name: str, pattern: str) -> list[tuple[str, int]]:
        file.write_text(whole.replace("RULE", rule).replace("NAME", name).replace("PATTERN", pattern))
        told = bare("validate", str(file), "--json", CIRCUIT_REDACTION="email,iban")
        return [(fault["path"], fault["line"]) for fault in told.json["files"][0].get("faults", ())]

    assert faults("email", "none", "x{3}") == []
    assert faults("{name: post, pattern: mail}", "none", "x{3}") == [("redaction[0]", 2)]
    assert faults("email", "bank", "iba") == [("agents.y.redaction[0]", 7)]
    assert faults("{name: ours, pattern: xyz}", "our", "[a-z]urs") == [("agents.y.redaction[0]", 7)]
    # Whom an agent may ask speaks in the same execution.
    assert faults("email", "owner", "own") == [("agents.x.redaction[0]", 6), ("agents.y.redaction[0]", 7)]


def test_no_secret_and_nothing_that_rules_name_gets_into_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    for name in ("circuit", "elsewhere"):
        # The handlers of the test itself are no part of this.
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
    for form in ("json", "text"):
        configure_logging(
            Settings.from_environment(
                {
                    "CIRCUIT_LOG_FORMAT": form,
                    "CIRCUIT_REDACTION": "email",
                    "OPENAI_API_KEY": "plain-as-that",
                    "CIRCUIT_DATABASE_URL": "postgresql://u:geheimes%20wort@h/d",
                }
            )
        )
        try:
            log = logging.getLogger("circuit.some.module")
            try:
                raise ValueError("of ada@example.com with plain-as-that")
            except ValueError:
                log.exception("by %s", "bob@example.com", stack_info=True)
            log.warning("%s and %s", "ada@example.com")
            log.warning("geheimes wort")
            log.warning("line\n%s", {"a": ["bob@example.com"]})
            logging.getLogger("elsewhere").warning("ada@example.com")
        finally:
            configure_logging(Settings.from_environment({}))
    text = written.getvalue()
    assert "[email]" in text
    for secret in ("ada@", "bob@", "plain-as-that", "geheimes"):
        assert secret not in text
    lines = [orjson.loads(line) for line in text.splitlines() if line.startswith('{"at')]
    assert "ValueError: of [email] with ***" in lines[0]["error"]
    assert lines[1]["message"] == "[not shown: it could not be redacted]"


def test_other_handlers_get_the_record_as_it_is_and_the_rules_of_an_execution_count_within_it() -> None:
    formatter = RedactingFormatter(JSONFormatter(), EMAILS)
    record = logging.makeLogRecord({"msg": "%s", "args": ("ada@example.com KD-1",), "exc_text": "of ada@example.com"})
    with about("case", "case.1", [Rule("customer", None, "KD-1")]):
        assert orjson.loads(formatter.format(record))["message"] == "[email] [customer]"
    assert orjson.loads(formatter.format(record))["message"] == "[email] KD-1"
    assert record.getMessage() == "ada@example.com KD-1"
    assert "ada" not in formatter.format(record)


def test_of_a_message_that_is_very_long_the_beginning_is_logged_and_nothing_that_is_cut_in_two() -> None:
    formatter = RedactingFormatter(JSONFormatter(), EMAILS)
    long = " " * (LONGEST_SAID - 8) + "ada@example.com" + " " * 100
    said = orjson.loads(formatter.format(logging.makeLogRecord({"msg": long})))["message"]
    assert said.strip() == f"[cut off: it has {len(long):,} characters]"


OFFICE = """
workflow: office
redaction: [{{name: customer, pattern: 'KD-[0-9]{{{{3}}}}', replace: '{instead}'}}]
places: [a, b]
transitions: {{t: {{from_places: a, to_place: b}}}}
"""


async def test_whoever_serves_is_warned_of_workflows_at_odds_with_new_rules_of_the_deployment(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"CIRCUIT_DATABASE_URL": database_url}
    async with Circuit.open(settings=Settings.from_environment(environment), worker=False) as circuit:
        await circuit.load(OFFICE.format(instead="somebody"))
        await circuit.load(OFFICE.format(instead="(customer)").replace("office", "desk"))
        await warn_of_rules(circuit)
        assert "rule" not in caplog.text, "there are no rules that could have changed"
        for pattern, says in (("some[a-z]{4}", True), ("nothing", False)):
            caplog.clear()
            circuit.settings = replace(circuit.settings, redactor=Redactor([Rule("words", None, pattern)]))
            await warn_of_rules(circuit)
            told = [record.getMessage() for record in caplog.records if record.name == "circuit.app.rules"]
            assert len(told) == says
            assert all(
                one.startswith(
                    "workflow office of tenant 1: the rule of redaction words changes what stands instead of what"
                    " customer takes out; give customer a `replace` that no rule matches"
                )
                for one in told
            )


def test_a_rule_that_only_a_later_release_knows_keeps_nothing_from_being_said(caplog: pytest.LogCaptureFixture) -> None:
    later = {"redaction": [{"name": "iris", "kind": "iris"}]}
    stranger = {"redaction": [{"pattern": "a rule that is written otherwise"}]}
    office = {"redaction": [{"name": "customer", "pattern": "Ada", "replace": "somebody"}]}
    documents = (("later", later), ("stranger", stranger), ("office", office))
    assert at_odds([Rule("words", None, "some[a-z]{4}")], documents) == [("office", "customer", "words")]
    assert ["later" in caplog.messages[0], "stranger" in caplog.messages[1]] == [True, True]

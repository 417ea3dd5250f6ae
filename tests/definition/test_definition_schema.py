"""The JSON Schema of the format: it is what is committed, editors get a word on every key, shipped files fit it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from faulty import workflow

from circuit.definition import fragment_schema, json_schema, load_workflow
from circuit.definition.schema import FRAGMENT_SCHEMA_FILE, SCHEMA_FILE

REPOSITORY = Path(__file__).parent.parent.parent
SHIPPED = sorted((REPOSITORY / "workflows").glob("*.yaml"))
FRAGMENT = """
fragment: everywhere
parameters: {name: null, most: 3, kind: manual, again: false, model: gpt}
include: [other.yaml, {file: more.yaml, with: {x: 1}}]
places: {$(name)_in: {capacity: $(most), terminal: $(again)}, $(name): null}
agents: {$(name)-agent: {llm_provider: {type: openai, model: $(model)}, llm_config: {temperature: $(most)}}}
transitions:
  $(name)_go:
    from_places: [{place: $(name)_in, weight: $(most), mode: $(kind)}]
    to_place: $(name)
    priority: $(most)
    trigger: {type: $(kind), after: $(most)}
    agent_execution: {agent_id: $(name)-agent, timeout_seconds: $(most), retry_config: {max_attempts: $(most)}}
"""
SCHEMA = json_schema()
VALIDATOR: Any = jsonschema_rs.validator_for(SCHEMA)


def fits(text: str) -> bool:
    return VALIDATOR.is_valid(yaml.safe_load(text))


def test_the_committed_schema_is_the_one_of_the_code() -> None:
    committed = json.loads((REPOSITORY / SCHEMA_FILE).read_text())
    assert committed == SCHEMA, f"write the new one: circuit schema > {SCHEMA_FILE}"


def test_the_schema_of_fragments_is_committed_and_takes_what_the_loader_takes() -> None:
    schema = fragment_schema()
    committed = json.loads((REPOSITORY / FRAGMENT_SCHEMA_FILE).read_text())
    assert committed == schema, f"write the new one: circuit schema --fragment > {FRAGMENT_SCHEMA_FILE}"
    assert jsonschema_rs.meta.is_valid(schema)
    fits: Any = jsonschema_rs.validator_for(schema)
    page = (REPOSITORY / "docs" / "reference" / "workflow-file.md").read_text()
    shown = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.S) if "\nfragment: " in f"\n{text}"]
    assert shown
    for text in (*shown, FRAGMENT):
        assert [error.message for error in fits.iter_errors(yaml.safe_load(text))] == []
    for wrong in (
        "workflow: x",
        "placess: {}",
        "places: {a: {capacity: many}}",
        "transitions: {t: {trigger: {type: now}}}",
    ):
        assert not fits.is_valid(yaml.safe_load(f"fragment: f\n{wrong}\n")), wrong


def test_it_is_a_schema_of_draft_2020_12() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert jsonschema_rs.meta.is_valid(SCHEMA)


def _keys(schema: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        for name, part in schema.get("properties", {}).items():
            yield f"{path}/{name}", part
        for name, part in schema.items():
            yield from _keys(part, f"{path}/{name}")
    elif isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from _keys(part, f"{path}/{index}")


def test_every_key_has_a_title_and_a_description() -> None:
    keys = dict(_keys(SCHEMA))
    assert len(keys) > 80
    lacking = [path for path, part in keys.items() if not part.get("title") or not part.get("description")]
    assert not lacking


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_workflows_fit_and_name_the_schema(file: Path) -> None:
    text = file.read_text()
    errors = [f"{error.instance_path}: {error.message}" for error in VALIDATOR.iter_errors(yaml.safe_load(text))]
    assert not errors
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=../docs/reference/workflow.schema.json"
    assert (file.parent / first.partition("$schema=")[2]).resolve() == REPOSITORY / SCHEMA_FILE


def test_the_whole_format_fits() -> None:
    text = (Path(__file__).parent / "whole_format.yaml").read_text()
    assert not [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize(
    "text",
    [
        "workflow: x\nplaces: [a, b]\ntransitions: {t: {from_places: a, to_place: b}}",
        "workflow: x\nplaces: {a: }\ntransitions: {t: {from_places: [a], to_places: [{place: a, weight: 2}]}}",
        workflow(step="agent_execution: helper\nconditions: 'true'"),
        workflow(step="agent_execution: {agent_id: helper, timeout_seconds: 10s}"),
        workflow(step="agent_execution: {agent_id: helper, timeout_seconds: 10}"),
        workflow(step="agent_execution: {agent_id: helper, input_mapping: {a: {path: data.x, default: null}}}"),
        workflow(agents="a: {llm_provider: {type: custom, model: m, base_url: http://h, headers: {X: 'a ${B}'}}}"),
        workflow(agents="a: {llm_provider: {type: openai, model: m, api_key: {env: KEY}}}"),
    ],
)
def test_short_and_long_forms_fit(text: str) -> None:
    assert fits(text)


@pytest.mark.parametrize(
    "text",
    [
        "workflow: x\nplaces: [a]",
        workflow(top="bogus: 1"),
        workflow(agent="llm_config: {temperature: 3}"),
        workflow(agents="a: {llm_provider: {type: openai, model: m, api_key: sk-literal}}"),
        workflow(agents="a: {llm_provider: {type: other, model: m}}"),
        workflow(step="agent_execution: {agent_id: helper, timeout_seconds: soon}"),
        workflow(step="rules: [{}]"),
        workflow(step="rules: [{field_exists: a, field_equals: {field: b, value: c}}]"),
        workflow(places="9lives: {}"),
    ],
)
def test_what_does_not_fit(text: str) -> None:
    assert not fits(text)


def test_shipped_workflows_have_no_fault() -> None:
    assert {file.stem for file in SHIPPED} >= {"hello", "document_review", "research_fork_join"}
    for file in SHIPPED:
        load_workflow(file.read_text(), str(file))

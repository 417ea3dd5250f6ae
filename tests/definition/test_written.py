"""A published version as a file: whoever loads it gets the same version again."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit.definition import load_workflow
from circuit.definition.portrait import mermaid_of, svg_of
from circuit.definition.written import written

ROOT = Path(__file__).resolve().parents[2]

ODD = r"""
workflow: odd
name: "yes"
description: "  two\nlines\n\nand: a colon  "
labels: {a: "1e3", b: "null", c: "0x1f", d: "~", e: "2026-01-01", f: "- x", g: "\u2028 \U0001f600 \t"}
colours: {thing: {type: object, properties: {llm_provider: {type: string, options: {}}}}}
places:
  begin: {initial: true, colour: thing}
  end: {terminal: true}
agents:
  a:
    llm_provider: {type: openai, model: gpt-4o, base_url: "https://x.example/v1", headers: {x-a: "${A}"}}
    fallback: [{type: ollama, model: m, options: {num_ctx: 10}}]
    prompts: {system: "line\n  indented\n"}
    llm_config: {temperature: 0.1, stop_sequences: ["1_000", "12:30", "=", "on"]}
transitions:
  go: {from_places: begin, to_place: end, agent_execution: a, conditions: ['data.x == "no"']}
place_agents:
  - place_id: begin
    agent_id: a
    llm_provider: {type: custom, model: m, base_url: "${URL}"}
    schedule: {cron: "* * * * *"}
"""


def texts() -> list[tuple[str, str]]:
    shipped = [(path.name, path.read_text(encoding="utf-8")) for path in sorted((ROOT / "workflows").glob("*.yaml"))]
    assert len(shipped) > 2
    return [*shipped, ("odd", ODD)]


@pytest.mark.parametrize(("name", "text"), texts(), ids=lambda value: value if len(value) < 40 else "")
def test_what_is_written_is_the_same_version(name: str, text: str) -> None:
    workflow = load_workflow(text, name)
    again = load_workflow(written(workflow.document), name)
    assert again.hash == workflow.hash
    assert again.document == workflow.document
    assert svg_of(workflow.document).startswith("<svg")
    assert mermaid_of(workflow.document).startswith("flowchart")

"""A workflow as input objects says whatever a file can say, and is the same version."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from asking import SCHEMA
from driven import driven
from graphql import GraphQLInputObjectType

from circuit.definition.schema import json_schema

INPUTS = {
    "PlaceInput": "PlaceEntry",
    "TransitionInput": "TransitionEntry",
    "AgentInput": "Agent",
    "PromptsInput": "PromptSet",
    "AgentExecutionInput": "AgentExecution",
    "RetryConfigInput": "RetryConfig",
    "TriggerInput": "TriggerEntry",
    "PlaceAgentConfigInput": "PlaceAgent",
    "PlaceAgentScheduleInput": "PlaceAgentSchedule",
    "BudgetInput": "BudgetEntry",
}
FILE = """
workflow: desk
pool: people
outbox: [case_ended]
include: [{file: parts/end.yaml, with: {name: gone}}]
budget: {calls: 20}
redaction: [email, {kind: iban, where: [logs], replace: hash}]
places:
  asked: {initial: true}
  checked: {}
  done: {terminal: true}
  seats: {shared: true, capacity: 2, interval: 5m}
  stock: {tokens: [{data: {seat: 1}}]}
agents:
  clerk:
    llm_provider: {type: scripted, responses: [Yes.]}
    llm_config: {max_tokens: 50, stop_sequences: [END]}
    prompts: {system: You check., user_template: "{{ input_data }}", engine: jinja, capabilities: {react: Think.}}
    capabilities: [react]
    tools: [fs.read_file]
    policies: [{require_approval: fs.read_file}]
    fallback: [{type: scripted, model: second, responses: [No.]}]
    conversation: case
    context_tokens: 4000
    images: [scan]
    cache: {ttl: 1h}
    redaction: [{name: seat, pattern: 'S-\\d{3}'}]
transitions:
  check:
    from_places: [{place: asked}]
    to_places: [checked]
    action:
      type: human
      title: "Check {text}"
      roles: [accountant]
      form: {type: object, required: [approved], properties: {approved: {type: boolean}}}
      input_mapping: {text: data.text}
      output_mapping: {data.approved: approved}
  write:
    from_places: [{place: checked}, {place: seats}]
    to_places: [done, stock]
    agent_execution:
      agent_id: clerk
      input_mapping: {scan: data.scan}
      retry_config: {max_attempts: 2, max_crashes: 3}
  drop:
    from_places: [{place: asked}]
    to_place: gone
    trigger: {type: timer, after: 30d, interrupt: true}
place_agents: [{place_id: asked, agent_id: clerk, cron: "0 8 * * *"}]
"""
END = "fragment: end\nparameters: {name: null}\nplaces: {$(name): {terminal: true}}"
LOAD = """mutation ($yaml: String!, $files: [WorkflowFileInput!]) {
  loadWorkflow(yaml: $yaml, files: $files, allowUnsound: true) { hash } }"""
CREATE = """mutation ($workflow: WorkflowInput!, $files: [WorkflowFileInput!]) {
  createWorkflow(workflow: $workflow, files: $files, allowUnsound: true) { hash } }"""
KEPT = {"llmProvider", "fallback", "action", "fromPlaces", "toPlaces", "include", "policies", "capabilities", "cache"}
KEPT |= {"redaction", "inputMapping", "tokens", "placeAgents", "form"}
"""Whose values are JSON, spelt as in the file."""


def camel(name: str) -> str:
    return re.sub(r"_(.)", lambda found: found[1].upper(), name)


def spelt(value: Any) -> Any:
    if isinstance(value, list):
        return [spelt(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {camel(name): one if camel(name) in KEPT else spelt(one) for name, one in value.items()}


def test_input_objects_have_every_word_of_the_file() -> None:
    schema = json_schema()
    words = {name: schema["$defs"][entry]["properties"] for name, entry in INPUTS.items()}
    # A workflow has its id under its own name.
    words["WorkflowInput"] = {("id" if name == "workflow" else name): 1 for name in schema["properties"]}
    for name, known in words.items():
        kind = SCHEMA.type_map[name]
        assert isinstance(kind, GraphQLInputObjectType)
        assert {camel(word) for word in known} - kind.fields.keys() == set(), name


async def test_input_objects_and_a_file_are_the_same_version(database_url: str, tmp_path: Path) -> None:
    document = yaml.safe_load(FILE)
    workflow = {"id": document.pop("workflow"), **spelt(document)}
    for part in ("places", "agents", "transitions"):
        workflow[part] = [{"id": name, **spelt(entry)} for name, entry in document[part].items()]
    async with driven(database_url) as server:
        files = [{"path": "parts/end.yaml", "text": END}]
        loaded = await server.ok(LOAD, yaml=FILE, files=files)
        assert await server.ok(CREATE, workflow=workflow, files=files) == loaded
        fewer = {**workflow, "places": workflow["places"][:1]}
        [refused] = (await server.post(CREATE, workflow=fewer, files=files))["errors"]
        faults = refused["extensions"]["faults"]
        assert refused["extensions"]["code"] == "invalid_definition"
        assert all(fault["line"] > 1 and fault["column"] >= 1 for fault in faults), json.dumps(faults)
        agent = workflow["agents"][0]
        twice = {**agent, "llmConfig": {"maxTokens": 5, "max_tokens": 6}}
        [refused] = (await server.post(CREATE, workflow={**workflow, "agents": [twice]}, files=files))["errors"]
        assert "maxTokens" in refused["message"]

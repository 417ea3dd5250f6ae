"""What a workflow file says of capabilities, tools and policies: both forms, and every fault at its place."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faulty import expect, workflow

from circuit.agents.toolbox.openapi import api_fault
from circuit.definition.adoption import borrowed
from circuit.definition.loading import load, load_workflow
from circuit.errors import DefinitionError
from circuit.providers.profiles import misfits

WHOLE = """
capabilities: [chain_of_thought, {self_reflection: {confidence_threshold: 0.5, criteria: [be kind]}}]
tools:
  - fs.read_file
  - {files: {root: data, read_only: ['*.md'], max_bytes: 1000}}
  - {function: {name: look_up, seconds: 10m}}
policies:
  - {deny: fs.write_file}
  - {limit: [fs.*], to: 3}
  - {require: fs.read_file, before: fs.head}
context_tokens: 9000
cache: {ttl: 2h}
prompts: {capabilities: {react: Go.}}
"""


def test_the_canonical_form() -> None:
    agent = next(iter(load(workflow(agent=WHOLE)).plain["agents"].values()))
    assert agent["capabilities"] == [
        {"name": "chain_of_thought"},
        {"name": "self_reflection", "confidence_threshold": 0.5, "criteria": ["be kind"]},
    ]
    assert agent["tools"] == [
        {"kind": "named", "name": "fs.read_file"},
        {"kind": "files", "root": "data", "read_only": ["*.md"], "max_bytes": 1000},
        {"kind": "function", "name": "look_up", "seconds": 600.0},
    ]
    assert agent["policies"] == [
        {"deny": ["fs.write_file"]},
        {"limit": ["fs.*"], "to": 3},
        {"require": "fs.read_file", "before": ["fs.head"]},
    ]
    assert agent["context_tokens"] == 9000
    assert agent["cache"] == {"ttl": 7200.0}


BORROWING = """
workflow: borrowing
places: {asked: {initial: true}, told: {terminal: true}}
transitions:
  ask: {from_places: asked, to_place: told, agent_execution: {agent_id: front}}
"""


def test_agents_that_a_file_lacks_come_from_those_that_are_published() -> None:
    def agent(*tools: dict[str, str]) -> dict[str, Any]:
        written = f"tools: {list(tools)}" if tools else "description: one"
        others = "".join(f"\n  {one[kind]}: {{llm_provider: {{type: scripted}}}}" for one in tools for kind in one)
        text = workflow(agent=written).replace("\ntransitions:", f"{others}\ntransitions:")
        return {"id": "x", **load(text).plain["agents"]["helper"]}

    assert borrowed(BORROWING) == ["front"]
    assert borrowed("- no\n") == borrowed("workflow: [") == []
    published = {"front": agent({"hand_over": "back"}), "back": agent(), "idle": agent()}
    plain = load(BORROWING, agents=published).plain
    assert sorted(plain["agents"]) == ["back", "front"]
    assert "id" not in plain["agents"]["front"]
    own = BORROWING + "agents: {front: {llm_provider: {type: scripted, model: mine}}}\n"
    assert borrowed(own) == []
    assert load(own, agents=published).plain["agents"]["front"]["llm_provider"]["model"] == "mine"
    with pytest.raises(DefinitionError, match="there is no agent 'front'"):
        load(BORROWING)
    with pytest.raises(DefinitionError, match="there is no agent 'back'"):
        load(BORROWING, agents={"front": published["front"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("capabilities: [«reakt]", "reakt"),
        ("capabilities: [«{}]", "exactly one of the keys direct, chain_of_thought"),
        ("capabilities: [react, «react]", "the capability react stands twice"),
        ("capabilities: [«direct, react]", "direct and react exclude each other"),
        ("capabilities: [{self_reflection: {confidence_threshold: «2}}]", "between 0 and 1"),
        ("tools: [«7]", "the name of a function"),
        ("tools: [«{}]", "exactly one of the keys function, files"),
        ("tools: [{function: {name: look_up, seconds: «0}}]", "a call needs some time"),
        ("tools: [{http: {allow: [a.example], seconds: «soon}}]", "not a duration"),
        ("tools: [{function: {name: look_up}}]\npolicies: [{deny: «look_at}]", "no tool that 'look_at' means"),
        ("tools: [fs.*]\npolicies: [«{}]", "exactly one of the keys allow"),
        ("tools: [fs.*]\npolicies: [{deny: fs.head, to: «3}]", "to belongs to limit"),
        ("tools: [fs.*]\npolicies: [«{limit: fs.head}]", "limit needs to"),
        ("tools: [fs.read_file]\npolicies: [{deny: «fs.wirte_file}]", "no tool that 'fs.wirte_file' means"),
        ("tools: [fs.*]\npolicies: [{deny: «fs.wirte_file}]", "no tool that 'fs.wirte_file' means"),
        ("tools: [{files: {}}]\npolicies: [{limit: «fs.append, to: 3}]", "no tool that 'fs.append' means"),
        ("«policies: [{deny: fs.head}]", "the agent has policies and no tools"),
        ("cache: {ttl: «0}", "more than nothing and a year at most"),
        ("cache: «1h", "mapping"),
        ("tools: [fs.stat, «fs.raed_file]", "there is no tool of files 'fs.raed_file' (did you mean fs.read_file?)"),
        ("tools: [{http: {allow: «[]}}]", "allow must have one entry at least"),
        ("tools: [{«nope: {}}]", "unknown key 'nope'"),
        ("tools: [{http: {allow: [a.example, «'https://b.example']}}]", "this is no host (write example.org"),
        ("tools: [{mcp: «{name: m}}]", "an MCP server needs a command, or a url"),
        ("tools: [{mcp: {name: m, command: [x], url: «'https://h'}}]", "has a command or a url, and not both"),
        ("tools: [{mcp: {name: m, command: [x], headers: «{A: '${X}'}}}]", "headers go to a server with a url"),
        ("tools: [{mcp: {name: m, url: 'https://h', env: «{A: '${X}'}}}]", "env is of a server that is started"),
        (
            "tools: [{mcp: {name: m, command: [x]}}, {mcp: {name: «m, command: [y]}}, {mcp: {name: n, command: [y]}}]",
            "the agent has another MCP server 'm' already",
        ),
        ("tools: [{hand_over: «nobody}]", "there is no agent 'nobody'"),
        ("tools: [{agent: «helper}]", "cannot ask itself"),
        ("prompts: {capabilities: {«reakt: x}}", "no capability has a text 'reakt'"),
        ("prompts: {capabilities: {improve: «' '}}", "the text is empty"),
        ("prompts: {capabilities: {improve: '{issues} «{question}'}}", "unknown template variable {question}"),
        (
            "capabilities: [{self_reflection: {criteria: [short]}}]\n"
            "prompts: {capabilities: {self_reflection: «Judge.}}",
            "the criteria would be told to nobody",
        ),
    ],
)
def test_faults(text: str, message: str) -> None:
    expect(workflow(agent=text), message)


def test_what_a_model_does_not_take_is_a_fault_where_models_are_known() -> None:
    text = """
workflow: w
places: {a: {initial: true}, b: {terminal: true}}
agents:
  x:
    llm_provider: {type: openai, model: gpt-4o}
    llm_config: {max_tokens: 1000000}
transitions: {t: {from_places: a, to_place: b, agent_execution: x}}
"""
    assert load_workflow(text).id == "w"
    with pytest.raises(DefinitionError, match=r"7:\d+: .*gpt-4o gives 16384 tokens at most"):
        load_workflow(text, models=misfits)
    fallback = text.replace(
        "1000000}", "16000}\n    fallback: [{type: ollama, model: x}, {type: openai, model: gpt-4-32k}]"
    )
    assert load_workflow(fallback, models=misfits).id == "w"
    fallback = fallback.replace("gpt-4-32k", "gpt-3.5-turbo")
    with pytest.raises(DefinitionError, match=r"8:\d+: .*fallback\[1\].*gpt-3.5-turbo gives 4096 tokens at most"):
        load_workflow(fallback, models=misfits)
    window = text.replace("1000000}", "16000}\n    context_tokens: 200000")
    with pytest.raises(DefinitionError, match=r"context_tokens is 200000, and gpt-4o holds 128000 tokens"):
        load_workflow(window, models=misfits)
    narrower = window.replace("200000", "100000\n    fallback: [{type: openai, model: gpt-4-32k}]")
    assert load_workflow(narrower, models=misfits).id == "w"


def test_a_schema_that_nothing_satisfies_is_a_fault() -> None:
    expect(
        workflow(agent="output_schema: «{type: object, required: [n], properties: {n: {enum: []}}}"),
        "nothing satisfies this schema: n: none of the values that it lists fits the rest",
    )


def test_who_runs_an_agent_maps_its_images() -> None:
    run = "agent_execution: {agent_id: helper, input_mapping: {%s: data.photo}}"
    expect(workflow(agent="images: [«photo]", step=run % "said"), "transition go does not map the image 'photo'")
    assert load(workflow(agent="images: [photo]", step=run % "photo")).plain["agents"]["helper"]["images"] == ["photo"]


def test_an_image_that_no_token_can_have_is_a_fault() -> None:
    text = """
workflow: w
colours: {letter: {type: object, %s: {said: {type: string}}, additionalProperties: %s}}
places: {a: {initial: true, colour: letter}, b: {terminal: true}}
agents: {x: {llm_provider: {type: scripted}, images: [%s]}}
transitions: {t: {from_places: a, to_place: b, agent_execution: {agent_id: x}}}
"""
    message = "transition t maps nothing, and no token of colour letter has 'photo'"
    expect(text % ("properties", "false", "«photo"), message)
    expect(text % ("$defs", "false", "«photo"), message)
    for known in (
        ("properties", "true", "photo"),
        ("patternProperties", "false", "photo"),
        ("properties", "false", "said"),
    ):
        assert load(text % known).plain["agents"]["x"]["images"] == [known[2]]


def test_a_document_that_gives_no_tools_is_a_fault_where_that_is_certain(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "pets.yaml").write_text(
        "openapi: 3.1.0\nservers: [{url: 'https://a.example'}]\npaths: {/pets: {get: {operationId: pets}}}\n"
    )
    inline = "{openapi: 3.1.0, paths: {/pets: {get: {operationId: pets}}}}"

    def found(document: str, more: str = "", **known: bool) -> str:
        text = workflow(agent=f"tools: [{{openapi: {{prefix: p, document: {document}{more}}}}}]")
        try:
            load(text, apis=partial(api_fault, **known))
        except DefinitionError as error:
            (fault,) = error.faults
            assert text.split("\n")[fault.line - 1][fault.column - 1 :].startswith(document)
            return fault.message
        return ""

    assert "cannot be read as JSON or YAML" in found(f"{tmp_path}/broken.yaml")
    assert not found(f"{tmp_path}/broken.yaml", files=False)
    assert not found(f"{tmp_path}/pets.yaml", here=True)
    assert not found(f"{tmp_path}/missing.yaml")
    assert "No such file" in found(f"{tmp_path}/missing.yaml", here=True)
    assert "only OpenAPI 3 is read" in found("{swagger: '2.0'}", files=False)
    assert "names no server" in found(inline, files=False)
    assert not found(inline, ", base_url: '${PETS}'", files=False)
    assert "no operation of the API is meant by dogs" in found(inline, ", base_url: 'https://a', operations: [dogs]")


def test_prompts_in_jinja_are_checked_before_they_are_published() -> None:
    run = "agent_execution: {agent_id: helper, input_mapping: {said: data.said}}"
    prompts = 'prompts: {engine: jinja, user_template: "%s"}'
    agent = load(workflow(agent=prompts % "{% if said %}{{ token_id }}{% endif %}", step=run)).plain["agents"]["helper"]
    assert agent["prompts"]["engine"] == "jinja"
    expect(workflow(agent=prompts % "{{ «nobody }}", step=run), "unknown template variable {nobody}")
    expect(workflow(agent=prompts % "«{% if said %}", step=run), "this is no template of Jinja")
    compiled = load_workflow(workflow(agent=prompts % "{{ said }}", step=run)).agents["helper"]
    plain = load_workflow(workflow(agent='prompts: {user_template: "{{ said }}"}', step=run)).agents["helper"]
    assert compiled.prompt_hash != plain.prompt_hash

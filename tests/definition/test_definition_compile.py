"""Canonical documents, hashes, and the workflow that any process makes of a document."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faulty import workflow

from circuit.definition import compile_document, content_hash, load, load_workflow
from circuit.definition.workflow import ProviderSpec, RetryPolicy
from circuit.net.structure import Merge, Mode, Trigger

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
SHIPPED = sorted((REPOSITORY / "workflows").glob("*.yaml"))

LONG = """
workflow: sameness
name: sameness
places:
  draft: {initial: true, terminal: false}
  done: {terminal: true, outcome: completed, dead_letter: null}
agents:
  writer:
    name: writer
    llm_provider: {type: openai, model: m, api_key: '${KEY}'}
    prompts: {user_template: '{input_data}'}
transitions:
  finish:
    from_places: [{place: draft, weight: 1, mode: consume}]
    to_places: [{place: done, weight: 1}]
    conditions: ['true']
    priority: 0
    trigger: {type: auto}
    agent_execution: {agent_id: writer, input_mapping: {}, required: true, timeout_seconds: 5m}
"""
SHORT = """
workflow: sameness
places: [draft, done]
agents: {writer: {llm_provider: {type: openai, model: m, api_key: $KEY}}}
transitions: {finish: {from_places: draft, to_place: done, conditions: 'true', agent_execution: writer}}
"""


def test_short_and_long_forms_are_one_document() -> None:
    assert load(LONG).plain == load(SHORT).plain
    assert load_workflow(LONG).hash == load_workflow(SHORT).hash


def test_the_hash_is_that_of_the_canonical_json() -> None:
    made = load_workflow(SHORT)
    assert made.hash == content_hash(json.loads(json.dumps(made.document)))
    assert len(made.hash) == 64
    assert made.hash != load_workflow(SHORT.replace("sameness", "otherness")).hash
    assert content_hash({"b": 1, "a": [1.0, "é"]}) == content_hash({"a": [1.0, "é"], "b": 1})


def test_comments_order_and_spelling_do_not_make_a_new_version() -> None:
    turned = """
# a comment
transitions:
  finish:
    agent_execution: {agent_id: writer, timeout_seconds: 300}
    conditions: ["true"]
    to_places: done
    from_places: draft
places: {done: {terminal: true}, draft: {initial: true}}
agents: {writer: {llm_provider: {type: openai, model: m, api_key: {env: KEY}}}}
workflow: sameness
"""
    assert load_workflow(turned).hash == load_workflow(SHORT).hash


def test_in_the_list_form_the_first_place_is_initial_and_those_without_a_way_on_are_terminal() -> None:
    text = """
workflow: x
places: [a, b, c, d]
transitions:
  one: {from_places: a, to_places: [b, c]}
  two: {from_places: [b, {place: d, mode: read}], to_place: d}
"""
    places = load_workflow(text).net.places
    assert [name for name, place in places.items() if place.initial] == ["a"]
    assert [name for name, place in places.items() if place.terminal] == ["c", "d"]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_stored_document_compiles_to_an_equal_workflow(file: Path) -> None:
    made = load_workflow(file.read_text(), str(file))
    stored: Any = json.loads(json.dumps(made.document))
    again = compile_document(stored)
    assert again == made
    assert again.net.touching == made.net.touching
    assert compile_document(json.loads(json.dumps(made.document, sort_keys=True))) == made
    assert load(json.dumps(_as_file(stored))).plain == stored


def _as_file(plain: dict[str, Any]) -> dict[str, Any]:
    """A canonical document as an author could have written it: options stand beside type and model."""
    document = copy.deepcopy(plain)
    for agent in document.get("agents", {}).values():
        provider = agent["llm_provider"]
        provider.update(provider.pop("options", {}))
    return document


def test_another_process_makes_the_same_hash() -> None:
    file = REPOSITORY / "workflows" / "document_review.yaml"
    code = (
        "import json, sys; from circuit.definition import load_workflow, compile_document;"
        "made = load_workflow(open(sys.argv[1]).read(), 'f');"
        "print(made.hash, compile_document(json.loads(json.dumps(made.document))).hash,"
        " *(f'{a.hash}/{a.prompt_hash}' for a in made.agents.values()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={"PYTHONHASHSEED": "77"},
    )
    made = load_workflow(file.read_text())
    agents = [f"{agent.hash}/{agent.prompt_hash}" for agent in made.agents.values()]
    assert run.stdout.split() == [made.hash, made.hash, *agents]


def test_what_the_compiler_makes_of_each_key() -> None:
    made = load_workflow(
        """
workflow: all
name: All of it
description: Text.
labels: {team: a}
colours: {Doc: {type: object, required: [content]}}
places:
  start: {colour: Doc, initial: true, capacity: 3}
  side: {tokens: [{data: {n: 1}, metadata: {m: 2}}]}
  end: {terminal: true, outcome: failed}
  dead: {dead_letter: true}
agents:
  writer:
    name: Writer
    description: Writes.
    llm_provider: {type: custom, model: m, base_url: https://h/v1, headers: {X-Key: $KEY}}
    llm_config: {temperature: 0, stop_sequences: [END], max_tokens: 5}
    prompts: {system: Be brief., user_template: 'Say {what}', context_instructions: None.}
    output_schema: {type: object, properties: {doc: {$ref: '#/colours/Doc'}}}
transitions:
  write:
    name: Writing
    from_places: [start, {place: side, mode: read, weight: 1}]
    to_places: [end, {place: side, weight: 2, data: {n: data.content}}]
    rules: [{id: has, field_exists: content}, {not: {field_equals: {field: data.content, value: ''}}}]
    conditions: [data.content != 'x', tokens.side.data.n == 1]
    priority: 7
    merge: deep
    on_failure: dead
    agent_execution:
      agent_id: writer
      input_mapping: {what: {path: data.content, default: nothing}}
      output_mapping: {data.text: text, to.side.metadata.by: agent_id}
      required: false
      timeout_seconds: 2m
      retry_config: {max_attempts: 4, backoff_seconds: 500ms, retry_on_errors: [timeout]}
  by_hand:
    from_places: [side]
    to_place: end
    trigger: {type: manual, roles: [author, editor], form: {type: object, properties: {note: {type: string}}}}
    output_mapping: {data.note: form.note}
"""
    )
    assert (made.id, made.name, made.description, made.labels) == ("all", "All of it", "Text.", {"team": "a"})
    start, side, end, dead = (made.net.places[name] for name in ("start", "side", "end", "dead"))
    assert start.initial
    assert start.capacity == 3
    assert start.colour is not None
    assert start.colour.faults({}) and not start.colour.faults({"content": "x"})
    assert side.colour is None
    assert (end.terminal, end.failed, dead.dead_letter) == (True, True, True)
    assert [(token.place, token.data, token.metadata) for token in made.initial_tokens] == [
        ("side", {"n": 1}, {"m": 2})
    ]

    write, by_hand = made.net.transitions["write"], made.net.transitions["by_hand"]
    assert [(arc.place, arc.weight, arc.mode) for arc in write.inputs] == [
        ("start", 1, Mode.CONSUME),
        ("side", 1, Mode.READ),
    ]
    assert [(arc.place, arc.weight, arc.data is not None) for arc in write.outputs] == [
        ("end", 1, False),
        ("side", 2, True),
    ]
    assert (write.priority, write.merge, write.on_failure, write.acting) == (7, Merge.DEEP, "dead", True)
    assert write.guard is not None
    assert [len(write.guard.rules), len(write.guard.conditions)] == [2, 2]
    assert write.input_mapping is not None and write.input_mapping.names == ("what",)
    assert write.output_mapping is not None and write.output_mapping.places == ("side",)
    assert (by_hand.trigger, by_hand.acting) == (Trigger.MANUAL, False)
    assert by_hand.manual is not None
    assert by_hand.manual.roles == {"author", "editor"}
    assert by_hand.manual.form is not None and by_hand.manual.form.faults({"note": 3})

    action = made.actions["write"]
    assert set(made.actions) == {"write"}
    assert (action.kind, action.config, action.required) == ("agent", {"agent_id": "writer"}, False)
    assert (action.timeout_seconds, action.retry) == (120.0, RetryPolicy(4, 0.5, ("timeout",)))

    agent = made.agents["writer"]
    options = {"base_url": "https://h/v1", "headers": {"X-Key": "${KEY}"}}
    assert agent.provider == ProviderSpec("custom", "m", options)
    assert agent.parameters == {"temperature": 0.0, "stop_sequences": ["END"], "max_tokens": 5}
    assert agent.prompts.user_template == "Say {what}"
    assert agent.output_schema is not None
    assert agent.output_schema["$defs"]["colour.Doc"] == {"type": "object", "required": ["content"]}
    assert made.requires == {"actions": ["agent"], "models": ["custom:m"], "pools": ["default"]}


def test_what_asks_for_a_person_is_for_the_roles_of_its_places_unless_it_names_some() -> None:
    made = load_workflow(
        """
workflow: desk
places:
  asked: {initial: true, roles: [clerk, chief]}
  checked: {roles: [chief, guard]}
  open: {}
  done: {terminal: true}
transitions:
  check: {from_places: asked, to_place: checked, trigger: {type: manual}}
  sign: {from_places: [asked, checked, open], to_place: done, action: {type: human, title: Sign}}
  look: {from_places: [open, {place: checked, mode: read}], to_place: done, trigger: {type: manual}}
  own: {from_places: asked, to_place: done, action: {type: human, title: Own, roles: [intern]}}
  any: {from_places: [], from_any: [asked, checked], to_place: done, trigger: {type: manual}}
"""
    )
    assert made.net.places["asked"].roles == {"clerk", "chief"} and not made.net.places["open"].roles
    manual = {name: set(one.manual.roles) for name, one in made.net.transitions.items() if one.manual is not None}
    assert manual == {
        "check": {"clerk", "chief"},
        "look": set(),
        "any@asked": {"clerk", "chief"},
        "any@checked": {"chief", "guard"},
    }
    assert made.actions["sign"].config["roles"] == ["chief"]
    assert made.actions["own"].config["roles"] == ["intern"]
    assert made.requires["features"] == ["place_roles"]


def test_versions_of_agents_and_prompts() -> None:
    first = load_workflow(workflow(agent="prompts: {system: a}")).agents["helper"]
    warmer = load_workflow(workflow(agent="prompts: {system: a}\nllm_config: {temperature: 1}")).agents["helper"]
    other = load_workflow(workflow(agent="prompts: {system: b}")).agents["helper"]
    assert first.hash != warmer.hash and first.prompt_hash == warmer.prompt_hash
    assert first.prompt_hash != other.prompt_hash and first.hash != other.hash


def test_colours_refer_to_each_other_even_in_circles() -> None:
    made = load_workflow(
        """
workflow: x
colours:
  Node:
    type: object
    required: [name]
    properties:
      name: {$ref: '#/colours/Name/$defs/text'}
      children: {type: array, items: {$ref: Node}}
      parent: {$ref: '#/colours/Parent'}
  Parent: {type: object, properties: {node: {$ref: Node}, self: {$ref: '#'}}, additionalProperties: false}
  Name: {$defs: {text: {type: string, minLength: 1}}}
places: {a: {colour: Node, initial: true}, b: {colour: Parent}}
transitions: {}
"""
    )
    node, parent = (made.net.places[name].colour for name in ("a", "b"))
    assert node is not None and parent is not None
    assert node.accepts({"name": "x", "children": [{"name": "y"}], "parent": {"node": {"name": "z"}}})
    assert not node.accepts({"name": ""})
    assert not node.accepts({"name": "x", "children": [{}]})
    assert not node.accepts({"name": "x", "parent": {"self": {"bogus": 1}}})
    assert parent.accepts({"node": {"name": "x"}, "self": {"self": {}}})
    assert not parent.accepts({"node": {}})


def test_the_example_of_the_format_is_one() -> None:
    made = load_workflow((HERE / "whole_format.yaml").read_text())
    assemble = made.net.transitions["assemble"]
    assert [(arc.place, arc.mode.value, arc.choosy) for arc in assemble.inputs] == [
        ("part", "consume", True),
        ("order", "consume", True),
        ("catalogue", "read", False),
        ("recall", "inhibit", True),
        ("scrap", "reset", False),
    ]


def test_where_gives_the_place_of_a_path_of_the_canonical_document() -> None:
    loaded = load(SHORT.lstrip("\n"))
    assert loaded.where(("places", "done")) == (2, 17)
    assert loaded.where(("transitions", "finish", "from_places", 0, "place")) == (4, 37)
    assert loaded.where(("transitions", "finish", "to_places", 0, "place")) == (4, 54)
    assert loaded.where(("transitions", "finish", "conditions", 0)) == (4, 72)

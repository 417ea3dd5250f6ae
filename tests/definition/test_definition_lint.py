"""Checks across a file: names, expressions, mappings, schemas, joins; each fault at its line and column."""

from __future__ import annotations

import pytest
from faulty import expect, workflow

from circuit.definition import load_workflow

COLOURS = """colours:
  Order: {type: object, required: [order_id, price], properties: {order_id: {type: string}, price: {type: number}}}
  Ticket: {type: object, required: [order_id, price], properties: {order_id: {type: string}, price: {type: string}}}
"""


def test_names_that_lead_nowhere() -> None:
    expect(
        workflow(
            places="more: {colour: «Orders}",
            step="on_failure: «failde\nagent_execution: {agent_id: «halper}",
            transitions="""
more:
  from_places: [«strat, {place: «ned, mode: read}]
  to_places: [«end_, {place: «start2}]
short:
  from_places: «strt
  to_place: «edn
""",
            top="colours: {Order: {type: object}}",
        ),
        "there is no colour 'Orders' (did you mean Order?)",
        "there is no place 'failde'",
        "there is no agent 'halper' (did you mean helper?)",
        "there is no place 'strat' (did you mean start?)",
        "there is no place 'ned' (did you mean end?)",
        "there is no place 'end_' (did you mean end?)",
        "there is no place 'start2' (did you mean start?)",
        "there is no place 'strt' (did you mean start?)",
        "there is no place 'edn' (did you mean end?)",
    )


def test_a_transition_needs_inputs_and_says_where_its_token_goes() -> None:
    expect(
        workflow(
            transitions="""
«without: {to_place: end}
«empty: {from_places: [], to_place: end}
«reads: {from_places: [{place: start, mode: read}], to_place: end}
«nowhere: {from_places: start}
sink: {from_places: start, to_places: []}
"""
        ),
        "the transition has no inputs: it would fire for ever",
        "the transition has no inputs",
        "the transition has no inputs but read arcs",
        "the transition has no target",
    )


def test_a_case_begins_in_one_place() -> None:
    expect(
        "workflow: x\n«places: {a: {}, b: {terminal: true}}\ntransitions: {}\n", "no place is initial and none holds"
    )
    expect("workflow: x\n«places: {}\ntransitions: {}\n", "no place is initial")
    expect(
        workflow(places="more: {«initial: true}\nmost: {«initial: true}"), "start is it already", "start is it already"
    )


def test_tokens_that_lie_in_a_place_are_a_beginning_too() -> None:
    text = "workflow: x\nplaces: {a: {tokens: [{data: {n: 1}}, {}]}}\ntransitions: {}\n"
    tokens = load_workflow(text).initial_tokens
    assert [(token.place, token.data, token.metadata) for token in tokens] == [("a", {"n": 1}, {}), ("a", {}, {})]


def test_a_typing_error_in_a_place_is_not_reported_as_a_missing_beginning_too() -> None:
    expect(
        "workflow: x\nplaces: {a: {«intial: true}}\ntransitions: {}\n", "unknown key 'intial' (did you mean initial?)"
    )


def test_places_that_contradict_themselves() -> None:
    expect(
        workflow(
            places="""
more: {«outcome: failed}
full: {capacity: «1, tokens: [{}, {}]}
odd:
  colour: Order
  tokens:
    - {data: {order_id: a, price: 1}}
    - {data: «{order_id: 3, price: 1}}
    - {metadata: {x: 1}}
""".replace("    - {metadata: {x: 1}}\n", ""),
            top=COLOURS,
        ),
        "outcome belongs to a terminal place",
        "the place holds 1 tokens at most, but 2 lie in it",
        "the token does not fit colour Order: order_id:",
    )


def test_a_place_that_stands_twice_in_a_list() -> None:
    expect("workflow: x\nplaces: [a, b, «a]\ntransitions: {}\n", "the place 'a' stands twice")


def test_template_variables_are_those_of_the_mapping_or_built_in() -> None:
    expect(
        workflow(
            agent=r"""
prompts:
  system: 'You are «{role}; {"json": {"a": 1}} and {not this} stay.'
  user_template: |
    # {title}, in the place {current_place}

      Indented «{titel} and {input_data} {token_id} {token_metadata} {workflow_id} {history_count}
  context_instructions: "a \"quoted\" \t word: \u00e9 «{late}"
""",
            step="agent_execution: {agent_id: helper, input_mapping: {title: data.title}}",
        ),
        "unknown template variable {role}",
        "unknown template variable {titel} (did you mean title?)",
        "unknown template variable {late}",
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "system: >-\n    Folded text\n    goes on with «{it}.",
        "system: 'It''s «{it}'",
        'system: "one line \\\n    and «{it}"',
        "system: |+2\n\n    Later\n    «{it}\n",
        "system: text «{it}",
        "system:\n    plain text on\n    two lines with «{it}",
    ],
)
def test_the_place_of_a_variable_in_every_style_of_text(prompt: str) -> None:
    expect(workflow(agent=f"prompts:\n  {prompt}"), "unknown template variable {it}")


def test_every_transition_that_runs_an_agent_maps_what_its_prompts_use() -> None:
    expect(
        workflow(
            agent="prompts: {system: 'About «{topic}'}",
            step="agent_execution: {agent_id: helper, input_mapping: {topic: data.topic}}",
            transitions="again: {from_places: start, to_place: end, agent_execution: helper}",
        ),
        "unknown template variable {topic}: transition again does not map it",
    )


def test_conditions() -> None:
    expect(
        workflow(
            step="""
conditions:
  - data.x ==«
  - "data.a ==  'x'  &&  «nope > 1"
  - |
    data.x == 1 &&
      «case.fired.goo < 2
  - «size(data.x)
  - case.fired["«gone"] < 1 && case.«fird.go > 1
  - data.text == 'tokens.nothing case.fired.nothing'
""".replace("data.x ==«", "data.x =«=").replace("«case.fired.goo", "case.fired.«goo")
        ),
        "not a valid expression: Syntax error: the expression ends too early",
        "undeclared reference to 'nope'",
        "case.fired.goo: there is no transition 'goo' (did you mean go?)",
        "the condition gives int, not true or false",
        "case.fired.gone: there is no transition 'gone'",
        "case has no 'fird' (did you mean fired?)",
    )


JOIN = """
join:
  from_places: [left, right]
  to_place: end
  merge: last
"""


def test_data_and_metadata_mean_one_consumed_token() -> None:
    faults = expect(
        workflow(
            places="left: {}\nright: {}",
            transitions=f"""{JOIN}
  conditions:
    - «data.x == 1
    - tokens.left.data.x == 1
    - tokens.right.metadata.y > 2 && «metadata.z == 1
  rules:
    - field_exists: «data.x
    - and: [{{field_equals: {{field: «status, value: new}}}}, {{field_exists: tokens.left.data.x}}]
  agent_execution: {{agent_id: helper, input_mapping: {{a: «data.a, b: tokens.left.data.b, c: case.id}}}}
two:
  from_places: [{{place: left, weight: 2}}, {{place: right, mode: read}}]
  to_place: {{place: end, data: {{a: "tokens.left[0].data.a", b: «data.b}}}}
one:
  from_places: [left, {{place: right, mode: read, weight: 3}}]
  to_place: end
  conditions: [data.x == tokens.right.size()]
""",
        ),
        "data means nothing here: 2 tokens are consumed, not one (use tokens.PLACE.data, as in tokens.left.data)",
        "metadata means nothing here: 2 tokens",
        "data.x means nothing here: 2 tokens are consumed",
        "status means nothing here",
        "data.a means nothing here",
        "data means nothing here: 2 tokens are consumed",
    )
    assert faults[2].path == "transitions.join.rules[0].field_exists"


def test_tokens_names_the_inputs_of_the_transition() -> None:
    expect(
        workflow(
            places="left: {}\nright: {}\nfar-off: {}",
            transitions="""
join:
  from_places: [left, right, far-off]
  to_place: end
  merge: deep
  conditions:
    - tokens.«start.data.x == 1
    - tokens.«lefft.data.x == 1
    - tokens["«rigth"].data.x == 1
    - tokens["far-off"].data.x == 1
  rules: [{field_exists: «tokens.end.data.x}, {field_exists: «tokens.left.x}]
two:
  from_places: [{place: left, weight: 2}]
  to_place: {place: end, data: {a: "tokens.«left.data.a", b: "tokens.left.map(t, t.data.b)", c: "tokens.left[1].id"}}
  rules: [{field_exists: «tokens.left.data.x}, {field_exists: tokens.left.0.data.x}]
""",
        ),
        "tokens.start: the transition takes and reads no token of start (its inputs are left, right, far-off",
        "tokens.lefft: there is no place 'lefft' (did you mean left?)",
        "tokens.rigth: there is no place 'rigth' (did you mean right?)",
        "tokens.end: the transition takes and reads no token of end",
        "a token has data, metadata, id and version, but no 'x'",
        "tokens.left is a list: 2 tokens of left are bound (write tokens.left[0].data",
        "tokens.left is a list: 2 tokens of left are bound (write tokens.left.0.data)",
    )


def test_a_hyphen_is_a_minus_in_cel() -> None:
    (fault,) = expect(
        workflow(
            places="far-off: {}",
            transitions="more:\n  from_places: far-off\n  to_place: end\n  conditions: [tokens.far-«off.data.x == 1]",
        ),
        "undeclared reference to 'off.data.x'",
    )
    assert 'write ["far-off"]' in fault.hint


def test_input_mappings() -> None:
    expect(
        workflow(
            step="""
agent_execution:
  agent_id: helper
  input_mapping:
    a: «content
    b: «form.x
    c: «data..x
    d: {path: «"items[0].x", default: 1}
    e: «data
    f: {path: metadata.type, optional: true}
    g: case.«nothing
""".replace("case.«nothing", "«case.nothing")
        ),
        "path 'content' must begin with data., metadata. or tokens.PLACE. (write data.content)",
        "path 'form.x' must begin with data., metadata. or tokens.PLACE.",
        "has an empty segment",
        "write a list index as a segment",
        "path 'data' must begin with data., metadata. or tokens.PLACE. (write data.NAME)",
        "case has no 'nothing'",
    )


def test_output_mappings_of_agents() -> None:
    expect(
        workflow(
            agent="""
output_schema:
  type: object
  additionalProperties: false
  properties: {assessment: {type: string}, review: {type: object}}
""",
            agents="""
plain:
  llm_provider: {type: scripted}
open:
  llm_provider: {type: scripted}
  output_schema: {type: object, properties: {a: {}}, additionalProperties: true}
""",
            step="""
agent_execution:
  agent_id: helper
  output_mapping:
    data.a: assessment
    data.b: review.anything
    data.c: «assesment
    data.d: text
    data.e: usage.input_tokens
    data.f: {path: not_there, default: 1}
    to.end.data.g: assessment
    «to.start.data.h: assessment
    «review: assessment
    «data: assessment
    metadata.who: agent_id
    metadata.when: timestamp
    data.all: output
""",
            transitions="""
more:
  from_places: start
  to_place: end
  agent_execution: {agent_id: plain, output_mapping: {data.x: text, data.y: «score}}
most:
  from_places: start
  to_place: end
  agent_execution: {agent_id: open, output_mapping: {data.x: anything}}
""",
        ),
        "agent helper has no output 'assesment' (did you mean assessment?)",
        "start is no target of this transition (known targets: end)",
        "review must begin with data., metadata., to.PLACE.data. or to.PLACE.metadata.",
        "data must begin with",
        "agent plain has no output 'score'",
    )


def test_output_mappings_of_people() -> None:
    expect(
        workflow(
            step="«output_mapping: {data.x: form.x}",
            transitions="""
fill:
  from_places: start
  to_place: end
  trigger:
    type: manual
    form: {type: object, properties: {content: {type: string}}, additionalProperties: false}
  output_mapping: {data.a: form.content, data.b: «form.contnt, data.c: «content, «text: form.content}
free:
  from_places: start
  to_place: end
  trigger: {type: manual}
  output_mapping: {data.a: form.anything}
both:
  from_places: start
  to_place: end
  trigger: {type: manual, form: {type: object, properties: {tone: {}}}}
  agent_execution: {agent_id: helper, output_mapping: {data.a: text, data.b: form.tone, data.c: «form.tune}}
runs:
  from_places: start
  to_place: end
  agent_execution: helper
  «output_mapping: {data.a: text}
""",
        ),
        "output_mapping here is for transitions that a person or a message fires (add trigger: {type: manual}",
        "the form has no field 'contnt' (did you mean content?)",
        "'content' is not a field of the form (write form.content)",
        "text must begin with data., metadata.",
        "the form has no field 'tune' (did you mean tone?)",
        "output_mapping here is for transitions that a person or a message fires (move it into agent_execution)",
    )


def test_what_only_acting_transitions_have() -> None:
    expect(
        workflow(
            step="""
agent_execution:
  agent_id: helper
  retry_config: {max_attempts: «0, backoff_seconds: 2s, retry_on_errors: [timeout, «rate_limits, unavailable]}
""",
            transitions="more: {from_places: start, to_place: end, «on_failure: end}",
        ),
        "max_attempts must be between 1 and 1,000, not 0",
        "there is no error code 'rate_limits' (did you mean rate_limit?)",
        "on_failure belongs to a transition that runs an agent",
    )


def test_schemas() -> None:
    expect(
        workflow(
            top="""colours:
  A: {type: «objct}
  B: {type: object, properties: {x: {minimum: «small}, y: {$ref: «'#/colours/Nothing'}, z: {$ref: «Aa}}, required: «x}
  C: {type: object, properties: {x: {$ref: «'https://example.org/schema.json'}}}
  D: {type: object, properties: {x: {pattern: «'('}}}
  E: {type: «string}
  F: {$ref: A, properties: {y: {$ref: '#/colours/A'}, $ref: {type: string}}, default: {$ref: nowhere}}
  «G: {type: object, properties: {x: {$ref: '#/$defs/nothing'}}}
""",
            agent="output_schema: {type: object, properties: {x: {type: [string, «nul]}}}",
            step="trigger: {type: manual, form: {properties: «3}}",
        ),
        "'objct' is not a type of JSON Schema (did you mean object?)",
        "not a JSON Schema:",
        "there is no colour 'Nothing'",
        "there is no colour 'Aa'",
        "not a JSON Schema:",
        "is outside of this file; nothing is fetched",
        "not a JSON Schema:",
        "colour E takes no objects",
        "not a JSON Schema:",
        "'nul' is not a type of JSON Schema (did you mean null?)",
        "not a JSON Schema:",
    )


@pytest.mark.parametrize(
    ("keys", "clash"),
    [("", True), ("merge: last\n", False), ("merge: list\n", False), ("conditions: ['true']\n", True)],
)
def test_a_join_that_is_sure_to_fail(keys: str, clash: bool) -> None:
    text = workflow(
        top=COLOURS,
        places="order: {colour: Order}\nticket: {colour: Ticket}",
        transitions=f"join:\n  from_places: [order, «ticket]\n  to_place: end\n  {keys}",
    )
    if clash:
        expect(text, "order and ticket never agree on data.price, so this join always fails (give the target `data:`")
    else:
        assert load_workflow(text.replace("«", "")).id == "small"


@pytest.mark.parametrize(
    "join",
    [
        "from_places: [order, order]\n  to_place: end",
        "from_places: [order, {place: ticket, mode: read}]\n  to_place: end",
        "from_places: [order, ticket]\n  to_place: {place: end, data: {a: tokens.order.data.price}}",
    ],
)
def test_a_join_that_may_work_is_left_to_run_time(join: str) -> None:
    text = workflow(
        top=COLOURS,
        places="order: {colour: Order}\nticket: {colour: Ticket}",
        transitions=f"join:\n  {join}",
    )
    assert load_workflow(text).id == "small"


def test_constants_that_differ_never_merge() -> None:
    expect(
        """workflow: x
colours:
  L: {type: object, required: [side], properties: {side: {const: left}}}
  R: {type: object, required: [side], properties: {side: {const: right}}}
places: {l: {colour: L, initial: true}, r: {colour: R}, end: {}}
transitions: {join: {from_places: [l, «r], to_place: end}}
""",
        "l and r never agree on data.side",
    )


def test_what_is_at_fault_hides_no_other_fault_and_invents_none() -> None:
    expect(
        workflow(
            agents="other: {llm_provider: {type: openai, model: «4}, prompts: {system: 'x «{y}'}}",
            transitions="""
more:
  from_places: [start, {place: end, weight: «two}]
  to_place: «nowhere
  conditions: [data.x == 1]
  agent_execution: {agent_id: other, output_mapping: {data.y: «score}}
""",
        ),
        "model must be text, not 4",
        "unknown template variable {y}",
        "weight must be a whole number, not 'two'",
        "there is no place 'nowhere'",
        "agent other has no output 'score'",
    )

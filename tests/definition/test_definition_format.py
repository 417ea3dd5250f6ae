"""The format: what is no key, no value or not supported yet, each at its line and column."""

from __future__ import annotations

import pytest
from faulty import expect, faults_of, workflow

from circuit.definition import load


def test_unknown_keys_are_faults_at_the_key_with_what_was_meant() -> None:
    expect(
        workflow(
            places="more: {«capcity: 3}",
            agent="llm_config: {«temprature: 1}\n«promts: {}",
            step="«prioritty: 3\nagent_execution: {agent_id: helper, «retries: 3}",
            top="«desc: x",
        ),
        "desc: unknown key 'desc' (did you mean description?)",
        "places.more.capcity: unknown key 'capcity' (did you mean capacity?)",
        "unknown key 'temprature' (did you mean temperature?)",
        "agents.helper.promts: unknown key 'promts' (did you mean prompts?)",
        "unknown key 'prioritty' (did you mean priority?)",
        "unknown key 'retries' (known keys: agent_id, input_mapping,",
    )


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("temperature", ("-0.1", "2.1", "3"), "temperature must be between 0 and 2, not"),
        ("top_p", ("-0.1", "1.1"), "top_p must be between 0 and 1, not"),
        ("frequency_penalty", ("-2.5", "3"), "frequency_penalty must be between -2 and 2, not"),
        ("presence_penalty", ("-2.5", "3"), "presence_penalty must be between -2 and 2, not"),
        ("max_tokens", ("0", "-5"), "max_tokens must be at least 1, not"),
        ("temperature", ("'0.2'", "true", "[1]"), "temperature must be a number, not"),
        ("max_tokens", ("1.5", "many"), "max_tokens must be a whole number, not"),
        ("stop_sequences", ("END",), "stop_sequences must be a list, not 'END'"),
        ("stop_sequences", ("[3]",), "must be"),
    ],
)
def test_the_ranges_of_llm_config(key: str, values: tuple[str, ...], message: str) -> None:
    for value in values:
        place = "[«3]" if value == "[3]" else f"«{value}"
        expect(workflow(agent=f"llm_config: {{{key}: {place}}}"), message)


@pytest.mark.parametrize("config", ["temperature: 0", "temperature: 2.0", "top_p: 1", "presence_penalty: -2"])
def test_the_ends_of_the_ranges_are_inside(config: str) -> None:
    assert load(workflow(agent=f"llm_config: {{{config}}}")).plain["agents"]["helper"]["llm_config"]


def test_values_of_the_wrong_kind() -> None:
    expect(
        workflow(
            top="name: «3\nlabels: {a: «1, b: «[x]}",
            places="more: {terminal: «'true', capacity: «'3'}\nmost: «[1]\nleast: «text",
            step="priority: «1.5\nconditions: «3\nrules: «{}\ntrigger: «manual\nmerge: «first",
        ),
        "name must be text, not 3 (write it in quotes)",
        "a must be text, not 1 (write it in quotes)",
        "b must be text, not a list",
        "terminal must be true or false, not 'true' (without quotes",
        "capacity must be a whole number, not '3' (without quotes)",
        "most must be a mapping, not a list",
        "least must be a mapping, not 'text'",
        "priority must be a whole number, not 1.5",
        "conditions must be a CEL expression, or a list of them, not 3",
        "rules must be a list, not a mapping",
        "trigger must be a mapping, not 'manual'",
        "merge must be one of last, deep, list, not 'first'",
    )


def test_names_are_identifiers() -> None:
    expect(
        workflow(
            places="«9lives: {}\n«'two words': {}\n«'': {}", transitions="«a.b: {from_places: start, to_place: end}"
        ),
        "'9lives' is not a name (names have letters, digits, _ and -",
        "'two words' is not a name",
        "'' is not a name",
        "'a.b' is not a name",
    )


def test_a_file_lacks_its_three_keys() -> None:
    faults = faults_of("description: x\n")
    assert [(fault.line, fault.column) for fault in faults] == [(1, 1)] * 3
    assert sorted(fault.message for fault in faults) == [
        "the key 'places' is missing",
        "the key 'transitions' is missing",
        "the key 'workflow' is missing",
    ]


def test_keys_that_are_missing_are_shown_at_the_key_of_what_lacks_them() -> None:
    expect(
        workflow(
            agents="second:\n  «llm_provider:\n    type: openai\n«third: {}",
            step="rules: [{«field_equals: {field: x}}, {«field_equals: {value: x}}]",
        ),
        "agents.second.llm_provider.model: the key 'model' is missing",
        "agents.third.llm_provider: the key 'llm_provider' is missing (add it: which model",
        "rules[0].field_equals.value: the key 'value' is missing",
        "the key 'field' is missing (add it: dotted path (data.x, metadata.x))",
    )


def test_weights_are_bounded() -> None:
    expect(
        workflow(
            transitions="""
many:
  from_places: [{place: start, weight: «0}, {place: end, weight: «1001}]
  to_places: [{place: end, weight: «-1}, {place: start, weight: 1000}]
"""
        ),
        "weight must be between 1 and 1,000, not 0",
        "weight must be between 1 and 1,000, not 1001",
        "weight must be between 1 and 1,000, not -1",
    )


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90", 90.0),
        ("1.5", 1.5),
        ("10s", 10.0),
        ("250ms", 0.25),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("14d", 1_209_600.0),
        ("1w", 604_800.0),
        ("PT10M", 600.0),
        ("P1DT2H3M4.5S", 93_784.5),
    ],
)
def test_durations(written: str, seconds: float) -> None:
    step = f"agent_execution: {{agent_id: helper, timeout_seconds: {written}}}"
    plain = load(workflow(step=step)).plain
    assert plain["transitions"]["go"]["agent_execution"]["timeout_seconds"] == seconds


@pytest.mark.parametrize("written", ["10 s", "'10'", "5x", "P1Y", "P", "PT", "-3", "20000d", "[1]", "''", "soon"])
def test_what_is_no_duration(written: str) -> None:
    expect(workflow(step=f"agent_execution: {{agent_id: helper, timeout_seconds: «{written}}}"), "timeout_seconds")


def test_a_time_limit_is_more_than_nothing() -> None:
    expect(workflow(step="agent_execution: {agent_id: helper, timeout_seconds: «0}"), "must be more than 0")


def test_an_adapter_and_the_options_of_a_model_inside_are_looked_at() -> None:
    text = workflow(
        agents="""
a:
  llm_provider: {type: vllm, model: m, adapters: {x: /x}, adapter: «y}
b:
  llm_provider: {type: vllm, model: m, options: {model: «n}}
c:
  llm_provider: {type: vllm, model: m, sleep_after: «soon}
"""
    )
    expect(text, "there is no adapter 'y'; there are: x", "may not name another model", "'soon'")


def test_what_is_not_run_yet_may_stand_empty() -> None:
    text = workflow(agent="capabilities: []\ntools: []", top="place_agents: []", places="more: {shared: false}")
    assert load(text).plain["workflow"] == "small"


def test_an_unknown_provider_is_shown_at_its_type() -> None:
    expect(
        workflow(
            agents="""
a:
  llm_provider: {type: «opnai, model: m}
b:
  «llm_provider: {model: m}
c:
  llm_provider: «gpt
"""
        ),
        "llm_provider type must be one of openai, anthropic, google, ollama, custom, scripted, vllm, not 'opnai' (did",
        "the key 'type' is missing in llm_provider",
        "llm_provider must be a mapping like {type: openai, model: NAME}, not 'gpt'",
    )


SECRET = "sk-live-0123456789"


def test_keys_and_headers_are_references_and_never_shown() -> None:
    faults = faults_of(
        workflow(
            agents=f"""
a:
  llm_provider: {{type: openai, model: m, api_key: {SECRET}}}
b:
  llm_provider:
    type: custom
    model: m
    base_url: https://user:{SECRET}@host/v1
    api_key: 12345
    headers:
      Authorization: Bearer {SECRET}
      X-Many: [{SECRET}]
      X-Named: {{name: {SECRET}}}
c:
  llm_provider: {{type: custom, model: m, base_url: "https://host/v1?a=1&key={SECRET}", options: {{x: [{SECRET}]}}}}
d:
  llm_provider: {{type: custom, model: m, base_url: "https://u:{SECRET}@${{HOST}}/v1", options: {{api_key: "12345"}}}}
e:
  llm_provider:
    type: custom
    model: m
    base_url: "https://${{USER}}:${{PASSWORD}}@host/v1?key=${{KEY}}&api-version=1"
    options: {{prompt_cache_key: reviews, max_tokens: 3, stop: [sk-]}}
"""
        )
    )
    assert {fault.path for fault in faults} == {
        "agents.a.llm_provider.api_key",
        "agents.b.llm_provider.base_url",
        "agents.b.llm_provider.api_key",
        "agents.b.llm_provider.headers.Authorization",
        "agents.b.llm_provider.headers.X-Many",
        "agents.b.llm_provider.headers.X-Named.env",
        "agents.b.llm_provider.headers.X-Named.name",
        "agents.c.llm_provider.base_url",
        "agents.c.llm_provider.options.x[0]",
        "agents.d.llm_provider.base_url",
        "agents.d.llm_provider.options.api_key",
    }
    text = "\n".join(map(str, faults))
    assert SECRET not in text
    assert "12345" not in text
    assert "${NAME}" in text


def test_references_are_normalised() -> None:
    text = workflow(
        agents="""
a:
  llm_provider:
    type: custom
    model: m
    base_url: $BASE
    api_key: {env: MY_KEY}
    headers: {Authorization: 'Bearer ${KEY}', X-One: $ONE, X-Two: 'env:TWO', X-Three: {env: THREE}}
"""
    )
    assert load(text).plain["agents"]["a"]["llm_provider"] == {
        "type": "custom",
        "model": "m",
        "options": {
            "base_url": "${BASE}",
            "api_key": "${MY_KEY}",
            "headers": {
                "Authorization": "Bearer ${KEY}",
                "X-One": "${ONE}",
                "X-Two": "${TWO}",
                "X-Three": "${THREE}",
            },
        },
    }


def test_a_custom_provider_needs_an_address() -> None:
    expect(
        workflow(
            agents="""
a:
  «llm_provider: {type: custom, model: m}
b:
  llm_provider: {type: custom, model: m, base_url: «host}
"""
        ),
        "the key 'base_url' is missing",
        "this is not an address of a server",
    )


def test_scripted_answers() -> None:
    expect(
        workflow(
            agents="""
a:
  llm_provider:
    type: scripted
    delay_seconds: «2h
    chunk_size: «0
    responses:
      - text
      - {assessment: approve}
      - {when: a text, response: {assessment: reject}}
      - {when: /a (regular|plain) expression/, response: text}
      - {when: x, error: rate_limit}
      - {when: a date, where: an answer that happens to have a key of this name}
      - «{when: x, respond: y}
      - {when: «/(/, response: y}
      - {when: «3, response: y}
      - {response: «[1]}
      - [{tool_calls: [{name: now}]}, done]
      - «7
"""
        ),
        "the pause before a chunk must be an hour at most",
        "chunk_size must be between 1 and 100,000, not 0",
        "an answer with `when` needs `response` or `error` (write {when:",
        "`when` is not a regular expression",
        "`when` must be text",
        "`response` must be text or a mapping, not list",
        "an entry of responses must be text, an object (a structured answer), {when, response} or a list of turns",
    )


def test_rules_have_one_test() -> None:
    expect(
        workflow(
            step="""
rules:
  - «{}
  - «{field_exists: data.a, field_contains: {field: data.b, value: c}}
  - {and: [{field_exists: data.a}, «{id: empty}]}
  - {or: «[]}
  - {not: {field_greater_than: {field: data.x, value: «[1]}}}
"""
        ),
        "the rule tests nothing",
        "a rule has one test, not 2: field_exists, field_contains",
        "the rule tests nothing",
        "or must have one entry at least",
        "field_greater_than compares numbers or texts, not a list",
    )


def test_keys_of_a_trigger_belong_to_its_type() -> None:
    expect(
        workflow(
            step="trigger: {type: auto, «roles: [author]}",
            transitions="more:\n  from_places: start\n  to_place: end\n  trigger: {type: «manuel}",
        ),
        "'roles' belongs to a trigger of type manual, not auto",
        "type must be one of auto, manual, timer, message, not 'manuel' (did you mean manual?)",
    )


def test_places_leave_somebody_who_may_do_what_asks_for_a_person() -> None:
    expect(
        """
workflow: w
places:
  a: {initial: true, roles: [clerk, chief]}
  b: {roles: [guard]}
  c: {roles: [chief]}
  end: {terminal: true}
  counted: {shared: true, capacity: 1, «roles: [x]}
  none: {roles: «[]}
transitions:
  apart: {from_places: [a, b], to_place: end, «trigger: {type: manual}}
  one_of: {from_places: a, from_any: [c, b], to_place: end, «action: {type: human, title: Look}}
  own: {from_places: [a, b], to_place: end, trigger: {type: manual, roles: [author]}}
  by_itself: {from_places: [a, b], to_place: end}
  common: {from_places: [a, c], to_place: end, trigger: {type: manual}}
""",
        "a shared place holds no tokens: roles means nothing here",
        "roles must have one entry at least",
        "nobody may do this: a, b have no role in common",
        "nobody may do this: a, b have no role in common",
    )


def test_one_spelling_of_the_targets() -> None:
    expect(
        workflow(transitions="more:\n  from_places: start\n  «to_place: end\n  to_places: [end]"),
        "to_place and to_places exclude each other",
    )


def test_a_list_under_to_place_says_where_it_belongs() -> None:
    expect(
        workflow(transitions="more:\n  from_places: start\n  to_place: «[start, end]"),
        "several go under to_places), not a list",
    )


def test_a_file_with_many_faults_shows_them_all_in_order() -> None:
    expect(
        """workflow: «2
labels: {a: «1}
places:
  a: {initial: true, colour: «Docment, «capcity: 3}
  b: {terminal: «yes}
colours:
  Document: {type: «objct}
agents:
  rev:
    llm_provider: {type: custom, model: m, base_url: http://h, headers: {Authorization: «sk-123}}
    llm_config: {temperature: «3, top_p: «-1, max_tokens: «0}
    prompts:
      system: |
        Hello «{name}
          and {input_data} «{foo}
transitions:
  t:
    from_places: [a, {place: «z, weight: «0}]
    to_place: «c
    conditions:
      - "data.x ==«== 1"
      - >-
        case.fired.«foo > 1
    agent_execution: {agent_id: rev, input_mapping: {x: «foo.bar}, timeout_seconds: «10 s}
  «u: {to_place: «[a]}
""",
        "workflow must be text, not 2",
        "a must be text, not 1",
        "there is no colour 'Docment' (did you mean Document?)",
        "unknown key 'capcity' (did you mean capacity?)",
        "terminal must be true or false",
        "'objct' is not a type of JSON Schema (did you mean object?)",
        "the value must be a reference",
        "temperature must be between 0 and 2, not 3",
        "top_p must be between 0 and 1",
        "max_tokens must be at least 1",
        "unknown template variable {name}",
        "unknown template variable {foo}",
        "there is no place 'z'",
        "weight must be between 1 and 1,000",
        "there is no place 'c'",
        "not a valid expression",
        "there is no transition 'foo'",
        "path 'foo.bar' must begin with data., metadata. or tokens.PLACE.",
        "'10 s' is not a duration",
        "the transition has no inputs",
        "several go under to_places",
    )

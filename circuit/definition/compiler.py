"""Makes a workflow of a canonical document. It trusts the document: the loader and the lint have been over it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from circuit.definition.canonical import DEFAULT_TIMEOUT_SECONDS
from circuit.definition.compensation import expand
from circuit.definition.people import with_roles
from circuit.definition.place_agent import compile_place_agents
from circuit.definition.schemas import bundle
from circuit.definition.versions import content_hash
from circuit.definition.workflow import (
    DEFAULT_POOL,
    ActionSpec,
    AgentDefinition,
    InitialToken,
    Prompts,
    ProviderSpec,
    Resource,
    RetryPolicy,
    Workflow,
)
from circuit.expressions.cel import compile_expression
from circuit.expressions.path import Path
from circuit.expressions.schedule import Cron
from circuit.net.colour import Colour
from circuit.net.completion import VARIABLES
from circuit.net.guard import Guard, Rule
from circuit.net.mapping import InputMapping, OutputData, OutputMapping
from circuit.net.reception import Reception
from circuit.net.scope import ScopePath
from circuit.net.structure import (
    InputArc,
    Manual,
    Merge,
    Mode,
    Net,
    OutputArc,
    Place,
    Transition,
    Trigger,
)
from circuit.net.timing import Timer, instant_of
from circuit.security.rules import rules_of
from circuit.spend import Limits, microdollars

AGENT = "agent"
FUNCTION = "function"
WAITING = ("human", "job", "subworkflow")
"""Kinds of actions of which the compiler knows more than the name; those that wait do it without a worker."""

_OF_ANY_ACTION = ("type", "input_mapping", "output_mapping", "required", "timeout_seconds", "retry_config")
"""Keys that the engine sees to; the others are the action's own configuration."""

ALWAYS = ("tokens", "case")
ONE_TOKEN = ("data", "metadata", "tokens", "case")
ELEMENT = ("item", "index")
"""What the data of a token that is made of an element of a list may use beside that."""


def variables(inputs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What expressions of a transition with these input arcs may use: `data` only where one token is consumed."""
    several = any(arc["mode"] == "drain" or "gather" in arc for arc in inputs)
    consumed = sum(arc["weight"] for arc in inputs if arc["mode"] == "consume")
    return ONE_TOKEN if consumed == 1 and not several else ALWAYS


def outcomes(transition: Mapping[str, Any]) -> tuple[str, ...]:
    """What expressions of its output arcs may use beside that: the outputs of what it does, what a person or a message
    says."""
    said = {"manual": ("form",), "message": ("message",)}.get((transition.get("trigger") or {}).get("type", ""), ())
    return (("output",) if _execution(transition) else ()) + said


def compile_document(document: Mapping[str, Any]) -> Workflow:
    """The workflow of a canonical document: the same in every process."""
    plain = expand(document)
    colours: Mapping[str, Any] = plain.get("colours") or {}
    compiled = {name: Colour(name, bundle(schema, colours, name)) for name, schema in colours.items()}
    agents = {name: _agent(name, value, colours) for name, value in (plain.get("agents") or {}).items()}
    # A shared place holds no tokens: it is no part of the net, but of what its actions hold while they run.
    resources = {name: _resource(value) for name, value in plain["places"].items() if value.get("shared")}
    choices = {name: list(_choices(name, value)) for name, value in plain["transitions"].items()}
    labels = {own: name for name, found in choices.items() for own, _ in found}
    written = {own: with_roles(value, plain["places"]) for found in choices.values() for own, value in found}
    transitions = {name: _apart(value, resources) for name, value in written.items()}
    holds = {name: _holds(value, resources) for name, value in written.items()}
    actions = {name: action for name, value in transitions.items() if (action := _action(value, colours))}
    actions = {name: replace(action, holds=holds[name]) if holds[name] else action for name, action in actions.items()}
    called = {entry["auto_transition"] for entry in plain.get("place_agents", ()) if "auto_transition" in entry}
    place_agents = [
        (replace(transition, then=_choice_from(transition, choices)), action)
        for transition, action in compile_place_agents(plain.get("place_agents", ()))
    ]
    actions |= {transition.name: action for transition, action in place_agents}
    regions: Mapping[str, Any] = plain.get("regions") or {}
    cancels = {name: _cancelled(value, regions) for name, value in written.items()}
    # By name, not by place in the file: the order in which the net looks at transitions belongs to the version.
    net = Net.build(
        plain["workflow"],
        [_place(name, value, compiled) for name, value in plain["places"].items() if name not in resources],
        [
            _transition(name, transitions[name], colours, labels[name], cancels[name], choices, called=called)
            for name in sorted(transitions)
        ]
        + sorted((transition for transition, _ in place_agents), key=lambda transition: transition.name),
        complete_when=compile_expression(plain["complete_when"], VARIABLES) if "complete_when" in plain else None,
    )
    providers = [action.provider(agents) for action in actions.values() if action.kind == AGENT]
    return Workflow(
        id=plain["workflow"],
        name=plain["name"],
        description=plain.get("description", ""),
        labels=dict(plain.get("labels") or {}),
        document=document,
        hash=content_hash(document),
        net=net,
        actions=actions,
        agents=agents,
        requires={
            "actions": sorted({required_action(action) for action in actions.values()}),
            "models": sorted({f"{provider.type}:{provider.model}" for provider in providers}),
            "pools": [plain.get("pool", DEFAULT_POOL)],
            **({"features": features} if (features := _features(net, plain)) else {}),
        },
        initial_tokens=tuple(
            InitialToken(name, token["data"], token["metadata"])
            for name in sorted(plain["places"])
            for token in plain["places"][name].get("tokens", ())
        ),
        pool=plain.get("pool", DEFAULT_POOL),
        outbox=frozenset(plain.get("outbox", ())),
        start_message=(plain.get("start") or {}).get("message"),
        resources=resources,
        budget=_budget(plain.get("budget") or {}),
        subject=tuple(Path.parse(text) for text in plain.get("subject", ())),
        redaction=rules_of(plain.get("redaction", ())),
        screening=plain.get("screening", {}),
    )


def _features(net: Net, plain: Mapping[str, Any]) -> list[str]:
    """What of the engine the version needs that not every release has: who lacks it must not touch its cases."""
    found = [Trigger.MESSAGE.value] if net.receiving else []
    if any(transition.refresh for transition in net.transitions.values()):
        found.append("place_agents")
    if any(place.record for place in net.places.values()):
        found.append("compensation")
    if any(place.roles for place in net.places.values()):
        found.append("place_roles")
    if net.complete_when is not None:
        found.append("complete_when")
    parts = (plain, *(plain.get("agents") or {}).values())
    found += [name for name in ("redaction", "screening") if any(name in one for one in parts)]
    return sorted(found)


def _sorted(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Entries in the order of their names, which belongs to the content as the order in the file does not.

    So `data.review` is written before `data.review.score`, and the latter has the last word on its own part.
    """
    return {name: entries[name] for name in sorted(entries)}


def _resource(value: Mapping[str, Any]) -> Resource:
    return Resource(value["capacity"], value.get("interval"))


def _budget(value: Mapping[str, Any]) -> Limits:
    usd: float | None = value.get("usd")
    return Limits(value.get("calls"), value.get("tokens"), None if usd is None else microdollars(usd))


def _choices(name: str, transition: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The transition itself; or of `from_any`, a transition for each choice, called `NAME@PLACE`."""
    if not transition.get("from_any"):
        yield name, transition
        return
    seen: list[str] = []
    for arc in transition["from_any"]:
        again = seen.count(arc["place"])
        seen.append(arc["place"])
        own = f"{name}@{arc['place']}" + (f"#{again + 1}" if again else "")
        yield own, {**transition, "from_places": [*transition["from_places"], arc]}


def _choice_from(agent: Transition, choices: Mapping[str, list[tuple[str, Mapping[str, Any]]]]) -> str | None:
    """What an agent on a place fires with its token: of several choices, the one that takes from that place."""
    if agent.then is None:
        return None
    for own, value in choices[agent.then]:
        if any(arc["place"] == agent.inputs[0].place and arc["mode"] == "consume" for arc in value["from_places"]):
            return own
    return choices[agent.then][0][0]


def _cancelled(transition: Mapping[str, Any], regions: Mapping[str, Any]) -> Mapping[str, list[str]]:
    """The places and transitions that the transition cancels."""
    given: Mapping[str, Any] = transition.get("cancels") or {}
    parts = [given, *(regions[name] for name in given.get("regions", ()))]
    return {key: sorted({name for part in parts for name in part.get(key, ())}) for key in ("places", "transitions")}


def _apart(transition: Mapping[str, Any], resources: Mapping[str, Resource]) -> Mapping[str, Any]:
    """The transition without its arcs from shared places."""
    if not resources:
        return transition
    return {**transition, "from_places": [arc for arc in transition["from_places"] if arc["place"] not in resources]}


def _holds(transition: Mapping[str, Any], resources: Mapping[str, Resource]) -> dict[str, int]:
    """What a firing of the transition takes from shared places, in the order of their names."""
    amounts: dict[str, int] = {}
    for arc in transition["from_places"]:
        if arc["place"] in resources:
            amounts[arc["place"]] = amounts.get(arc["place"], 0) + arc["weight"]
    return _sorted(amounts)


def _place(name: str, value: Mapping[str, Any], colours: Mapping[str, Colour]) -> Place:
    return Place(
        name=name,
        colour=colours[value["colour"]] if "colour" in value else None,
        capacity=value.get("capacity"),
        initial=value.get("initial", False),
        terminal=value.get("terminal", False),
        failed=value.get("outcome") == "failed",
        dead_letter=value.get("dead_letter", False),
        ends_case=value.get("ends_case", False),
        record=value.get("record", False),
        roles=frozenset(value.get("roles", ())),
    )


def _agent(name: str, value: Mapping[str, Any], colours: Mapping[str, Any]) -> AgentDefinition:
    schema = value.get("output_schema")
    document = {"id": name, **value}
    if schema is not None:
        schema = bundle(schema, colours)
        document["output_schema"] = schema
    prompts: Mapping[str, Any] = value["prompts"]
    provider: Mapping[str, Any] = value["llm_provider"]
    return AgentDefinition(
        id=name,
        name=value["name"],
        description=value.get("description", ""),
        provider=ProviderSpec(provider["type"], provider["model"], provider.get("options") or {}),
        parameters=dict(value.get("llm_config") or {}),
        prompts=Prompts(
            prompts["system"],
            prompts["user_template"],
            prompts["context_instructions"],
            dict(prompts.get("capabilities") or {}),
            prompts.get("engine") or "",
        ),
        output_schema=schema,
        document=document,
        hash=content_hash(document),
        prompt_hash=content_hash(prompts),
    )


def required_action(action: ActionSpec) -> str:
    """What a worker must have to run it: a kind of action, or one function."""
    return required_function(action.config["name"]) if action.kind == FUNCTION else action.kind


def required_function(name: str) -> str:
    """How a version says that it calls the function `name`."""
    return f"function:{name}"


def _execution(transition: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an acting transition says of its agent or its action; empty for an immediate one."""
    return transition.get("agent_execution") or transition.get("action") or {}


def _action(transition: Mapping[str, Any], colours: Mapping[str, Any]) -> ActionSpec | None:
    execution = _execution(transition)
    if not execution:
        return None
    kind: str = execution.get("type", AGENT)
    config = {name: value for name, value in execution.items() if name not in _OF_ANY_ACTION}
    if "form" in config:
        config["form"] = bundle(config["form"], colours)
    limit: float | None = execution.get("timeout_seconds")
    if kind in WAITING:
        # The limit is that of the wait, and each start has another, for it only begins or ends a wait.
        if limit is not None:
            config["wait_seconds"] = limit
        limit = None
    return ActionSpec(
        kind=kind,
        config=config,
        required=execution.get("required", True),
        timeout_seconds=DEFAULT_TIMEOUT_SECONDS if limit is None else limit,
        retry=RetryPolicy.of_json(execution.get("retry_config")),
    )


def timer(trigger: Mapping[str, Any]) -> Timer:
    """The timer of a trigger. Raises `ValueError` for an instant, a path or a cron line that is none."""
    at: datetime | ScopePath | None = None
    if "at" in trigger:
        at = instant_of(trigger["at"]) or ScopePath.parse(trigger["at"])
    cron = Cron.parse(trigger["cron"]) if "cron" in trigger else None
    return Timer(trigger.get("after"), at, cron, interrupt=trigger.get("interrupt", False))


def _reception(trigger: Mapping[str, Any]) -> Reception:
    return Reception(trigger["message"], tuple(ScopePath.parse(path) for path in trigger.get("correlate", ())))


def _input(arc: Mapping[str, Any]) -> InputArc:
    return InputArc(
        arc["place"],
        arc["weight"],
        Mode(arc["mode"]),
        where=compile_expression(arc["where"], ("token",)) if "where" in arc else None,
        correlate=ScopePath.parse(arc["correlate"]) if "correlate" in arc else None,
        gather=arc.get("gather"),
        newest=arc.get("order") == "newest",
    )


def _output(arc: Mapping[str, Any], known: tuple[str, ...]) -> OutputArc:
    own = (*known, *ELEMENT) if "each" in arc else known
    return OutputArc(
        arc["place"],
        arc["weight"],
        OutputData.parse(_sorted(arc["data"]), own) if "data" in arc else None,
        each=compile_expression(arc["each"], known) if "each" in arc else None,
        most=arc.get("most"),
        record=arc.get("record", False),
    )


def _transition(
    name: str,
    value: Mapping[str, Any],
    colours: Mapping[str, Any],
    label: str,
    cancels: Mapping[str, list[str]],
    choices: Mapping[str, list[tuple[str, Mapping[str, Any]]]],
    *,
    called: Collection[str],
) -> Transition:
    """`called` are the transitions that an agent fires which is done with a token."""
    known = variables(value["from_places"])
    rules = tuple(Rule.parse(rule) for rule in value.get("rules", ()))
    conditions = tuple(compile_expression(source, known) for source in value.get("conditions", ()))
    execution = _execution(value)
    outputs = {**execution.get("output_mapping", {}), **value.get("output_mapping", {})}
    trigger: Mapping[str, Any] = value.get("trigger") or {"type": "auto"}
    manual = None
    if trigger["type"] == "manual":
        form = Colour(f"{name} form", bundle(trigger["form"], colours)) if "form" in trigger else None
        manual = Manual(form, frozenset(trigger.get("roles", ())))
    kind = Trigger.AGENT if label in called and trigger["type"] == "auto" else Trigger(trigger["type"])
    return Transition(
        name=name,
        inputs=(
            *(_input(arc) for arc in value["from_places"]),
            *(InputArc(place, mode=Mode.RESET) for place in cancels["places"]),
        ),
        outputs=tuple(_output(arc, (*known, *outcomes(value))) for arc in value["to_places"]),
        guard=Guard(rules, conditions) if rules or conditions else None,
        priority=value.get("priority", 0),
        trigger=kind,
        manual=manual,
        reception=_reception(trigger) if kind is Trigger.MESSAGE else None,
        timing=timer(trigger) if kind is Trigger.TIMER else None,
        acting=bool(execution),
        merge=Merge(value.get("merge", "refuse")),
        input_mapping=InputMapping.parse(_sorted(execution["input_mapping"])) if "input_mapping" in execution else None,
        output_mapping=OutputMapping.parse(_sorted(outputs)).led(value.get("hidden", {})) if outputs else None,
        on_failure=value.get("on_failure"),
        cancels=frozenset(own for cancelled in cancels["transitions"] for own, _ in choices[cancelled]),
        label=label,
        undoes=value.get("undoes", ""),
    )

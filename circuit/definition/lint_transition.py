"""Checks of transitions: arcs, guards, mappings, triggers, and joins that would lose something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from circuit.definition.fault_text import shown, suggestion
from circuit.definition.field import kind_of
from circuit.definition.lint_action import action_outputs, lint_action
from circuit.definition.lint_arc import inputs_of, lint_arcs
from circuit.definition.lint_expression import CASE_FIELDS, Inputs, check_expression, check_token_name
from circuit.definition.people import asking, common, holders
from circuit.definition.scene import Scene
from circuit.definition.schemas import bundle, check_schema, properties_of
from circuit.definition.tree import PathTuple
from circuit.errors import AgentError, CircuitError, FiringError, ProviderError
from circuit.expressions.schedule import Cron, ScheduleFault
from circuit.net.guard import COMPARISONS, Rule
from circuit.net.mapping import OutputMapping
from circuit.net.scope import ScopePath
from circuit.net.timing import instant_of

BUILT_IN_OUTPUTS = ("agent_id", "execution_id", "model", "timestamp", "usage", "text", "output")


def lint_transitions(scene: Scene) -> None:
    """Report what is wrong with the transitions of the file."""
    for name, transition in scene.section("transitions").items():
        path = ("transitions", name)
        inputs = inputs_of(scene, path, transition)
        lint_arcs(scene, path, transition, inputs)
        _guard(scene, path, transition, inputs)
        _action(scene, path, transition, inputs)
        _manual(scene, path, transition)
        _people(scene, path, transition)
        _timer(scene, path, transition, inputs)
        _merge(scene, path, transition, inputs)


def _guard(scene: Scene, path: PathTuple, transition: Mapping[str, Any], inputs: Inputs) -> None:
    for index, source in enumerate(transition.get("conditions", ())):
        check_expression(scene, (*path, "conditions", index), source, inputs, condition=True)
    check_rules(scene, (*path, "rules"), transition.get("rules", ()), inputs)


def check_rules(scene: Scene, path: PathTuple, rules: Sequence[Mapping[str, Any]], inputs: Inputs) -> None:
    """Report what is wrong with the rules of the list at `path`."""
    for index, rule in enumerate(rules):
        here = (*path, index)
        before = len(scene.report.faults)
        for where, text in _rule_paths(rule, here):
            check_path(scene, where, text, inputs, bare=True)
        for where, kind, value in _comparisons(rule, here):
            if kind_of(value) not in ("number", "text"):
                message = f"{kind} compares numbers or texts, not {shown(value)}"
                scene.report.add(where, message, "give a number or a text")
        if len(scene.report.faults) == before:
            _attempt(scene, here, lambda rule=rule: Rule.parse(rule))


def _rule_paths(rule: Mapping[str, Any], path: PathTuple) -> Iterator[tuple[PathTuple, str]]:
    for kind, test in rule.items():
        if kind == "field_exists":
            yield (*path, kind), test
        elif kind in COMPARISONS:
            yield (*path, kind, "field"), test["field"]
    for part, where in _rule_parts(rule, path):
        yield from _rule_paths(part, where)


def _comparisons(rule: Mapping[str, Any], path: PathTuple) -> Iterator[tuple[PathTuple, str, Any]]:
    for kind in ("field_greater_than", "field_less_than"):
        if kind in rule:
            yield (*path, kind, "value"), kind, rule[kind]["value"]
    for part, where in _rule_parts(rule, path):
        yield from _comparisons(part, where)


def _rule_parts(rule: Mapping[str, Any], path: PathTuple) -> Iterator[tuple[Mapping[str, Any], PathTuple]]:
    for kind in ("and", "or"):
        for index, part in enumerate(rule.get(kind, ())):
            yield part, (*path, kind, index)
    if "not" in rule:
        yield rule["not"], (*path, "not")


def check_path(scene: Scene, path: PathTuple, text: str, inputs: Inputs, *, bare: bool) -> None:
    """A path into what a binding shows: it must be one, and begin with something that is there."""
    report = scene.report
    try:
        parsed = ScopePath.parse(text)
    except ValueError as error:
        beginnings = "data., metadata. or tokens.PLACE." + (", or be a bare name" if bare else "")
        known = f"path {text!r} must begin with {beginnings}" if "must begin with" in str(error) else str(error)
        report.add(path, known, "write data.NAME, metadata.NAME or tokens.PLACE.data.NAME")
        return
    segments = parsed.path.segments
    if parsed.bare and (not bare or text in ("data", "metadata", "tokens", "case")):
        message = f"path {text!r} must begin with data., metadata. or tokens.PLACE."
        report.add(
            path, message, f"write data.{text}" if not text.startswith(("data", "meta")) else f"write {text}.NAME"
        )
    elif segments[0] in ("data", "metadata") or parsed.bare:
        if not inputs.one:
            message = f"{text} means nothing here: {inputs.amount} consumed, not one"
            example = f", as in tokens.{next(iter(inputs.weights))}.{text}" if inputs.weights else ""
            report.add(path, message, f"use tokens.PLACE{example}")
    elif segments[0] == "tokens":
        if check_token_name(scene, path, segments[1], inputs) and len(segments) > 2:
            _token_part(scene, path, segments, inputs)
    elif segments[1] not in CASE_FIELDS:
        report.add(path, f"case has no {segments[1]!r}", suggestion(segments[1], CASE_FIELDS, "fields"))
    elif segments[1] == "fired" and len(segments) > 2 and segments[2] not in scene.transitions:
        hint = suggestion(segments[2], scene.transitions, "transitions")
        report.add(path, f"{text}: there is no transition {segments[2]!r}", hint)


def _token_part(scene: Scene, path: PathTuple, segments: tuple[str, ...], inputs: Inputs) -> None:
    place, part = segments[1], segments[2]
    several = inputs.several(place)
    if not inputs.known:
        return
    if several and not part.isdigit():
        message = f"tokens.{place} is a list: {several}"
        scene.report.add(path, message, f"write tokens.{place}.0.{part}")
    elif not several and part not in ("data", "metadata", "id", "version"):
        hint = f"write tokens.{place}.data.{part}"
        scene.report.add(path, f"a token has data, metadata, id and version, but no {part!r}", hint)


def _action(scene: Scene, path: PathTuple, transition: Mapping[str, Any], inputs: Inputs) -> None:
    key = "agent_execution" if "agent_execution" in transition else "action"
    execution: Mapping[str, Any] | None = transition.get(key)
    if execution is None:
        return
    here = (*path, key)
    if execution.get("timeout_seconds", 1) <= 0:
        message = "timeout_seconds must be more than 0"
        scene.report.add((*here, "timeout_seconds"), message, "leave it out for 300 seconds")
    check_execution(scene, path, here, execution, transition, inputs)


def check_execution(
    scene: Scene,
    path: PathTuple,
    here: PathTuple,
    execution: Mapping[str, Any],
    transition: Mapping[str, Any],
    inputs: Inputs,
) -> None:
    """Report what is wrong with the agent or action, the mappings and the retries at `here`, which belong to
    `transition`."""
    report = scene.report
    agent: str | None = execution.get("agent_id")
    found = agent is not None and scene.known("agent", agent, (*here, "agent_id"))
    for name, value in execution.get("input_mapping", {}).items():
        where = (*here, "input_mapping", name)
        check_path(scene, _path_of(where, value), _text_of(value), inputs, bare=False)
    known = error_codes()
    for index, code in enumerate(execution.get("retry_config", {}).get("retry_on_errors", ())):
        if code not in known:
            where = (*here, "retry_config", "retry_on_errors", index)
            report.add(where, f"there is no error code {code!r}", suggestion(code, known, "codes"))
    lint_action(scene, here, execution)
    outputs = _outputs(scene, agent) if agent is not None and found else action_outputs(scene, execution)
    trigger: str | None = (transition.get("trigger") or {}).get("type")
    for target, value in execution.get("output_mapping", {}).items():
        where = (*here, "output_mapping", target)
        if not _target(scene, path, where, target, value, transition):
            continue
        source = _text_of(value)
        first = source.partition(".")[0]
        if first == "form" and trigger == "manual":
            _form_field(scene, path, _path_of(where, value), source, transition)
        elif first == "message" and trigger == "message":
            continue
        elif outputs is not None and first not in outputs and not _forgives(value):
            who = f"agent {agent}" if agent is not None else f"the action {execution['type']}"
            report.add(_path_of(where, value), f"{who} has no output {first!r}", suggestion(first, outputs, "outputs"))


def error_codes() -> tuple[str, ...]:
    """The codes of the errors that an action can end with."""
    found: set[str] = set()
    pending: list[type[CircuitError]] = [FiringError, ProviderError, AgentError]
    while pending:
        error = pending.pop()
        found.add(error.code)
        pending.extend(error.__subclasses__())
    return tuple(sorted(found))


def _outputs(scene: Scene, agent: str) -> tuple[str, ...] | None:
    """The names of an agent's outputs, or None if they are not known."""
    value: Mapping[str, Any] | None = scene.section("agents").get(agent)
    if value is None or not scene.report.intact("agents", agent, "output_schema"):
        return None
    schema = value.get("output_schema")
    named = () if schema is None else properties_of(schema, scene.section("colours"))
    kept = ("reasoning",) if value.get("capabilities") else ()
    return None if named is None else (*named, *BUILT_IN_OUTPUTS, *kept)


def _target(
    scene: Scene, path: PathTuple, where: PathTuple, target: str, value: Any, transition: Mapping[str, Any]
) -> bool:
    """Whether the target of an entry of an output mapping is one; if not, a fault at its key."""
    report = scene.report
    try:
        mapping = OutputMapping.parse({target: value})
    except ValueError as error:
        report.add(where, str(error), "write data.NAME, metadata.NAME or to.PLACE.data.NAME as the key", key=True)
        return False
    targets = [arc["place"] for arc in transition["to_places"]]
    for place in mapping.places:
        if place in targets or not report.intact(*path, "to_places"):
            continue
        if scene.report.intact(*path, "to_place"):
            hint = suggestion(place, tuple(dict.fromkeys(targets)), "targets")
            report.add(where, f"{place} is no target of this transition", hint, key=True)
            return False
    return True


def _manual(scene: Scene, path: PathTuple, transition: Mapping[str, Any]) -> None:
    report = scene.report
    trigger: Mapping[str, Any] = transition.get("trigger") or {"type": "auto"}
    form = trigger.get("form")
    if form is not None:
        check_schema(report, (*path, "trigger", "form"), form, scene.section("colours"))
    mapping: Mapping[str, Any] = transition.get("output_mapping", {})
    if not mapping or not report.intact(*path, "trigger", "type"):
        return
    if trigger["type"] == "auto":
        runs = next((key for key in ("agent_execution", "action") if key in transition), None)
        message = "output_mapping here is for transitions that a person or a message fires"
        hint = f"move it into {runs}" if runs else "add trigger: {type: manual}, or data: on the output arc"
        report.add((*path, "output_mapping"), message, hint, key=True)
        return
    for target, value in mapping.items():
        where = (*path, "output_mapping", target)
        if not _target(scene, path, where, target, value, transition) or trigger["type"] == "timer":
            continue
        source = _text_of(value)
        if trigger["type"] == "message":
            if source.partition(".")[0] != "message":
                report.add(_path_of(where, value), f"{source!r} is no part of the message", f"write message.{source}")
            continue
        if source.partition(".")[0] == "form" and "." in source:
            _form_field(scene, path, _path_of(where, value), source, transition)
        else:
            message = f"{source!r} is not a field of the form"
            report.add(
                _path_of(where, value), message, f"write form.{source}" if "." not in source else "write form.NAME"
            )


def _people(scene: Scene, path: PathTuple, transition: Mapping[str, Any]) -> None:
    """Who may do what asks for a person follows from the places, where it is not said: somebody must be left."""
    if (key := next(asking(transition), None)) is None:
        return
    for choice in transition.get("from_any") or [None]:
        arcs = [*transition["from_places"], *([choice] if choice else ())]
        asked = holders({"from_places": arcs}, scene.section("places"))
        if asked and not common(asked):
            message = f"nobody may do this: {', '.join(asked)} have no role in common"
            hint = f"name roles under {key}, or one role in all of these places"
            scene.report.add((*path, key), message, hint, key=True)
            return


def _timer(scene: Scene, path: PathTuple, transition: Mapping[str, Any], inputs: Inputs) -> None:
    trigger: Mapping[str, Any] = transition.get("trigger") or {}
    here = (*path, "trigger")
    if trigger.get("type") != "timer":
        return
    if "at" in trigger and instant_of(trigger["at"]) is None:
        if trigger["at"][:1].isdigit():
            message = f"{trigger['at']!r} is not an instant"
            scene.report.add((*here, "at"), message, "write 2026-12-31T18:00:00Z, or a path such as data.deadline")
        else:
            check_path(scene, (*here, "at"), trigger["at"], inputs, bare=True)
    if trigger.get("interrupt") and (len(transition["from_places"]) != 1 or not inputs.one):
        message = "a timer that interrupts takes one token from one place"
        scene.report.add((*here, "interrupt"), message, "remove the other inputs, or interrupt", key=True)
    if "cron" in trigger:
        check_cron(scene, (*here, "cron"), trigger["cron"])


def check_cron(scene: Scene, path: PathTuple, line: str) -> None:
    """Report a cron line that is none, or that never comes."""
    try:
        Cron.parse(line)
    except ScheduleFault as fault:
        scene.report.add(path, str(fault), "write minute hour day month weekday, as in 0 8 * * 1-5")


def _form_field(scene: Scene, path: PathTuple, where: PathTuple, source: str, transition: Mapping[str, Any]) -> None:
    if not scene.report.intact(*path, "trigger", "form"):
        return
    form = transition["trigger"].get("form")
    fields = None if form is None else properties_of(form, scene.section("colours"))
    name = source.split(".")[1] if "." in source else ""
    if fields is not None and name not in fields:
        scene.report.add(where, f"the form has no field {name!r}", suggestion(name, fields, "fields"))


def _merge(scene: Scene, path: PathTuple, transition: Mapping[str, Any], inputs: Inputs) -> None:
    """A join whose inputs are sure to clash: both colours demand a key and agree on no value of it."""
    wanted = any("data" not in arc for arc in transition["to_places"])
    if "merge" in transition or not wanted or not inputs.known or inputs.consumed < 2:
        return
    colours = scene.section("colours")
    demanded: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for index, arc in enumerate(transition["from_places"]):
        name = scene.section("places").get(arc["place"], {}).get("colour")
        if arc["mode"] != "consume" or name not in scene.sound:
            continue
        schema = bundle(colours[name], colours, name)
        properties: Mapping[str, Any] = schema.get("properties") or {}
        for key in schema.get("required", ()):
            own = properties.get(key)
            if not isinstance(own, Mapping):
                continue
            first = demanded.setdefault(key, (arc["place"], own))  # type: ignore[reportUnknownArgumentType]
            if first[0] != arc["place"] and _disjoint(first[1], own):  # type: ignore[reportUnknownArgumentType]
                message = f"{first[0]} and {arc['place']} never agree on data.{key}, so this join always fails"
                hint = "give the target `data:`, or the transition `merge: last`, `deep` or `list`"
                scene.report.add((*path, "from_places", index), message, hint)


def _disjoint(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    if "const" in left and "const" in right:
        return left["const"] != right["const"]
    types: list[set[str]] = []
    for schema in (left, right):
        declared: Any = schema.get("type")
        names = [declared] if isinstance(declared, str) else declared
        if not isinstance(names, list) or not names:
            return False
        types.append({"number" if name == "integer" else str(name) for name in names})  # type: ignore[reportUnknownArgumentType]
    return not types[0] & types[1]


def _attempt(scene: Scene, path: PathTuple, parse: Any) -> None:
    try:
        parse()
    except ValueError as error:
        scene.report.add(path, str(error))


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else value["path"]


def _path_of(where: PathTuple, value: Any) -> PathTuple:
    return where if isinstance(value, str) else (*where, "path")


def _forgives(value: Any) -> bool:
    """Whether an entry of a mapping says what happens where its source is missing."""
    return not isinstance(value, str) and (value.get("optional") is True or "default" in value)

"""Checks across a file: names that lead nowhere, schemas, places; transitions and agents have their own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from circuit.definition.lint_agent import ApiCheck, ModelCheck, lint_agents
from circuit.definition.lint_arc import check_region
from circuit.definition.lint_compensation import lint_compensation
from circuit.definition.lint_expression import Inputs, check_expression
from circuit.definition.lint_message import lint_messages
from circuit.definition.lint_place_agent import lint_place_agents
from circuit.definition.lint_redaction import lint_rules
from circuit.definition.lint_transition import lint_transitions
from circuit.definition.scene import Scene
from circuit.definition.schemas import bundle, check_schema
from circuit.definition.tree import PathTuple
from circuit.definition.validation import Report
from circuit.expressions.path import Path
from circuit.net.colour import Colour
from circuit.security.rules import Rule, rules_of


def lint(
    report: Report,
    plain: Mapping[str, Any],
    models: ModelCheck | None = None,
    rules: Sequence[Rule] = (),
    apis: ApiCheck | None = None,
) -> None:
    """Report every fault that shows only when the parts of the document are held against each other, or against the
    `rules` of redaction of the deployment."""
    scene = Scene.of(report, plain)
    _colours(scene)
    _places(scene)
    _complete_when(scene)
    lint_agents(scene, models, (*rules, *rules_of(scene.plain.get("redaction") or ())), apis)
    lint_transitions(scene)
    lint_compensation(scene)
    lint_place_agents(scene)
    lint_messages(scene)
    _subject(scene)
    lint_rules(scene.report, ("redaction",), scene.plain.get("redaction") or (), rules)
    for name, region in scene.section("regions").items():
        check_region(scene, ("regions", name), region)


def _colours(scene: Scene) -> None:
    colours = scene.section("colours")
    for name, schema in colours.items():
        path = ("colours", name)
        if not check_schema(scene.report, path, schema, colours):
            continue
        scene.sound.add(name)
        types: Any = schema.get("type", "object")
        if "object" not in ([types] if isinstance(types, str) else types):
            message = f"colour {name} takes no objects, but the data of a token is always one"
            scene.report.add((*path, "type"), message, "write type: object, with properties")


def _places(scene: Scene) -> None:
    report = scene.report
    places = scene.section("places")
    for name, place in places.items():
        path = ("places", name)
        if "colour" in place:
            scene.known("colour", place["colour"], (*path, "colour"))
        if "outcome" in place and not place.get("terminal"):
            message = "outcome belongs to a terminal place"
            report.add((*path, "outcome"), message, "add terminal: true", key=True)
        if place.get("ends_case") and not place.get("terminal"):
            message = "ends_case belongs to a terminal place"
            report.add((*path, "ends_case"), message, "add terminal: true", key=True)
        tokens: list[Any] = place.get("tokens", [])
        _shared(scene, path, place)
        lying = len(tokens) + bool(place.get("initial"))
        if "capacity" in place and lying > place["capacity"]:
            own = ", with the one that the case is started with" if place.get("initial") else ""
            message = f"the place holds {place['capacity']} tokens at most, but {lying} lie in it from the start{own}"
            report.add((*path, "capacity"), message, "raise capacity, or remove tokens")
        _tokens(scene, name, place, tokens)
    written: Any = report.tree.root.value.get("places")
    if isinstance(written, list):
        for index, name in enumerate(written):  # type: ignore[reportUnknownVariableType]
            if name in written[:index]:
                report.add(("places", index), f"the place {name!r} stands twice", "remove one of them")
    _initial(scene)


def _shared(scene: Scene, path: PathTuple, place: Mapping[str, Any]) -> None:
    """A shared place is an amount of something, and holds no tokens."""
    report = scene.report
    if not place.get("shared"):
        if "interval" in place:
            message = "interval belongs to a shared place"
            report.add((*path, "interval"), message, "add shared: true, or remove it", key=True)
        return
    if "capacity" not in place and report.intact(*path, "capacity"):
        hint = "add capacity: how much of it there is"
        report.add((*path, "shared"), "a shared place needs a capacity", hint, key=True)
    for key in ("colour", "initial", "terminal", "outcome", "ends_case", "dead_letter", "roles", "tokens"):
        if key in place:
            message = f"a shared place holds no tokens: {key} means nothing here"
            report.add((*path, key), message, f"remove {key}, or remove shared", key=True)
    if place.get("interval") == 0:
        report.add((*path, "interval"), "an interval is longer than nothing", "give a time, as in 60s")


def _tokens(scene: Scene, name: str, place: Mapping[str, Any], tokens: list[Any]) -> None:
    colour = place.get("colour")
    if colour not in scene.sound:
        return
    colours = scene.section("colours")
    compiled = Colour(colour, bundle(colours[colour], colours, colour))
    for index, token in enumerate(tokens):
        for problem in compiled.faults(token["data"]):
            message = f"the token does not fit colour {colour}: {problem}"
            scene.report.add(("places", name, "tokens", index, "data"), message, f"change the token or colour {colour}")


def _complete_when(scene: Scene) -> None:
    """The predicate sees a list of tokens of each place, and no token that is consumed."""
    source: str | None = scene.plain.get("complete_when")
    if source is not None:
        known = [name for name in scene.places if name not in scene.shared]
        inputs = Inputs(dict.fromkeys(known, 1), 0, scene.report.intact("places"), frozenset(known))
        check_expression(scene, ("complete_when",), source, inputs, condition=True)


def _subject(scene: Scene) -> None:
    """Whom a case is about stands in what it starts with."""
    paths: list[str] = scene.plain.get("subject") or []
    listed = scene.report.tree.node(("subject", 0)) is not None
    for index, text in enumerate(paths):
        where = ("subject", index) if listed else ("subject",)
        try:
            segments = Path.parse(text).segments
        except ValueError as error:
            scene.report.add(where, str(error), "write data.NAME or metadata.NAME")
            continue
        if segments[0] not in ("data", "metadata") or len(segments) == 1:
            scene.report.add(where, f"path {text!r} must begin with data. or metadata.", "write data.NAME")


def _initial(scene: Scene) -> None:
    report = scene.report
    places = scene.section("places")
    initial = [name for name, place in places.items() if place.get("initial")]
    for name in initial[1:]:
        message = f"a workflow has one initial place, and {initial[0]} is it already"
        report.add(("places", name, "initial"), message, "remove one of them", key=True)
    if not initial and not any(place.get("tokens") for place in places.values()) and report.intact("places"):
        message = "no place is initial and none holds tokens: a case could not begin"
        hint = "mark the place where cases begin with initial: true"
        report.add(("places",), message, hint, key=True)

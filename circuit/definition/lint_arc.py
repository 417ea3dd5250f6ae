"""Checks of arcs: what they lead to and from, which tokens they mean, and what a transition cancels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit.definition.compiler import ELEMENT, outcomes
from circuit.definition.lint_expression import Inputs, check_expression, check_filter
from circuit.definition.scene import Scene
from circuit.definition.tree import PathTuple
from circuit.net.scope import ScopePath

_TAKES = ("consume", "drain")
_BINDS = ("consume", "drain", "read")


def inputs_of(scene: Scene, path: PathTuple, transition: Mapping[str, Any]) -> Inputs:
    """What the transition at `path` binds, for the checks of its expressions."""
    places = scene.section("places")
    weights: dict[str, int] = {}
    lists: set[str] = set()
    consumed = 0
    choices: list[Any] = transition.get("from_any", [])
    for arc in transition["from_places"]:
        if places.get(arc["place"], {}).get("shared") or arc["mode"] not in _BINDS:
            continue
        if arc["mode"] == "drain" or "gather" in arc:
            lists.add(arc["place"])
        weights[arc["place"]] = weights.get(arc["place"], 0) + arc["weight"]
        consumed += arc["weight"] if arc["mode"] != "read" else 0
    for arc in choices:
        weights.setdefault(arc["place"], arc["weight"])
    consumed += choices[0]["weight"] if choices else 0
    intact = scene.report.intact(*path, "from_places") and scene.report.intact(*path, "from_any")
    known_places = all(name in places for name in weights)
    return Inputs(weights, consumed, intact and known_places, frozenset(lists))


def lint_arcs(scene: Scene, path: PathTuple, transition: Mapping[str, Any], inputs: Inputs) -> None:
    """Report what is wrong with the arcs of the transition at `path`."""
    report = scene.report
    for key in ("from_places", "from_any", "to_places"):
        for index, arc in enumerate(transition.get(key, ())):
            here = (*path, key, index)
            if scene.known("place", arc["place"], (*here, "place")):
                _weight(scene, here, arc, key)
            if "where" in arc:
                check_filter(scene, (*here, "where"), arc["where"])
            if "correlate" in arc:
                _key(scene, (*here, "correlate"), arc["correlate"])
            if "gather" in arc:
                _gather(scene, here, arc)
            if "order" in arc and arc["mode"] not in ("consume", "read"):
                report.add((*here, "order"), "order belongs to an arc that chooses", "remove order", key=True)
    _shared(scene, path, transition)
    _together(scene, path, transition)
    _choices(scene, path, transition)
    _outputs(scene, path, transition, inputs)
    _cancels(scene, path, transition)
    node = report.tree.node(path)
    written = node.children if node is not None else {}
    # An input arc that is at fault is an input all the same.
    whole = report.intact(*path, "from_places") and "from_any" not in written
    own = [arc for arc in transition["from_places"] if arc["place"] not in scene.shared]
    if whole and not any(arc["mode"] in _TAKES for arc in own):
        modes = sorted({f"{arc['mode']} arcs" for arc in own})
        but = f" but {' and '.join(modes)}" if own else " but shared places" if transition["from_places"] else ""
        message = "the transition has no inputs" + but
        report.add(path, f"{message}: it would fire for ever", "add from_places: [PLACE]", key=True)
    if not {"to_place", "to_places"} & set(written) and report.intact(*path, "to_place"):
        message = "the transition has no target: its token would vanish"
        report.add(path, message, "add to_place: PLACE, or to_places: [] if that is meant", key=True)
    failure = transition.get("on_failure")
    if failure is not None:
        scene.known("place", failure, (*path, "on_failure"))
        if not {"agent_execution", "action"} & set(written):
            message = "on_failure belongs to a transition that runs an agent or an action"
            report.add((*path, "on_failure"), message, "add agent_execution or action, or remove it", key=True)
        elif inputs.lists and _capacity(scene, failure) is not None:
            message = f"{failure} has a capacity, but how many tokens would go there shows only when it fires"
            report.add((*path, "on_failure"), message, f"remove the capacity of {failure}, or name another place")


def _capacity(scene: Scene, place: str) -> int | None:
    return scene.section("places").get(place, {}).get("capacity")


def _weight(scene: Scene, path: PathTuple, arc: Mapping[str, Any], key: str) -> None:
    """A weight that means nothing."""
    report = scene.report
    if arc["place"] in scene.shared:
        return
    if key == "to_places":
        if "each" in arc and arc["weight"] > 1:
            report.add((*path, "weight"), "with each, there is one token for each element", "remove weight", key=True)
    elif arc["mode"] == "reset" and arc["weight"] > 1:
        report.add((*path, "weight"), "a reset takes all tokens of its place", "remove weight", key=True)


def _key(scene: Scene, path: PathTuple, text: str) -> None:
    hint = "write the path of a key, such as data.order_id"
    try:
        parsed = ScopePath.parse(text)
    except ValueError as error:
        scene.report.add(path, str(error), hint)
        return
    if parsed.roots[0] not in ("data", "metadata") or text in ("data", "metadata"):
        scene.report.add(path, f"{text} is no key of one token", hint)


def _gather(scene: Scene, path: PathTuple, arc: Mapping[str, Any]) -> None:
    report, name = scene.report, arc["gather"]
    if not scene.known("transition", name, (*path, "gather")):
        return
    maker: Mapping[str, Any] = scene.section("transitions").get(name, {})
    if not any("each" in target for target in maker.get("to_places", ())) and report.intact("transitions", name):
        message = f"{name} makes no tokens of the elements of a list"
        report.add((*path, "gather"), message, f"write each: on a target of {name}, or name another transition")
    if arc["mode"] != "consume" or arc["weight"] > 1:
        report.add(path, "gather takes a whole group of tokens", "remove mode and weight")
    for key in ("where", "correlate"):
        if key in arc:
            message = f"gather takes a whole group of tokens: {key} would part it"
            report.add((*path, key), message, f"remove {key}", key=True)


def _together(scene: Scene, path: PathTuple, transition: Mapping[str, Any]) -> None:
    """Arcs that contradict each other, and keys that no other arc shares."""
    report = scene.report
    arcs = [arc for arc in transition["from_places"] if arc["place"] not in scene.shared]
    keyed = [arc for arc in (*arcs, *transition.get("from_any", ())) if "correlate" in arc]
    binding = [arc for arc in keyed if arc["mode"] in _BINDS]
    for index, arc in enumerate(transition["from_places"]):
        here = (*path, "from_places", index)
        name, mode = arc["place"], arc["mode"]
        taken = sum(other["weight"] for other in arcs if other["place"] == name and other["mode"] in _TAKES)
        if mode == "inhibit" and not {"where", "correlate"} & set(arc) and taken >= arc["weight"]:
            message = f"it takes {taken} of {name} and wants fewer than {arc['weight']} to lie there: it never fires"
            report.add(here, message, "raise the weight of the inhibit arc, or look at another place")
        if mode == "drain" and sum(other["place"] == name and other["mode"] in _BINDS for other in arcs) > 1:
            report.add(here, f"a drain takes all of {name}: nothing is left for another arc", "remove one of them")
        if "correlate" in arc and mode not in _BINDS and not binding:
            message = "correlate needs another arc with a key, of a place from which a token is taken or read"
            report.add((*here, "correlate"), message, "give that arc correlate: too", key=True)
        alone = "correlate" in arc and mode in _BINDS and len(keyed) == 1
        if alone and mode != "drain" and arc["weight"] == 1 and "gather" not in arc:
            message = "correlate belongs on two arcs at least: here no other has a key"
            report.add((*here, "correlate"), message, "give another arc correlate: too, or remove it", key=True)


def _choices(scene: Scene, path: PathTuple, transition: Mapping[str, Any]) -> None:
    """`from_any` takes the same from whichever place it is."""
    choices: list[Mapping[str, Any]] = transition.get("from_any", [])
    for index, arc in enumerate(choices):
        here = (*path, "from_any", index)
        if arc["mode"] != "consume" or "gather" in arc:
            message = "from_any takes a token of one of its places"
            report_hint = "write other arcs under from_places"
            scene.report.add(here, message, report_hint)
        elif arc["weight"] != choices[0]["weight"]:
            message = f"the choices of from_any take as many tokens each: here {arc['weight']}, above it"
            scene.report.add(here, f"{message} {choices[0]['weight']}", "give all of them one weight")


def _outputs(scene: Scene, path: PathTuple, transition: Mapping[str, Any], inputs: Inputs) -> None:
    report = scene.report
    known = outcomes(transition)
    lists = 0
    for index, arc in enumerate(transition["to_places"]):
        here = (*path, "to_places", index)
        own = (*known, *ELEMENT) if "each" in arc else known
        for key, source in arc.get("data", {}).items():
            check_expression(scene, (*here, "data", key), source, inputs, condition=False, beside=own)
        if "each" not in arc:
            if "most" in arc:
                report.add((*here, "most"), "most belongs to an arc with each", "add each, or remove it", key=True)
            continue
        lists += 1
        check_expression(scene, (*here, "each"), arc["each"], inputs, condition=False, beside=known)
        if lists > 1:
            report.add((*here, "each"), "a transition makes tokens of one list", "make two transitions of it", key=True)
        capacity = _capacity(scene, arc["place"])
        if capacity is not None and arc.get("most", capacity + 1) > capacity:
            message = f"{arc['place']} takes {capacity} tokens at most, and the list may be longer"
            report.add((*here, "each"), message, f"add most: {capacity}, or remove the capacity", key=True)


def _cancels(scene: Scene, path: PathTuple, transition: Mapping[str, Any]) -> None:
    cancels: Mapping[str, Any] | None = transition.get("cancels")
    if cancels is None:
        return
    report, regions = scene.report, scene.section("regions")
    written = report.tree.node((*path, "cancels"))
    listed = written is not None and bool(written.items)
    named = (*path, "cancels") if written is not None and not written.children else (*path, "cancels", "regions")
    for name in cancels.get("regions", ()):
        if name not in regions and report.intact("regions"):
            where = named
            if written is not None and listed:
                where = (*path, "cancels", written.value.index(name))
            report.add(where, f"there is no region {name!r}", f"there are {', '.join(regions) or 'none'}")
    check_region(scene, (*path, "cancels"), cancels)


def check_region(scene: Scene, path: PathTuple, region: Mapping[str, Any]) -> None:
    """Report what is wrong with the places and transitions that `region` names."""
    for name in region.get("places", ()):
        if scene.known("place", name, (*path, "places")) and name in scene.shared:
            scene.report.add((*path, "places"), f"{name} is shared: it holds no tokens", f"remove {name}")
    for name in region.get("transitions", ()):
        known = scene.known("transition", name, (*path, "transitions"))
        transition: Mapping[str, Any] = scene.section("transitions").get(name, {})
        if known and transition and not {"agent_execution", "action"} & set(transition):
            message = f"{name} fires at once: there is never a firing of it that could be cancelled"
            scene.report.add((*path, "transitions"), message, "name the places whose tokens are to be taken")


def _shared(scene: Scene, path: PathTuple, transition: Mapping[str, Any]) -> None:
    """What is done with shared places: an acting transition takes from them, and that is all."""
    report, places = scene.report, scene.section("places")
    for key in ("from_places", "from_any", "to_places"):
        for index, arc in enumerate(transition.get(key, ())):
            name = arc["place"]
            if name not in scene.shared:
                continue
            here = (*path, key, index)
            capacity = places[name].get("capacity")
            if key == "to_places":
                message = f"{name} is a shared place: what a firing took is given back by itself when it ends"
                report.add(here, message, f"remove {name} from the targets")
            elif key == "from_any" or arc["mode"] != "consume":
                message = f"{name} is a shared place: a firing can only take from it"
                report.add(here, message, f"write it under from_places, as {{place: {name}, weight: 1}}")
            elif not {"agent_execution", "action"} & set(transition):
                message = f"{name} is a shared place, and this transition runs no action that could hold anything of it"
                report.add(here, message, f"add agent_execution or action, or remove {name}")
            elif capacity is not None and arc["weight"] > capacity:
                message = f"{name} has {capacity} in all, and this takes {arc['weight']}: it would never fire"
                report.add(here, message, "lower weight, or raise the capacity")
    if transition.get("on_failure") in scene.shared:
        report.add((*path, "on_failure"), "a shared place takes no tokens", "name another place")

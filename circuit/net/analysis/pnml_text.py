"""Writes a net as PNML (ISO/IEC 15909-2), as its own reader and the tools in the field read it.

Inhibitor and reset arcs carry a `type` element, which is how TINA, PIPE and GreatSPN mark them; final markings are
written as LoLA, ProM and pm4py do.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from circuit.net.analysis.place_net import PlaceNet

NAMESPACE = "http://www.pnml.org/version-2009/grammar/pnml"
TYPE = "http://www.pnml.org/version-2009/grammar/ptnet"
_FORBIDDEN = {code: None for code in range(32) if code not in (9, 10, 13)}
"""Control characters, which no XML can hold."""


def pnml_text(net: PlaceNet) -> str:
    """The net as the text of a PNML file."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<pnml xmlns={quoteattr(NAMESPACE)}>",
        f'  <net id="net" type={quoteattr(TYPE)}>',
        f"    <name><text>{_text(net.name)}</text></name>",
        '    <page id="page">',
        *(f"      {line}" for line in _nodes(net)),
        *(f"      {line}" for line in _arcs(net)),
        "    </page>",
        *(f"    {line}" for line in _finals(net)),
        "  </net>",
        "</pnml>",
    ]
    return "\n".join(lines) + "\n"


def _ids(net: PlaceNet) -> tuple[list[str], list[str]]:
    """The ids of places and transitions: their names, which PNML wants to be all different."""
    places = list(net.places)
    taken = set(places)
    steps: list[str] = []
    for step in net.steps:
        name = step.name
        while name in taken:
            name += "'"
        taken.add(name)
        steps.append(name)
    return places, steps


def _nodes(net: PlaceNet) -> Iterator[str]:
    places, steps = _ids(net)
    for place, name in enumerate(places):
        tokens, capacity = net.initial[place], net.capacities[place]
        marking = f"<initialMarking><text>{tokens}</text></initialMarking>" if tokens else ""
        most = f"<capacity><text>{capacity}</text></capacity>" if capacity is not None else ""
        yield f"<place id={_id(name)}>{_label(net, name)}{marking}{most}</place>"
    for step, name in zip(net.steps, steps, strict=True):
        yield f"<transition id={_id(name)}>{_label(net, step.name)}</transition>"


def _arcs(net: PlaceNet) -> Iterator[str]:
    places, steps = _ids(net)
    count = 0
    for step, name in zip(net.steps, steps, strict=True):
        found = [(places[place], name, weight, "") for place, weight in step.consumes]
        found += [(name, places[place], weight, "") for place, weight in step.produces]
        found += [(places[place], name, weight, "inhibitor") for place, weight in step.inhibitors]
        found += [(places[place], name, 1, "reset") for place in step.resets]
        for source, target, weight, kind in found:
            count += 1
            mark = f'<type value="{kind}"/>' if kind else ""
            times = f"<inscription><text>{weight}</text></inscription>" if weight > 1 else ""
            yield f'<arc id="arc{count}" source={_id(source)} target={_id(target)}>{mark}{times}</arc>'


def _finals(net: PlaceNet) -> Iterator[str]:
    if not net.finals:
        return
    yield "<finalmarkings>"
    for marking in net.finals:
        tokens = "".join(
            f"<place idref={_id(net.places[place])}><text>{count}</text></place>"
            for place, count in enumerate(marking)
            if count
        )
        yield f"  <marking>{tokens}</marking>"
    yield "</finalmarkings>"


def _label(net: PlaceNet, name: str) -> str:
    return f"<name><text>{_text(net.labels.get(name, name))}</text></name>"


def _id(name: str) -> str:
    return quoteattr(name.translate(_FORBIDDEN))


def _text(text: str) -> str:
    return escape(text.translate(_FORBIDDEN))

"""Pictures of a net as text: Mermaid and Graphviz DOT, with the marking where there is one.

Places are round, transitions are boxes. Terminal places have a double border, acting transitions a coloured box and
`⚙`, manual ones `✋`. Names come from whoever wrote the workflow, so every label is escaped and no node is called by
its name. Shared places, of which firings hold something while they run, are rounded boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from circuit.net.marking import Marking
from circuit.net.structure import InputArc, Mode, Net, OutputArc, Place, Transition, Trigger

_MERMAID_ESCAPES = {ord(character): f"#{ord(character)};" for character in '"#&<>`\\[]{}()|;'}

_LONGEST = 40

_MERMAID_ARROWS = {
    Mode.CONSUME: "-->",
    Mode.DRAIN: "==>",
    Mode.READ: "-.->",
    Mode.REFRESH: "-.->",
    Mode.INHIBIT: "--o",
    Mode.RESET: "--x",
}
_DOT_STYLES: Mapping[Mode, Sequence[str]] = {
    Mode.CONSUME: (),
    Mode.DRAIN: ("arrowhead=normalnormal",),
    Mode.READ: ("style=dashed",),
    Mode.REFRESH: ("style=dashed",),
    Mode.INHIBIT: ("arrowhead=odot",),
    Mode.RESET: ("arrowhead=normalnormal", "style=dashed"),
}


@dataclass(frozen=True, slots=True)
class SharedPlace:
    """What all cases of a workflow share, and how much of it the firings of transitions hold while they run."""

    name: str
    capacity: int
    interval: float | None = None
    held: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def note(self) -> str:
        """How much of it there is."""
        return f"{self.capacity} shared" + (f", each for {self.interval:g} s" if self.interval is not None else "")


def mermaid(
    net: Net,
    marking: Marking | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    shared: Sequence[SharedPlace] = (),
) -> str:
    """The net as a Mermaid flowchart. `notes` says of transitions what acts, or what they undo."""
    lines = ["flowchart LR"]
    ids = _identifiers(net, shared)
    lines += [f'  {ids["s", one.name]}(["{_lines([one.name, one.note], "<br/>")}"])' for one in shared]
    for place in net.places.values():
        left, right = ("(((", ")))") if place.terminal else ("((", "))")
        lines.append(f'  {ids["p", place.name]}{left}"{_lines(_place_label(place, marking), "<br/>")}"{right}')
    for transition in net.transitions.values():
        label = _lines(_transition_label(transition, notes), "<br/>")
        left, right = ("[[", "]]") if transition.acting else ("[", "]")
        lines.append(f'  {ids["t", transition.name]}{left}"{label}"{right}')
    for transition in net.transitions.values():
        node = ids["t", transition.name]
        lines += [
            f"  {ids['p', arc.place]} {_MERMAID_ARROWS[arc.mode]}{_mermaid_label(arc)} {node}"
            for arc in transition.inputs
        ]
        lines += [f"  {node} -->{_mermaid_label(arc)} {ids['p', arc.place]}" for arc in transition.outputs]
        for one in shared:
            if amount := one.held.get(transition.name):
                lines.append(f"  {ids['s', one.name]} <-.->{f'|{amount}|' if amount > 1 else ''} {node}")
        if transition.on_failure:
            lines.append(f'  {node} -.->|"on failure"| {ids["p", transition.on_failure]}')
    lines += _mermaid_classes(net, marking, ids)
    return "\n".join(lines) + "\n"


def dot(
    net: Net,
    marking: Marking | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    shared: Sequence[SharedPlace] = (),
) -> str:
    """The net as a Graphviz digraph. `notes` says of transitions what acts, or what they undo."""
    lines = [f"digraph {_quoted(net.name)} {{", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    ids = _identifiers(net, shared)
    for one in shared:
        label = _quoted(f"{one.name}\n{one.note}")
        lines.append(f'  {ids["s", one.name]} [shape=box, style="rounded,dashed", label={label}];')
    for place in net.places.values():
        shape = "doublecircle" if place.terminal else "circle"
        extra = "" if not (marking and marking.count(place.name)) else ', style=filled, fillcolor="#ffe9a8"'
        if place.dead_letter or place.failed:
            extra += ', color="#b3261e"'
        label = "\n".join(_place_label(place, marking))
        lines.append(f"  {ids['p', place.name]} [shape={shape}, label={_quoted(label)}{extra}];")
    for transition in net.transitions.values():
        extra = ', penwidth=2, style=filled, fillcolor="#dbe9ff"' if transition.acting else ""
        label = "\n".join(_transition_label(transition, notes))
        lines.append(f"  {ids['t', transition.name]} [shape=box, label={_quoted(label)}{extra}];")
    for transition in net.transitions.values():
        node = ids["t", transition.name]
        lines += [
            f"  {ids['p', arc.place]} -> {node}{_attributes(_DOT_STYLES[arc.mode], arc)};" for arc in transition.inputs
        ]
        lines += [f"  {node} -> {ids['p', arc.place]}{_attributes((), arc)};" for arc in transition.outputs]
        for one in shared:
            if amount := one.held.get(transition.name):
                weight = f', label="{amount}"' if amount > 1 else ""
                lines.append(f"  {ids['s', one.name]} -> {node} [dir=both, style=dotted{weight}];")
        if transition.on_failure:
            lines.append(f'  {node} -> {ids["p", transition.on_failure]} [style=dotted, label="on failure"];')
    return "\n".join([*lines, "}"]) + "\n"


def _identifiers(net: Net, shared: Sequence[SharedPlace]) -> dict[tuple[str, str], str]:
    """What each node is called in the text: `p0`, `t0`, ... A name could be a keyword of the language, or break it."""
    ids = {("p", name): f"p{index}" for index, name in enumerate(net.places)}
    ids |= {("s", one.name): f"s{index}" for index, one in enumerate(shared)}
    return ids | {("t", name): f"t{index}" for index, name in enumerate(net.transitions)}


def _place_label(place: Place, marking: Marking | None) -> list[str]:
    count = marking.count(place.name) if marking else 0
    label = [place.name]
    if place.capacity is not None:
        label.append(f"{count} of {place.capacity}" if marking else f"at most {place.capacity}")
    elif count:
        label.append("●" * count if count <= 5 else f"● × {count}")
    return label


def _transition_label(transition: Transition, notes: Mapping[str, Sequence[str]] | None) -> list[str]:
    signs = {Trigger.MANUAL: "✋ ", Trigger.TIMER: "⏲ ", Trigger.MESSAGE: "✉ "}
    sign = "⚙ " if transition.acting else signs.get(transition.trigger, "")
    label = [sign + transition.name]
    said = (notes or {}).get(transition.name, ())
    return label + [note if len(note) <= _LONGEST else f"{note[: _LONGEST - 1]}…" for note in said]


def _lines(label: list[str], separator: str) -> str:
    """The label of a Mermaid node. Mermaid reads HTML and Markdown in labels, so what could be either is encoded."""
    return separator.join(" ".join(line.split()).translate(_MERMAID_ESCAPES) for line in label)


def _mermaid_label(arc: InputArc | OutputArc) -> str:
    label = arc.note
    return f'|"{" ".join(label.split()).translate(_MERMAID_ESCAPES)}"|' if label else ""


def _mermaid_classes(net: Net, marking: Marking | None, ids: Mapping[tuple[str, str], str]) -> list[str]:
    classes = {
        "acting": [ids["t", one.name] for one in net.transitions.values() if one.acting],
        "marked": [ids["p", name] for name in net.places if marking and marking.count(name)],
        "bad": [ids["p", place.name] for place in net.places.values() if place.dead_letter or place.failed],
    }
    styles = {
        "acting": "fill:#dbe9ff,stroke-width:2px",
        "marked": "fill:#ffe9a8",
        "bad": "stroke:#b3261e",
    }
    lines: list[str] = []
    for name, nodes in classes.items():
        if nodes:
            lines += [f"  classDef {name} {styles[name]}", f"  class {','.join(nodes)} {name}"]
    return lines


def _quoted(text: str) -> str:
    """A DOT string. Newlines become line breaks of a label; a backslash of a name stays one."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "\\n")
    return f'"{escaped.replace(chr(0), "")}"'


def _attributes(attributes: Sequence[str], arc: InputArc | OutputArc) -> str:
    label = arc.note
    found = [*attributes, *([f"label={_quoted(label)}"] if label else [])]
    return f" [{', '.join(found)}]" if found else ""

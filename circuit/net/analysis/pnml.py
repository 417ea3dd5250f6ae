"""Reads PNML (ISO/IEC 15909-2): place/transition nets, with what the tools in the field add to them.

With namespace and without, nets in a `<module>`, pages in pages, reference nodes, weights, capacities, several final
markings, and arcs that inhibit, reset or only read, however they are marked. Time, pictures and what else a tool notes
for itself does not belong to the net: it is listed in the notes. What would change the meaning is a fault.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from circuit.errors import DefinitionError, Fault
from circuit.net.analysis.place_net import MAX_TOKENS, PlaceNet, Step, arcs
from circuit.net.analysis.xml_units import Element, Reading, read_units

_CONTAINERS = frozenset({"pnml", "module", "net", "page"})
_MOST_FAULTS = 50
_HIGH_LEVEL = re.compile(r"symmetric|highlevel|high-level|hlpng|hlnet|colou?red|cpn", re.IGNORECASE)
_PLACE_TRANSITION = re.compile(r"pt[-_]?net|p/t|core", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+(\.0+)?")
_DIGITS = 30


class ArcKind(StrEnum):
    NORMAL = "normal"
    READ = "read"
    INHIBITOR = "inhibitor"
    RESET = "reset"


_WORDS = {
    **dict.fromkeys(("normal", "regular", "standard", "ordinary", "timed", "transport", "arc"), ArcKind.NORMAL),
    **dict.fromkeys(("read", "test", "readarc", "testarc", "read-only", "context"), ArcKind.READ),
    **dict.fromkeys(("inhibitor", "inhibit", "inhibition", "inhibitorarc"), ArcKind.INHIBITOR),
    **dict.fromkeys(("reset", "resetarc", "flush", "cancel", "cancellation"), ArcKind.RESET),
}
_TIMED_WORDS = frozenset({"timed", "transport"})


@dataclass(frozen=True, slots=True)
class Imported:
    """A net of a PNML file. `notes` list all that the file says and that is no part of the net."""

    id: str
    net: PlaceNet
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Node:
    id: str
    element: Element
    label: str
    tokens: int = 0
    capacity: int | None = None


@dataclass(slots=True)
class _Draft:
    """A net as it is being read."""

    id: str
    type: str
    element: Element
    name: str = ""
    places: dict[str, _Node] = field(default_factory=dict[str, _Node])
    transitions: dict[str, _Node] = field(default_factory=dict[str, _Node])
    references: dict[str, tuple[str, Element]] = field(default_factory=dict[str, tuple[str, Element]])
    arcs: list[Element] = field(default_factory=list[Element])
    finals: list[Element] = field(default_factory=list[Element])
    notes: Counter[str] = field(default_factory=Counter[str])


def read_pnml(data: bytes, source: str = "PNML") -> list[Imported]:
    """The nets of a PNML text. Raises `DefinitionError` with every fault of it."""
    reader = _PnmlReader(source)
    read_units(data, source, Reading(_CONTAINERS, reader.opened, reader.closed, reader.unit))
    reader.check(reader.root == "pnml", 1, 1, "this is no PNML: there is no element 'pnml' around it")
    reader.check(bool(reader.drafts) or reader.root != "pnml", 1, 1, "there is no net in this file")
    nets = [] if reader.faults else [reader.build(draft) for draft in reader.drafts]
    if reader.faults:
        raise DefinitionError(reader.faults)
    return [imported for imported in nets if imported is not None]


class _PnmlReader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.root = ""
        self.faults: list[Fault] = []
        self.drafts: list[_Draft] = []
        self.open: list[_Draft] = []
        self.nested = 0
        self.stray: Counter[str] = Counter()

    # Reading

    def check(self, good: bool, line: int, column: int, message: str, hint: str = "") -> bool:
        if not good and len(self.faults) < _MOST_FAULTS:
            self.faults.append(Fault(self.source, line, column, "", message, hint))
        return good

    def fault(self, element: Element, message: str, hint: str = "") -> None:
        self.check(False, element.line, element.column, message, hint)

    def opened(self, element: Element) -> None:
        if not self.root:
            self.root = element.tag
        if element.tag != "net":
            return
        if self.open:
            # WoPeD writes a subprocess as a net in a page of its net.
            self.nested += 1
            self.open[-1].notes["a net inside of the net (a subprocess) is not read"] += 1
            return
        kind = element.attributes.get("type", "")
        draft = _Draft(element.attributes.get("id", f"net {len(self.drafts) + 1}"), kind, element)
        if _HIGH_LEVEL.search(kind):
            self.fault(element, f"the net is of type {kind!r}; only place/transition nets are read")
        elif not _PLACE_TRANSITION.search(kind):
            draft.notes[f"the net type {kind!r} is read as place/transition net"] += 1
        self.open.append(draft)
        self.drafts.append(draft)

    def closed(self, element: Element) -> None:
        if element.tag == "net":
            if self.nested:
                self.nested -= 1
            else:
                self.open.pop()

    def unit(self, element: Element) -> None:
        """Take in one piece. Final markings may follow their net, as they do in a module."""
        if not self.root:
            self.root = element.tag
        if self.nested:
            return
        tag = element.tag
        if tag.lower() == "finalmarkings":
            if self.drafts:
                self.drafts[-1].finals.append(element)
            return
        if not self.open:
            if element.children or element.text:
                self.stray[tag] += 1
            return
        draft = self.open[-1]
        if tag == "place":
            self._place(draft, element)
        elif tag == "transition":
            self._node(draft, draft.transitions, element)
        elif tag == "arc":
            draft.arcs.append(_pruned(element))
        elif tag in ("referencePlace", "referenceTransition"):
            self._reference(draft, element)
        elif tag == "name":
            draft.name = draft.name or _label(element)
        elif tag.startswith("hl"):
            self.fault(element, f"the net holds {tag!r}; only place/transition nets are read")
        elif tag != "graphics":
            draft.notes[_what(element, "net")] += 1

    def _node(self, draft: _Draft, among: dict[str, _Node], element: Element) -> _Node | None:
        name = element.attributes.get("id", "")
        if not name:
            self.fault(element, f"a {element.tag} has no id")
            return None
        if name in draft.places or name in draft.transitions or name in draft.references:
            self.fault(element, f"the id {name!r} is given twice")
            return None
        label = element.child("name")
        own = ("initialMarking", "capacity") if element.tag == "place" else ()
        node = _Node(name, Element(element.tag, {}, element.line, element.column), _label(label) if label else "")
        for child in element.children:
            if child.tag.startswith("hl"):
                self.fault(child, f"{element.tag} {name!r} has {child.tag!r}; only place/transition nets are read")
            elif child.tag not in ("name", "graphics", *own):
                draft.notes[_what(child, element.tag)] += 1
        among[name] = node
        return node

    def _place(self, draft: _Draft, element: Element) -> None:
        node = self._node(draft, draft.places, element)
        if node is None:
            return
        marking, capacity = element.child("initialMarking"), element.child("capacity")
        if marking is not None:
            node.tokens = self._number(marking, 0, f"the initial marking of place {node.id!r}", least=0)
        if capacity is not None:
            most = self._number(capacity, 0, f"the capacity of place {node.id!r}", least=0)
            if most:
                node.capacity = most
                if node.tokens > most:
                    message = f"place {node.id!r} begins with {node.tokens} tokens and holds {most} at most"
                    self.fault(element, message, "raise its capacity, or begin with fewer")
            else:
                draft.notes["a capacity of 0 is read as none"] += 1

    def _reference(self, draft: _Draft, element: Element) -> None:
        name, ref = element.attributes.get("id", ""), element.attributes.get("ref", "")
        if not name or not ref:
            self.fault(element, f"a {element.tag} needs an id and a ref")
        elif name in draft.places or name in draft.transitions or name in draft.references:
            self.fault(element, f"the id {name!r} is given twice")
        else:
            draft.references[name] = (ref, element)

    def _number(self, element: Element, default: int, what: str, *, least: int) -> int:
        text = _content(element)
        if "," in text:
            # PIPE writes `Default,2`: tokens by their colour, of which a place/transition net has one.
            parts = [part.strip() for part in text.split(",")]
            counts = [part for part in parts[1::2] if part.strip("0")]
            text = counts[0] if len(counts) == 1 and parts[0].lower() == "default" else (text if counts else "0")
        if not text:
            return default
        if not _WHOLE.fullmatch(text):
            self.fault(element, f"{what} is {text[:_DIGITS]!r}; a whole number is needed")
            return default
        whole = text.partition(".")[0]
        if len(whole) > _DIGITS or not least <= int(whole) <= MAX_TOKENS:
            self.fault(element, f"{what} is {whole[:_DIGITS]}; it can be {least} to {MAX_TOKENS:,}")
            return default
        return int(whole)

    # Building

    def build(self, draft: _Draft) -> Imported | None:
        """The net of a draft; None where a fault was found in it."""
        before = len(self.faults)
        number = {name: index for index, name in enumerate(draft.places)}
        consumes: dict[str, list[tuple[int, int]]] = {name: [] for name in draft.transitions}
        produces: dict[str, list[tuple[int, int]]] = {name: [] for name in draft.transitions}
        inhibitors: dict[str, dict[int, int]] = {name: {} for name in draft.transitions}
        resets: dict[str, set[int]] = {name: set() for name in draft.transitions}
        leaving: set[str] = set()
        for element in draft.arcs:
            ends = self._ends(draft, element)
            if ends is None:
                continue
            place, transition, inwards = ends
            if inwards:
                leaving.add(place)
            kind = self._kind(draft, element)
            weight = self._weight(element)
            at = number[place]
            if kind is ArcKind.RESET:
                resets[transition].add(at)
            elif kind is ArcKind.INHIBITOR:
                if not inwards:
                    self.fault(element, f"{_arc(element)} inhibits and leads out of a transition")
                inhibitors[transition][at] = min(weight, inhibitors[transition].get(at, weight))
            elif kind is ArcKind.READ:
                consumes[transition].append((at, weight))
                produces[transition].append((at, weight))
            else:
                (consumes if inwards else produces)[transition].append((at, weight))
        finals = self._finals(draft, number)
        if len(self.faults) > before:
            return None
        steps = tuple(
            Step(
                name,
                arcs(consumes[name]),
                arcs(produces[name]),
                tuple(sorted(inhibitors[name].items())),
                tuple(sorted(resets[name])),
            )
            for name in draft.transitions
        )
        net = PlaceNet(
            name=draft.name or draft.id,
            places=tuple(draft.places),
            steps=steps,
            initial=tuple(node.tokens for node in draft.places.values()),
            capacities=tuple(node.capacity for node in draft.places.values()),
            finals=finals,
            resting=frozenset(number[name] for name in draft.places if name not in leaving),
            labels={
                name: node.label
                for name, node in (draft.places | draft.transitions).items()
                if node.label != name and node.label
            },
        )
        stray = Counter({f"'{tag}' beside the net is not read": count for tag, count in self.stray.items()})
        notes = [f"{note} ({count} times)" if count > 1 else note for note, count in (draft.notes + stray).items()]
        return Imported(draft.id, net, tuple(notes))

    def _ends(self, draft: _Draft, element: Element) -> tuple[str, str, bool] | None:
        """Place and transition of an arc, and whether it leads into the transition."""
        found: list[str] = []
        for key in ("source", "target"):
            name = element.attributes.get(key, "")
            real = self._resolved(draft, name)
            if real is None:
                if name in draft.references:
                    self.fault(element, f"{_arc(element)}: its {key} {name!r} refers to no node")
                else:
                    self.fault(element, f"{_arc(element)}: its {key} {name!r} is no node of the net")
                return None
            found.append(real)
        source, target = found
        if (source in draft.places) == (target in draft.places):
            kind = "places" if source in draft.places else "transitions"
            self.fault(element, f"{_arc(element)} joins two {kind}, {source!r} and {target!r}")
            return None
        return (source, target, True) if source in draft.places else (target, source, False)

    def _resolved(self, draft: _Draft, name: str) -> str | None:
        seen: set[str] = set()
        while name in draft.references:
            if name in seen:
                return None
            seen.add(name)
            name = draft.references[name][0]
        return name if name in draft.places or name in draft.transitions else None

    def _weight(self, element: Element) -> int:
        inscription = element.child("inscription")
        return 1 if inscription is None else self._number(inscription, 1, f"the weight of {_arc(element)}", least=1)

    def _kind(self, draft: _Draft, element: Element) -> ArcKind:
        """What an arc does, from the marks by which the tools say it."""
        kind = ArcKind.NORMAL
        marks = [(element.attributes["type"], True)] if "type" in element.attributes else []
        for child in element.children:
            if child.tag in ("type", "arctype", "arcType"):
                marks.append((child.attributes.get("value") or _content(child), True))
            elif child.tag == "toolspecific":
                inside = list(child.all())
                marks += [(text, False) for one in inside for text in (one.tag, one.text, *_values(one)) if text]
                if not any(text.lower() in _WORDS for text, _ in marks):
                    draft.notes[_what(child, "arc")] += 1
            elif child.tag.startswith("hl"):
                self.fault(child, f"{_arc(element)} has {child.tag!r}; only place/transition nets are read")
            elif child.tag not in ("inscription", "name", "graphics"):
                draft.notes[_what(child, "arc")] += 1
        for text, stated in marks:
            word = _WORDS.get(text.strip().lower())
            if word is not None:
                kind = word if word is not ArcKind.NORMAL else kind
                if text.strip().lower() in _TIMED_WORDS:
                    draft.notes["time on arcs is not read"] += 1
            elif stated and text.strip():
                known = ", ".join(ArcKind)
                self.fault(
                    element, f"{_arc(element)} is of the kind {text.strip()!r}, which is not known", f"known: {known}"
                )
        return kind

    def _finals(self, draft: _Draft, number: dict[str, int]) -> tuple[tuple[int, ...], ...]:
        """The final markings that say anything: one without tokens counts as not given."""
        found: dict[tuple[int, ...], None] = {}
        for element in draft.finals:
            for marking in element.children:
                if marking.tag != "marking":
                    draft.notes[_what(marking, "finalmarkings")] += 1
                    continue
                tokens = [0] * len(number)
                for entry in marking.children:
                    name = entry.attributes.get("idref", "")
                    real = self._resolved(draft, name)
                    if entry.tag != "place" or real is None or real not in number:
                        self.fault(entry, f"a final marking names {name!r}, which is no place of the net")
                        continue
                    tokens[number[real]] += self._number(entry, 1, f"the final marking of place {name!r}", least=0)
                if any(tokens):
                    found[tuple(tokens)] = None
                else:
                    draft.notes["a final marking without tokens counts as not given"] += 1
        return tuple(found)


def _content(element: Element) -> str:
    inner = element.child("text", "value")
    return (inner.text if inner is not None else element.text).strip()


def _label(element: Element) -> str:
    return " ".join(_content(element).split())


def _arc(element: Element) -> str:
    ends = f"from {element.attributes.get('source', '')!r} to {element.attributes.get('target', '')!r}"
    name = element.attributes.get("id")
    return f"the arc {name!r} {ends}" if name else f"the arc {ends}"


def _what(element: Element, where: str) -> str:
    tool = element.attributes.get("tool")
    what = f"what {tool} notes" if element.tag == "toolspecific" and tool else f"'{element.tag}'"
    return f"{what} at a {where} is not read" if where != "net" else f"{what} of the net is not read"


def _values(element: Element) -> list[str]:
    return [
        value for key, value in element.attributes.items() if key in ("type", "value", "kind", "arctype", "arcType")
    ]


def _pruned(element: Element) -> Element:
    """An arc without its picture, which may be larger than all else."""
    element.children = [child for child in element.children if child.tag != "graphics"]
    return element

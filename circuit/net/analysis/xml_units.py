"""Reads XML as a stream of small pieces, in bounded memory, and trusts none of it.

Entities can be declared neither here nor elsewhere, nothing outside of the text is ever looked for, and size, depth and
the number of elements are limited. Namespaces are dropped: PNML is written with and without.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from circuit.errors import DefinitionError, Fault

XML_LIMIT = 64 * 1024 * 1024
_CHUNK = 1 << 16
_MAX_DEPTH = 200
_MAX_ELEMENTS = 5_000_000
_MAX_IN_UNIT = 200_000
_MAX_TEXT = 4_000


@dataclass(slots=True)
class Element:
    """One element with what lies in it. `tag` and the keys of `attributes` are without namespaces."""

    tag: str
    attributes: dict[str, str]
    line: int
    column: int
    text: str = ""
    children: list[Element] = field(default_factory=list["Element"])

    def child(self, *tags: str) -> Element | None:
        """The first child of one of these names."""
        return next((child for child in self.children if child.tag in tags), None)

    def all(self) -> Iterator[Element]:
        """The element and all below it."""
        pending: list[Element] = [self]
        while pending:
            element = pending.pop()
            yield element
            pending.extend(reversed(element.children))


@dataclass(frozen=True, slots=True)
class Reading:
    """What is told of a text: `opened` and `closed` of each container, `unit` of each piece, which is whole.

    A `closed` container comes with the text that lies directly in it.
    """

    containers: Collection[str]
    opened: Callable[[Element], None]
    closed: Callable[[Element], None]
    unit: Callable[[Element], None]


def read_units(data: bytes, source: str, reading: Reading) -> None:
    """Read `data`; elements outside of containers are units. Raises `DefinitionError` where it is not to be trusted."""
    if len(data) > XML_LIMIT:
        raise _fault(source, 1, 1, f"the file is {len(data):,} bytes long; {XML_LIMIT:,} is the most that is read")
    _Reader(source, reading).read(data)


def _fault(source: str, line: int, column: int, message: str, hint: str = "") -> DefinitionError:
    return DefinitionError([Fault(source, line, column, "", message, hint)])


class _Reader:
    def __init__(self, source: str, reading: Reading) -> None:
        self.source, self.reading = source, reading
        self.containers: list[Element] = []
        self.unit: list[Element] = []
        self.count = self.inside = 0
        self.parser: Any = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.EntityDeclHandler = self.refused
        self.parser.UnparsedEntityDeclHandler = self.refused
        self.parser.ExternalEntityRefHandler = self.refused
        self.parser.SkippedEntityHandler = self.refused

    def read(self, data: bytes) -> None:
        try:
            for at in range(0, len(data), _CHUNK):
                self.parser.Parse(data[at : at + _CHUNK], False)
            self.parser.Parse(b"", True)
        except expat.ExpatError as error:
            line, column = error.lineno, error.offset + 1
            raise _fault(self.source, line, column, f"this is not XML: {expat.ErrorString(error.code)}") from None
        except (LookupError, ValueError) as error:
            raise _fault(self.source, 1, 1, f"the encoding is not known: {error}", "write it as UTF-8") from None

    def here(self, message: str, hint: str = "") -> DefinitionError:
        line, column = self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1
        return _fault(self.source, line, column, message, hint)

    def refused(self, *_: object) -> None:
        raise self.here("the file declares or uses entities, which are not read", "write the text itself")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if self.count > _MAX_ELEMENTS:
            raise self.here(f"the file has more than {_MAX_ELEMENTS:,} elements")
        if len(self.containers) + len(self.unit) >= _MAX_DEPTH:
            raise self.here(f"elements lie more than {_MAX_DEPTH} deep")
        plain = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        tag = name.rpartition(" ")[2]
        element = Element(tag, plain, self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1)
        if self.unit:
            self.inside += 1
            if self.inside > _MAX_IN_UNIT:
                raise self.here(f"the element {self.unit[0].tag!r} holds more than {_MAX_IN_UNIT:,} others")
            self.unit[-1].children.append(element)
            self.unit.append(element)
        elif tag in self.reading.containers:
            self.containers.append(element)
            self.reading.opened(element)
        else:
            self.inside = 0
            self.unit.append(element)

    def end(self, _: str) -> None:
        if self.unit:
            element = self.unit.pop()
            element.text = element.text.strip()
            if not self.unit:
                self.reading.unit(element)
        else:
            self.reading.closed(self.containers.pop())

    def characters(self, text: str) -> None:
        if self.unit:
            element = self.unit[-1]
            if len(element.text) < _MAX_TEXT:
                element.text += text[: _MAX_TEXT - len(element.text)]

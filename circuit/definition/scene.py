"""What the checks across a file look at: its canonical document, the names it declares, and what of it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circuit.definition.fault_text import suggestion
from circuit.definition.tree import PathTuple
from circuit.definition.validation import Report


@dataclass(slots=True)
class Scene:
    """The names come from the file itself, so that a name stays known where what it names is at fault.

    `sound` holds the colours whose schemas can be used.
    """

    report: Report
    plain: Mapping[str, Any]
    places: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    transitions: tuple[str, ...] = ()
    sound: set[str] = field(default_factory=set[str])

    @classmethod
    def of(cls, report: Report, plain: Mapping[str, Any]) -> Scene:
        """The scene of a file."""
        written = report.tree.root.value
        return cls(
            report,
            plain,
            places=_names(written.get("places")),
            agents=tuple(dict.fromkeys((*_names(written.get("agents")), *(plain.get("agents") or {})))),
            colours=_names(written.get("colours")),
            transitions=_names(written.get("transitions")),
        )

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the canonical document, empty where the file has none."""
        return self.plain.get(name) or {}

    @property
    def shared(self) -> set[str]:
        """The names of the shared places."""
        return {name for name, place in self.section("places").items() if place.get("shared")}

    def known(self, kind: str, name: str, path: PathTuple) -> bool:
        """Whether the file declares the place, agent, colour or transition `name`; if not, a fault at `path`."""
        names: tuple[str, ...] = getattr(self, f"{kind}s")
        if name in names:
            return True
        self.report.add(path, f"there is no {kind} {name!r}", suggestion(name, names, f"{kind}s"))
        return False


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        return tuple(str(name) for name in value)  # type: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return tuple(name for name in value if isinstance(name, str))  # type: ignore[reportUnknownVariableType]
    return ()

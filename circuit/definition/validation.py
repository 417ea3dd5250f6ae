"""Holds a file against the format and reports all that does not fit, then goes on with what does.

pydantic stops at what does not fit; the checks across the file need a whole document. So whatever is at fault is
cut out and the rest validated again, until it fits. What was cut is remembered: the later checks must not conclude
anything from its absence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from circuit.definition.document import Document
from circuit.definition.fault_text import describe
from circuit.definition.field import Part
from circuit.definition.shape import Spot, spot
from circuit.definition.tree import PathTuple, Tree, path_text
from circuit.errors import Fault

Form = TypeVar("Form", bound=Part)

MAX_ROUNDS = 25
_STAND_INS: dict[str, Any] = {
    "workflow": "unnamed",
    "places": {},
    "transitions": {},
    "llm_provider": {"type": "scripted"},
    "model": "unnamed",
    "base_url": "https://unnamed.invalid",
}
"""What stands in for a key that is missing, so that the rest of its mapping can be checked. Of these no later check
concludes anything; a mapping that lacks another key is cut out whole."""
_AT_KEY = ("extra_forbidden", "misplaced", "header", "several")
_SILENT = ("missing", "incomplete", "one_key")


@dataclass(slots=True)
class Report:
    """The faults of a file, and where things stand in it.

    Paths may be those of the canonical document; entries of lists that were cut out are accounted for.
    """

    tree: Tree
    source: str
    faults: list[Fault] = field(default_factory=list[Fault])
    cuts: list[PathTuple] = field(default_factory=list[PathTuple])

    def add(
        self, path: PathTuple, message: str, hint: str = "", *, key: bool = False, offset: int | None = None
    ) -> None:
        """A fault at `path`: at its key, or at the character `offset` of its text, where asked for."""
        written = self.written(path)
        if offset is None:
            line, column = self.tree.where(written, key=key)
        else:
            line, column = self.tree.inside(written, offset)
        found = Fault(self.source, line, column, path_text(written), message, hint)
        if found not in self.faults:
            self.faults.append(found)

    def written(self, path: PathTuple) -> PathTuple:
        """The path in the file of what stands at `path` in the document without its cuts."""
        result: list[str | int] = []
        for segment in path:
            if isinstance(segment, int):
                here = tuple(result)
                removed = sorted(cut[-1] for cut in self.cuts if cut[:-1] == here and isinstance(cut[-1], int))
                for index in removed:
                    if index <= segment:
                        segment += 1
            result.append(segment)
        return tuple(result)

    def intact(self, *path: str | int) -> bool:
        """Whether nothing was cut out at this path (of the file), above it or below it."""
        return not any(cut[: len(path)] == path[: len(cut)] for cut in self.cuts)


def validate(report: Report) -> Document | None:
    """The workflow that the file describes, as `fitted` says."""
    return fitted(report, Document)


def fitted(report: Report, form: type[Form]) -> Form | None:
    """The document of this form that the file describes, less what is at fault; all faults go into the report.

    None if nothing is left that could be one.
    """
    # Through JSON, so that what an alias shares is there as often as it is spelt.
    value: Any = json.loads(json.dumps(report.tree.root.value))
    for _ in range(MAX_ROUNDS):
        try:
            return form.model_validate(value)
        except ValidationError as error:
            errors: list[Any] = error.errors(include_url=False)
        except RecursionError:
            return None
        spots = [_spot(form, item) for item in errors]
        written = [report.written(found.path) for found in spots]
        for item, found, path in zip(errors, spots, written, strict=True):
            # What an earlier cut has left incomplete is no fault of the author.
            silent = item["type"] in _SILENT and any(cut[: len(path)] == path for cut in report.cuts)
            if not silent:
                _report(report, item, found, path)
        wrong = [(item["type"], found.path, path) for item, found, path in zip(errors, spots, written, strict=True)]
        if not _cut(report, value, wrong):
            return None
    return None


def _spot(form: type[Part], error: Any) -> Spot:
    found = spot(form, error["loc"])
    context = error.get("ctx") or {}
    extra: PathTuple = tuple(context.get("at", ()))
    if error["type"] == "unknown_type" and isinstance(error["input"], dict):
        extra = ("type",)
    # `_cut` removes the whole mapping then: what may stand beside the key depends on it.
    return Spot((*found.path, *extra), found.at_key, found.model, found.constraints) if extra else found


def _report(report: Report, error: Any, found: Spot, path: PathTuple) -> None:
    named = (
        Spot(found.path[:-1], False, None, ())
        if error["type"] == "unknown_type" and found.path[-1:] == ("type",)
        else found
    )
    message, hint = describe(error, named)
    at_key = found.at_key or error["type"] in _AT_KEY
    line, column = report.tree.where(path, key=at_key)
    entry = Fault(report.source, line, column, path_text(path), message, hint)
    if entry not in report.faults:
        report.faults.append(entry)


def _cut(report: Report, value: Any, wrong: list[tuple[str, PathTuple, PathTuple]]) -> bool:
    """Cut out of `value` what is wrong. Entries of lists go from the last on, so that the others keep their index."""
    order = sorted(wrong, key=lambda item: [_order(segment) for segment in item[1]], reverse=True)
    done = False
    for kind, path, written in order:
        if kind == "unknown_type" and path[-1:] == ("type",):
            path, written = path[:-1], written[:-1]
        stands_in = kind == "missing" and path[-1] in _STAND_INS
        if kind == "missing" and not stands_in:
            path, written = path[:-1], written[:-1]
        elif written in report.cuts and not stands_in:
            continue
        if not path:
            continue
        container = value
        for segment in path[:-1]:
            container = _entry(container, segment)
        last: Any = path[-1]
        if stands_in and isinstance(container, dict):
            container[last] = json.loads(json.dumps(_STAND_INS[str(last)]))
        elif (isinstance(container, dict) and last in container) or (
            isinstance(container, list) and isinstance(last, int) and last < len(container)  # type: ignore[reportUnknownArgumentType]
        ):
            del container[last]
        else:
            continue
        report.cuts.append(written)
        done = True
    return done


def _entry(container: Any, segment: str | int) -> Any:
    if isinstance(container, dict):
        return container.get(segment)  # type: ignore[reportUnknownMemberType]
    if isinstance(container, list) and isinstance(segment, int):
        return container[segment] if segment < len(container) else None  # type: ignore[reportUnknownArgumentType]
    return None


def _order(segment: str | int) -> tuple[int, int, str]:
    return (0, segment, "") if isinstance(segment, int) else (1, 0, segment)

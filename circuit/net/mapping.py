"""How data goes into an action and comes out of a firing: input mappings, merges, output mappings.

The data of a produced token is made in three steps: the data of the consumed tokens, merged; or, where the output
arc has `data:`, what its expressions give; then the entries of the output mapping, each written to every target or,
with the prefix `to.PLACE.`, to one. An arc with `each` makes a token of every element of a list: of the element itself,
where it has no `data:`, and no entry of the mapping is written to it but those that name its place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from circuit.errors import MappingError, MergeConflict
from circuit.expressions.cel import EvaluationFault, Expression, compile_expression
from circuit.expressions.path import MISSING, Path, assign
from circuit.expressions.value import is_list, is_object, kind, same
from circuit.net.marking import Token
from circuit.net.scope import ROOTS, ScopePath, scope_of
from circuit.net.selection import FAN_OUT
from circuit.net.structure import Merge, OutputArc, Transition
from circuit.value import dataclass, replace

if TYPE_CHECKING:
    from circuit.net.binding import Binding

MAX_DEPTH = 100
MOST_ELEMENTS = 10_000
"""Elements of a list of which one firing may make tokens."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """What an entry does where its source is missing: with neither field it is an error."""

    optional: bool = False
    default: Any = MISSING

    @property
    def fails(self) -> bool:
        return self.default is MISSING and not self.optional


@dataclass(frozen=True, slots=True)
class InputEntry:
    name: str
    source: ScopePath
    fallback: Fallback


@dataclass(frozen=True, slots=True)
class InputMapping:
    """Which inputs an action gets: `{agent_input: token_path}`. Empty counts as no mapping."""

    entries: tuple[InputEntry, ...]

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> InputMapping:
        """The mapping that a mapping as in the workflow file spells. Raises `ValueError`."""
        entries: list[InputEntry] = []
        for name, source in value.items():
            text, fallback = _source(name, source)
            entries.append(InputEntry(str(name), ScopePath.parse(text), fallback))
        return cls(tuple(entries))

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that it makes."""
        return tuple(entry.name for entry in self.entries)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that it reads."""
        return tuple(entry.source.text for entry in self.entries)


@dataclass(frozen=True, slots=True)
class OutputEntry:
    """`place` is None for an entry that is written to every target; `metadata` says into which half of a token."""

    target: str
    place: str | None
    metadata: bool
    path: Path
    source: Path
    fallback: Fallback


@dataclass(frozen=True, slots=True)
class OutputMapping:
    """What of an action's outputs goes where: `{token_path: agent_output}`. Empty counts as no mapping."""

    entries: tuple[OutputEntry, ...]

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> OutputMapping:
        """The mapping that a mapping as in the workflow file spells. Raises `ValueError`."""
        return cls(tuple(_output_entry(str(target), source) for target, source in value.items()))

    def led(self, elsewhere: Mapping[str, str]) -> OutputMapping:
        """The mapping where arcs to some places lead to others."""
        if not elsewhere:
            return self
        places = (None if entry.place is None else elsewhere.get(entry.place, entry.place) for entry in self.entries)
        return OutputMapping(
            tuple(replace(entry, place=place) for entry, place in zip(self.entries, places, strict=True))
        )

    @property
    def places(self) -> tuple[str, ...]:
        """The places that it names by `to.PLACE.`."""
        return tuple(dict.fromkeys(entry.place for entry in self.entries if entry.place is not None))

    @property
    def sources(self) -> tuple[str, ...]:
        """The outputs that it reads, as dotted paths."""
        return tuple(str(entry.source) for entry in self.entries)


@dataclass(frozen=True, slots=True)
class OutputData:
    """The `data:` of an output arc: one expression for each key of the produced token's data."""

    entries: tuple[tuple[str, Expression], ...]

    @classmethod
    def parse(cls, value: Mapping[str, Any], variables: Sequence[str]) -> OutputData:
        """Compiles the expressions over these variables. Raises `ValueError` (`ExpressionFault`)."""
        for key, source in value.items():
            if not isinstance(source, str):
                raise ValueError(f"data.{key} must be a CEL expression in quotes, not {source!r}")
        return cls(tuple((str(key), compile_expression(source, variables)) for key, source in value.items()))

    def evaluate(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """The data in this scope. Raises `MappingError`."""
        data: dict[str, Any] = {}
        for key, expression in self.entries:
            try:
                data[key] = expression.evaluate(scope)
            except EvaluationFault as fault:
                raise MappingError(f"data.{key}: {fault}") from None
        return data


@dataclass(frozen=True, slots=True)
class Draft:
    """A token that a firing is about to produce: it has no number yet."""

    place: str
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]


def map_inputs(
    mapping: InputMapping | None, scope: Mapping[str, Any], *, merged: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The inputs of an action. Raises `MappingError` for a path that leads nowhere.

    Without a mapping they are the data of the consumed token, or where there are several, `merged`: what
    `merge_inputs` makes of them.
    """
    if mapping is None or not mapping.entries:
        return dict(scope.get("data") or merged or {})
    inputs: dict[str, Any] = {}
    for entry in mapping.entries:
        value = entry.source.get(scope)
        if value is MISSING:
            if entry.fallback.fails:
                raise MappingError(
                    f"input {entry.name}: {entry.source.absence(scope)}; mark it `optional` or give a `default`"
                )
            value = entry.fallback.default
        if value is not MISSING:
            inputs[entry.name] = value
    return inputs


def merge_inputs(tokens: Sequence[Token], merge: Merge) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The data and the metadata of these tokens, merged. Raises `MergeConflict`."""
    return _merged(tokens, merge, "data"), _merged(tokens, merge, "metadata")


def produce(
    transition: Transition,
    binding: Binding,
    outputs: Mapping[str, Any],
    case: Mapping[str, Any],
    *,
    mapped: bool = True,
) -> list[Draft]:
    """The tokens that a firing produces, in the order of its output arcs, each as often as the arc's weight says; last
    the record of what it did, where it keeps one.

    Without `mapped` the output mapping is left out, for a firing that goes on without its action's outputs: it has done
    nothing that could be undone, and no record is kept. Raises `MappingError` or `MergeConflict`.
    """
    drafts = _produced(transition, binding, outputs, case, mapped=mapped)
    if transition.record is not None and mapped:
        drafts.append(_record(transition, transition.record, binding.consumed, drafts))
    return drafts


def _produced(
    transition: Transition, binding: Binding, outputs: Mapping[str, Any], case: Mapping[str, Any], *, mapped: bool
) -> list[Draft]:
    consumed, arcs = binding.consumed, transition.makes
    if len(consumed) == 1 and not transition.lists:
        data, metadata = consumed[0].data, consumed[0].metadata
    else:
        # Where every target computes its data, there is nothing to merge but metadata.
        wanted = any(arc.data is None and arc.each is None for arc in arcs)
        data: Mapping[str, Any] = _merged(consumed, transition.merge, "data") if wanted else {}
        metadata = _merged(_ungrouped(transition, consumed), transition.merge, "metadata")
    mapping = transition.output_mapping if mapped else None
    entries = _resolved(mapping, outputs) if mapping is not None and mapping.entries else ()
    computed = any(arc.data is not None or arc.each is not None for arc in arcs)
    scope = scope_of(consumed, binding.read, case, ROOTS, transition.lists) if computed else {}
    if computed:
        scope |= {"output": outputs, **{name: outputs.get(name) or {} for name in ("form", "message")}}
    if transition.fans_out:
        return _fanned(transition, binding, scope, data, metadata, entries)
    drafts: list[Draft] = []
    for arc in arcs:
        own = data if arc.data is None else arc.data.evaluate(scope)
        draft = _written(arc, own, metadata, entries)
        if arc.weight == 1:
            drafts.append(draft)
        else:
            drafts.extend([draft] * arc.weight)
    return drafts


def _fanned(
    transition: Transition,
    binding: Binding,
    scope: Mapping[str, Any],
    data: Mapping[str, Any],
    metadata: Mapping[str, Any],
    entries: Sequence[tuple[OutputEntry, Any]],
) -> list[Draft]:
    """The tokens of a transition that makes one of each element of a list. All of them are marked as a group."""
    lists = [None if arc.each is None else _elements(transition, arc, scope) for arc in transition.makes]
    size = next(len(found) for found in lists if found is not None)
    if not size and all(found is not None for found in lists):
        raise MappingError(
            f"{transition.label}: the list has no element, so that nothing would be left of what it takes; "
            "give it another target beside the one with `each`"
        )
    first = next(iter(binding.consumed), None)
    group = {"id": "0" if first is None else f"{first.number}.{first.version}", "size": size}
    marks: Mapping[str, Any] = metadata.get(FAN_OUT) or {}
    drafts: list[Draft] = []
    for arc, elements in zip(transition.makes, lists, strict=True):
        if elements is None:
            own = data if arc.data is None else arc.data.evaluate(scope)
            marked = {**metadata, FAN_OUT: {**marks, transition.label: group}}
            drafts += [_written(arc, own, marked, entries)] * arc.weight
            continue
        named = [entry for entry in entries if entry[0].place is not None]
        for index, element in enumerate(elements):
            if arc.data is not None:
                own = arc.data.evaluate({**scope, "item": element, "index": index})
            else:
                own = element if is_object(element) else {"item": element}
            marked = {**metadata, FAN_OUT: {**marks, transition.label: {**group, "index": index}}}
            drafts.append(_written(arc, own, marked, named))
    return drafts


def _record(transition: Transition, place: str, consumed: Sequence[Token], drafts: Sequence[Draft]) -> Draft:
    """What tells of a firing: the data of what it consumed and of what it produced, by places; a list where there are
    several of one place, or how many there are shows only when it fires."""
    lists = transition.lists | {arc.place for arc in transition.makes if arc.each is not None}
    data = {"consumed": _by_place(consumed, lists), "produced": _by_place(drafts, lists)}
    return Draft(place, data, {"undoes": transition.label})


def _by_place(tokens: Sequence[Token | Draft], lists: Collection[str]) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    for token in tokens:
        found.setdefault(token.place, []).append(token.data)
    return {place: data[0] if len(data) == 1 and place not in lists else data for place, data in found.items()}


def _elements(transition: Transition, arc: OutputArc, scope: Mapping[str, Any]) -> list[Any]:
    assert arc.each is not None
    try:
        found = arc.each.evaluate(scope)
    except EvaluationFault as fault:
        raise MappingError(f"{transition.label}: each: {fault}") from None
    if not is_list(found):
        raise MappingError(f"{transition.label}: each: {arc.each.source} gives {kind(found)}, not a list")
    most = MOST_ELEMENTS if arc.most is None else arc.most
    if len(found) > most:
        raise MappingError(
            f"{transition.label}: each: {arc.each.source} has {len(found)} elements; at most {most}"
            + (" (`most` says so)" if most < MOST_ELEMENTS else ": make several lists of it")
        )
    return found


def _ungrouped(transition: Transition, tokens: Sequence[Token]) -> Sequence[Token]:
    """The tokens without the marks of the groups that the transition gathers: what comes out belongs to none."""
    over = {arc.gather for arc in transition.consumes if arc.gather is not None}
    if not over:
        return tokens
    found: list[Token] = []
    for token in tokens:
        marks = {name: mark for name, mark in (token.metadata.get(FAN_OUT) or {}).items() if name not in over}
        rest = {name: value for name, value in token.metadata.items() if name != FAN_OUT}
        found.append(replace(token, metadata={**rest, FAN_OUT: marks} if marks else rest))
    return found


def _resolved(mapping: OutputMapping, outputs: Mapping[str, Any]) -> list[tuple[OutputEntry, Any]]:
    """The entries with the values that their sources have; entries without one, where that is allowed, are left out."""
    found: list[tuple[OutputEntry, Any]] = []
    for entry in mapping.entries:
        value = entry.source.get(outputs)
        if value is MISSING:
            if entry.fallback.fails:
                raise MappingError(
                    f"output_mapping {entry.target}: there is no output {entry.source}; "
                    f"mark it `optional` or give a `default`"
                )
            value = entry.fallback.default
        if value is not MISSING:
            found.append((entry, value))
    return found


def _written(
    arc: OutputArc, data: Mapping[str, Any], metadata: Mapping[str, Any], entries: Sequence[tuple[OutputEntry, Any]]
) -> Draft:
    for entry, value in entries:
        if entry.place is not None and entry.place != arc.place:
            continue
        try:
            if entry.metadata:
                metadata = assign(metadata, entry.path, value)
            else:
                data = assign(data, entry.path, value)
        except ValueError as error:
            raise MappingError(f"output_mapping {entry.target}: {error}") from None
    return Draft(arc.place, data, metadata)


def _merged(tokens: Sequence[Token], merge: Merge, half: str) -> Mapping[str, Any]:
    merged: dict[str, Any] = {}
    givers: dict[str, list[Token]] = {}
    for token in tokens:
        values: Mapping[str, Any] = getattr(token, half)
        for key, value in values.items():
            known = givers.setdefault(key, [])
            if known and merge is Merge.REFUSE and not same(merged[key], value):
                raise MergeConflict(_conflict(half, key, known[0], token))
            merged[key] = _deep(merged[key], value) if known and merge is Merge.DEEP else value
            known.append(token)
    if merge is Merge.LIST:
        for key, known in givers.items():
            values_of = [getattr(token, half)[key] for token in known]
            if any(not same(values_of[0], value) for value in values_of[1:]):
                merged[key] = values_of
    return merged


def _deep(left: Any, right: Any, depth: int = 1) -> Any:
    if not (is_object(left) and is_object(right)):
        return right
    if depth > MAX_DEPTH:
        raise MergeConflict(f"objects nested deeper than {MAX_DEPTH} levels cannot be merged")
    merged: dict[str, Any] = dict(left)
    for key, value in right.items():
        merged[key] = _deep(merged[key], value, depth + 1) if key in merged else value
    return merged


def _conflict(half: str, key: str, first: Token, second: Token) -> str:
    places = f"in {first.place}" if first.place == second.place else f"of {first.place} and {second.place}"
    advice = "give `merge: last`, `deep` or `list`" + (", or `data:` on the target" if half == "data" else "")
    return f"tokens {first.number} and {second.number} {places} have different values of {half}.{key}; {advice}"


def _source(name: object, value: object) -> tuple[Any, Fallback]:
    """The path of a mapping's value, and what to do where it leads nowhere."""
    if isinstance(value, str):
        return value, Fallback()
    if not is_object(value) or "path" not in value or not set(value) <= {"path", "optional", "default"}:
        raise ValueError(f"{name} must be a path, or a mapping of path, optional and default")
    optional = value.get("optional", False)
    if not isinstance(optional, bool):
        raise ValueError(f"{name}: optional must be true or false")
    return value["path"], Fallback(optional, value.get("default", MISSING))


def _output_entry(target: str, value: object) -> OutputEntry:
    text, fallback = _source(target, value)
    if not isinstance(text, str):
        raise ValueError(f"{target} must name an output, not {text!r}")
    segments = list(Path.parse(target).segments)
    place: str | None = None
    if segments[0] == "to" and len(segments) > 2:
        place, segments = segments[1], segments[2:]
    if segments[0] not in ("data", "metadata") or len(segments) < 2:
        raise ValueError(f"{target} must begin with data., metadata., to.PLACE.data. or to.PLACE.metadata.")
    return OutputEntry(target, place, segments[0] == "metadata", Path(tuple(segments[1:])), Path.parse(text), fallback)

"""Finds the way from an error of pydantic to the place in the file and to the model that was meant there."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from circuit.definition.tree import PathTuple


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an error lies: its path in the file, whether it speaks of the key, the kind of mapping that it is a key
    of, and the constraints on what stands there."""

    path: PathTuple
    at_key: bool
    model: type[BaseModel] | None
    constraints: tuple[Any, ...]


def spot(root: type[BaseModel], location: Sequence[str | int]) -> Spot:
    """What an error's location means: tags of unions are left out, and the types followed."""
    annotation: Any = root
    constraints: tuple[Any, ...] = ()
    path: list[str | int] = []
    at_key = False
    parent: type[BaseModel] | None = None
    for element in location:
        core, found = _unwrap(annotation)
        constraints = found
        branch = _branch(core, element)
        if branch is not None:
            annotation = branch
            continue
        if element == "[key]" and path:
            at_key = True
            continue
        path.append(element)
        annotation, constraints, parent = _below(core, element)
    _, found = _unwrap(annotation)
    return Spot(tuple(path), at_key, parent, (*constraints, *found))


def _below(core: Any, element: str | int) -> tuple[Any, tuple[Any, ...], type[BaseModel] | None]:
    if isinstance(core, type) and issubclass(core, BaseModel):
        for name, info in core.model_fields.items():
            if (info.alias or name) == element:
                return info.annotation, tuple(info.metadata), core
        return None, (), core
    arguments = get_args(core)
    if get_origin(core) in (dict, list) and arguments:
        return arguments[-1], (), None
    return None, (), None


def _branch(core: Any, element: str | int) -> Any:
    if get_origin(core) not in (Union, types.UnionType):
        return None
    for member in get_args(core):
        if get_origin(member) is Annotated:
            _, metadata = _unwrap(member)
            if any(isinstance(mark, Tag) and mark.tag == element for mark in metadata):
                return member
    return None


def _unwrap(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The annotation without `Annotated` and `| None`, and what stood in `Annotated`."""
    metadata: list[Any] = []
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *marks = get_args(annotation)
            for mark in marks:
                metadata.extend(mark.metadata if isinstance(mark, FieldInfo) else [mark])
        elif origin in (Union, types.UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            if len(members) != 1:
                return annotation, tuple(metadata)
            annotation = members[0]
        else:
            return annotation, tuple(metadata)


def known_keys(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys that a mapping of this kind may have."""
    return tuple(info.alias or name for name, info in model.model_fields.items())

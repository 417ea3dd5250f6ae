"""Workflow files: reading them, checking them, compiling them.

The public names are looked up when they are first used: whoever only needs `circuit.definition.workflow` loads no
YAML and no pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuit.definition.compiler import compile_document
    from circuit.definition.loading import Loaded, load, load_workflow
    from circuit.definition.model_choice import model_overrides, parse_model_override
    from circuit.definition.schema import fragment_schema, json_schema
    from circuit.definition.versions import content_hash

__all__ = [
    "Loaded",
    "compile_document",
    "content_hash",
    "fragment_schema",
    "json_schema",
    "load",
    "load_workflow",
    "model_overrides",
    "parse_model_override",
]

_HOMES = {
    "Loaded": "loading",
    "compile_document": "compiler",
    "content_hash": "versions",
    "fragment_schema": "schema",
    "json_schema": "schema",
    "load": "loading",
    "load_workflow": "loading",
    "model_overrides": "model_choice",
    "parse_model_override": "model_choice",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'circuit.definition' has no attribute {name!r}")
    return getattr(import_module(f"circuit.definition.{home}"), name)

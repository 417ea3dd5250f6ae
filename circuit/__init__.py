"""Circuit: a workflow engine whose workflows are Petri nets in Postgres and whose transitions can be agents.

The public names are looked up when they are first used, so that importing a pure part (`circuit.net`, say)
imports no database and no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuit.actions.context import BlockingContext, Context
    from circuit.actions.functions import action
    from circuit.app import Circuit
    from circuit.errors import CircuitError

__version__ = "0.1.0"
__all__ = ["BlockingContext", "Circuit", "CircuitError", "Context", "__version__", "action"]

_HOMES = {
    "BlockingContext": "circuit.actions.context",
    "Circuit": "circuit.app",
    "CircuitError": "circuit.errors",
    "Context": "circuit.actions.context",
    "action": "circuit.actions.functions",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'circuit' has no attribute {name!r}")
    return getattr(import_module(home), name)

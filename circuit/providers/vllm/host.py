"""The program of a model's process: `python -m circuit.providers.vllm.host SOCKET`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from circuit.providers.vllm.child import run


def quickest() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop that vLLM's own server runs on, and brings along; None: it is Python's own."""
    try:
        import uvloop  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    made: Any = uvloop  # pyright: ignore[reportUnknownVariableType]
    return made.new_event_loop


def main() -> int:
    # Here and not above: the engine's own processes import this module too.
    from circuit.providers.vllm.engine import VllmEngine

    return run(VllmEngine.open, sys.argv[1:], quickest())


if __name__ == "__main__":
    sys.exit(main())

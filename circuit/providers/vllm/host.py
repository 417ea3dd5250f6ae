"""The program of a model's process: `python -m circuit.providers.vllm.host SOCKET`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

from circuit.providers.vllm.child import run
from circuit.providers.vllm.port import Engine


def quickest() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop that vLLM's own server runs on, and brings along; None: it is Python's own."""
    try:
        import uvloop  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    made: Any = uvloop  # pyright: ignore[reportUnknownVariableType]
    return made.new_event_loop


async def opened(load: Mapping[str, Any]) -> Engine:
    """vLLM's engine with the model that `load` names."""
    # Here and not above: it takes long, and the engine's own processes import this module too.
    from circuit.providers.vllm.engine import VllmEngine

    return await VllmEngine.open(load)


def main() -> int:
    return run(opened, sys.argv[1:], quickest())


if __name__ == "__main__":
    sys.exit(main())

"""The program of a model's process: `python -m circuit.providers.vllm.host SOCKET`."""

from __future__ import annotations

import sys

from circuit.providers.vllm.child import run


def main() -> int:
    # Here and not above: the engine's own processes import this module too.
    from circuit.providers.vllm.engine import VllmEngine

    return run(VllmEngine.open, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

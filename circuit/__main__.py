"""`python -m circuit` is the command `circuit`."""

from __future__ import annotations

import sys

from circuit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

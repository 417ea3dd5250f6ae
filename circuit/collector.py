"""How often Python looks for cycles of garbage in a process that has a worker, or serves, or is that of a model.

Python looks after every 700 new containers, which is what a handful of firings makes, and each of these looks goes
through what is young, and now and then through every case in memory. It is a third of the CPU of a busy worker, and
finds next to nothing: what a firing makes is freed by its reference counts. So is what a request makes, and a third of
what it costs a server to take a reader is these looks, too; and in the process of a model they went through all that
an engine has imported, for half of its CPU.
"""

from __future__ import annotations

import gc

YOUNG = 50_000
"""New containers after which Python looks: some 10 MB, should all of them be in cycles."""


def relax() -> None:
    """Look only after `YOUNG` new containers; a process that chose to look less often, or never, keeps its choice."""
    young, middle, old = gc.get_threshold()
    if 0 < young < YOUNG:
        gc.set_threshold(YOUNG, middle, old)


def keep() -> None:
    """Never look through what there is by now: it stays as long as the process."""
    gc.collect()
    gc.freeze()

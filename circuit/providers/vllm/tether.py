"""How the processes of a model stand to Circuit: none outlives it, and all let it go first.

That one ends its whole group as soon as Circuit is gone (`child.watch`), and Circuit ends the group as soon as that one
is gone. For the case that both are killed at once each of the engine's own processes asks the kernel for SIGKILL when
its parent is no more (`PR_SET_PDEATHSIG`): vLLM calls `hold` in all of them, as a plugin.

Where processors are short, Circuit and its database go first, and what forwards answers before what computes them: they
cost little beside an engine, and what they give it fills its batch, while an engine with a batch of one is as busy as
with a full one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

import psutil

HOST = "circuit.providers.vllm.host"
"""The module that is the program of a model's process, which leads a group of its own."""
NICENESS = 10
_PR_SET_PDEATHSIG = 1


def hold() -> None:
    """End with the parent, and let Circuit and the process of the model go first. This does nothing in a process of
    vLLM that is not one of Circuit's, in that of the model itself, and where the kernel is not Linux."""
    if sys.platform != "linux" or not _ours():
        return
    nice = os.getpriority(os.PRIO_PROCESS, os.getpgrp()) + NICENESS
    os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # It may have ended before the kernel was told.
    if os.getppid() == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def _ours() -> bool:
    """Whether this is a process that the process of a model has started."""
    leader = os.getpgrp()
    if leader == os.getpid():
        return False
    with contextlib.suppress(psutil.Error):
        return HOST in psutil.Process(leader).cmdline()
    return False

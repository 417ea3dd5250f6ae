"""How a command runs what is asynchronous: one event loop, a clean end on SIGINT and SIGTERM, in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from circuit.cli.terminal import Terminal
from circuit.settings import Settings

if TYPE_CHECKING:
    from circuit.app import Circuit

GRACE_SECONDS = 10.0
"""How long a command may take to end after it was asked to, beside twice what running executions get; then the process
ends as it is."""

SIGNALLED = 128
"""Exit codes of commands that a signal ended lie above this one, by the number of the signal."""

_LOG_HANDLER = "circuit-cli"
_interruptible: list[asyncio.Task[Any]] = []


def run_session(body: Callable[[], Coroutine[Any, Any, int]], settings: Settings) -> int:
    """Run `body` to its end and give its exit code. Raises `typer.Exit` with a shell's code (128 and
    the signal) if a signal ended it.

    The first signal cancels `body`, which closes what it has open; a second one, or too long a time (`GRACE_SECONDS`),
    ends the process at once. Nothing committed is lost by that: another process takes over what this one held.
    """
    configure_logging(settings)
    caught: list[int] = []

    async def session() -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()

        def stop(number: int) -> None:
            if number == signal.SIGINT and _interruptible and not caught and not _interruptible[-1].cancelling():
                _interruptible[-1].cancel()
                return
            if caught:
                os._exit(SIGNALLED + number)
            caught.append(number)
            timer = threading.Timer(GRACE_SECONDS + 2 * settings.stop_seconds, os._exit, (SIGNALLED + number,))
            timer.daemon = True
            timer.start()
            if task is not None:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            # Signals reach only the main thread, and some platforms give loops none at all.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, stop, number)
        return await body()

    try:
        return asyncio.run(session())
    except asyncio.CancelledError:
        if caught:
            raise typer.Exit(SIGNALLED + caught[0]) from None
        raise


@contextlib.contextmanager
def interruptible(task: asyncio.Task[Any]) -> Generator[None]:
    """Within the block the first Ctrl-C cancels `task` alone, and not the command; a second one ends that."""
    _interruptible.append(task)
    try:
        yield
    finally:
        _interruptible.remove(task)


def with_circuit(
    body: Callable[[Circuit, Terminal], Awaitable[int]], *, as_json: bool, only: Sequence[str] | None = None
) -> int:
    """Run `body` on an open Circuit, with a worker for the cases in `only`, or without one."""
    terminal = Terminal(json=as_json)
    settings = Settings.from_environment()

    async def session() -> int:
        from circuit.app import Circuit

        async with Circuit.open(
            settings=settings, worker=only is not None, only=only, progress=terminal.note
        ) as circuit:
            return await body(circuit, terminal)

    return run_session(session, settings)


def configure_logging(settings: Settings) -> None:
    """Logs go to standard error, redacted, at the level of the settings; those of the library that sends traces
    and figures too. Warnings of others, which Python writes there by itself, are redacted as well."""
    from circuit.observability.logs import AboutFilter, AwayFilter, JSONFormatter, RedactingFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(_LOG_HANDLER)
    handler.addFilter(AwayFilter())
    inner = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.log_format == "json":
        handler.addFilter(AboutFilter())
        inner = JSONFormatter()
    handler.setFormatter(RedactingFormatter(inner, settings.redactor, settings.secrets))
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(RedactingFormatter(logging.Formatter(), settings.redactor, settings.secrets))
    for name in ("circuit", "opentelemetry"):
        logger = logging.getLogger(name)
        for old in [old for old in logger.handlers if old.get_name() == _LOG_HANDLER]:
            logger.removeHandler(old)
        if name == "circuit" or settings.tracing or settings.metrics:
            logger.addHandler(handler)
            logger.setLevel(settings.log_level.upper())

"""The process's HTTP server: uvicorn, told when to begin and how to end.

Streams end at once when the server stops, with a word that readers should come back; other requests have
`GRACE_SECONDS` to finish, and are told then that the answer does not come.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Generator
from typing import cast

import uvicorn

from circuit import collector
from circuit.api.application import LARGEST_BODY, Application
from circuit.api.exposure import names_this_machine
from circuit.api.readers import GRACE_SECONDS, Readers
from circuit.errors import Conflict, InvalidRequest

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 4000
BACKLOG = 1024
STUCK_SECONDS = 0.5
"""How long a client that does not read may keep the server from stopping."""
PING_SECONDS = 20.0


class Server(uvicorn.Server):
    """Leaves signals to whoever runs it, and ends streams before it waits for connections."""

    def __init__(self, config: uvicorn.Config, readers: Readers, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._readers = readers
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._readers.drain()
        cutting = asyncio.get_running_loop().call_later(STUCK_SECONDS, self._cut_stuck)
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()

    def _cut_stuck(self) -> None:
        for connection in list(self.server_state.connections):
            transport = cast("asyncio.Transport | None", getattr(connection, "transport", None))
            if transport is not None and transport.get_write_buffer_size():
                transport.abort()


async def serve(
    application: Application,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    sock: socket.socket | None = None,
    *,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve `application` until the task is cancelled, on `sock` or on a port of `host` (0: any that is free).

    `ready` hears the URL when requests are taken. Raises `Conflict` if the port is in use and `InvalidRequest` if it
    cannot be had for another reason.
    """
    collector.relax()
    listening = sock or listen(host, port)
    address, bound = listening.getsockname()[:2]
    url = f"http://{f'[{address}]' if ':' in address else address}:{bound}"
    application.state.exposure.local = names_this_machine(f"[{address}]" if ":" in address else address)
    config = uvicorn.Config(
        application,
        ws="websockets-sansio",
        ws_max_size=LARGEST_BODY,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(config, application.state.readers, lambda: ready(url) if ready is not None else None)
    serving = asyncio.create_task(server.serve([listening]), name="circuit-server")
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `port` of `host`. Raises as `serve` does."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise InvalidRequest(f"{host!r} is no address to listen on: {error}") from None
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"port {port} of {host} is in use: stop what listens there, or choose another port (0 takes a free one)"
            ) from None
        raise InvalidRequest(f"cannot listen on port {port} of {host}: {error.strerror}") from None
    listening.setblocking(False)
    return listening

"""The client side of the fan-out benchmark: as many sockets as asked for, which are read and thrown away.

`python -m benchmarks.stream_readers PORT READERS PROTOCOL [at-once]` says when it begins to connect, and prints, when
every reader has seen its stream end, the bytes that each of them got; they must all be the same number.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys

from benchmarks.stream_server import EXECUTION

PATH = f"/agent-stream/{EXECUTION}"
QUERY = """subscription S($id: String!) { agentExecutionStream(executionId: $id) {
  executionId eventType content status toolName error sequence timestamp } }"""
COMPLETED = b'"completed"'
PING = b"\x89\x04"
"""The head of the server's ping; nothing else that it sends holds these bytes."""


def _masked(payload: bytes) -> bytes:
    """A text frame of a client, masked with zeros."""
    length = len(payload)
    head = bytes([0x81, 0x80 | length]) if length < 126 else bytes([0x81, 0xFE]) + length.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


def _upgrade(path: str, protocol: str = "") -> bytes:
    key = base64.b64encode(b"0123456789abcdef").decode()
    wanted = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{wanted}\r\n"
    ).encode()


class Reading(asyncio.Protocol):
    """Reads until it has seen the terminal event."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.bytes = 0
        self.last = b""
        self.asked = False
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.protocol == "sse":
            transport.write(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        elif self.protocol == "websocket":
            transport.write(_upgrade(PATH))
        else:
            transport.write(_upgrade("/graphql", "graphql-transport-ws"))

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        seen = self.last + data
        if self.protocol == "graphql" and not self.asked:
            if b"connection_ack" in data:
                self.asked = True
                payload = {"query": QUERY, "variables": {"id": str(EXECUTION)}}
                subscribe = {"id": "1", "type": "subscribe", "payload": payload}
                self.transport.write(_masked(json.dumps(subscribe).encode()))
            elif b" 101 " in data:
                self.transport.write(_masked(b'{"type":"connection_init"}'))
        if PING in data and self.protocol != "sse":
            start = data.index(PING) + len(PING)
            self.transport.write(b"\x8a\x84\0\0\0\0" + data[start : start + 4])
        if COMPLETED in seen and not self.done.done():
            self.done.set_result(self.bytes)
        self.last = seen[-32:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the stream ended early: {exc}"))


async def main() -> None:
    port, readers, protocol = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    loop = asyncio.get_running_loop()

    async def connected() -> Reading:
        return (await loop.create_connection(lambda: Reading(protocol), "127.0.0.1", port))[1]

    print("connecting", flush=True)
    if "at-once" in sys.argv[4:]:
        reading = await asyncio.gather(*(connected() for _ in range(readers)))
    else:
        reading = [await connected() for _ in range(readers)]
    print(json.dumps(sorted({await one.done for one in reading})), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

"""Fetching over HTTP for agents: named hosts only, and no way to private addresses.

The address that is looked at is the one that is connected to: the name is resolved once, every address that it has must
be public, and the connection goes to one of those. A redirect is followed only to a named host, and looked at as the
first address was.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from email.message import Message
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urljoin, urlsplit

from pydantic import Field

from circuit.agents.function import function_tool
from circuit.agents.tools import DEFAULT_SECONDS, Tool
from circuit.egress import is_public
from circuit.errors import ToolDenied, ToolFailed, ToolOutputBinary
from circuit.value import dataclass

if TYPE_CHECKING:
    from circuit.http import Http

NAME = "http.fetch"
MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
DEFAULT_LIMIT = 200_000
_NO_TEXT = ("image", "audio", "video", "font", "application/pdf", "application/zip", "application/gzip",
            "application/octet-stream")  # fmt: skip
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Gate:
    """Which servers may be reached. `allow` are patterns of host names; `private` says that the named hosts may lie in
    private networks."""

    allow: tuple[str, ...]
    private: bool = False

    async def address(self, url: str, resolve: Resolve) -> tuple[str, int, str]:
        """Host, port and the address to connect to. Raises `ToolDenied`, `ToolFailed`."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower().rstrip("."), parts.port
        except ValueError:
            raise ToolDenied("this is not an address of a server") from None
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
            raise ToolDenied("only http:// and https:// addresses without a name or a password may be fetched")
        if not any(fnmatchcase(host, pattern.lower()) for pattern in self.allow):
            raise ToolDenied(f"the host {host} is not among those that may be reached: {', '.join(self.allow)}")
        port = port or (443 if parts.scheme == "https" else 80)
        try:
            found = await resolve(host, port)
        except OSError as error:
            raise ToolFailed(f"the host {host} is not known: {error.strerror or error}") from None
        for one in found:
            if not self.private and not public(one):
                raise ToolDenied(f"the host {host} has the private address {one}, which is not reached")
        if not found:
            raise ToolFailed(f"the host {host} has no address")
        return host, port, found[0]


def public(address: str) -> bool:
    """Whether `address` is one of the public internet; what is no address is none of it."""
    try:
        return is_public(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return False


async def resolved(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the system knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def fetch_tool(
    http: Http,
    gate: Gate,
    limit: int = DEFAULT_LIMIT,
    resolve: Resolve = resolved,
    seconds: float = DEFAULT_SECONDS,
) -> Tool:
    """A tool that fetches from the servers that `gate` lets through."""

    async def fetch(
        url: Annotated[str, Field(max_length=4_000, description="An address that begins with https:// or http://.")],
    ) -> dict[str, Any]:
        """Fetch a page or a file over HTTP (GET). Gives back the status, the type of the content and its text."""
        for _ in range(MOST_REDIRECTS):
            _, _, address = await gate.address(url, resolve)
            answer = await http.fetch("GET", url, address=address, limit=limit, seconds=seconds)
            target = answer.headers.get("location")
            if answer.status in REDIRECTS and target:
                url = urljoin(url, target)
                continue
            kind = answer.headers.get("content-type", "")
            return {
                "url": url,
                "status": answer.status,
                "content_type": kind,
                "text": text_of(answer.body, kind),
                **({"truncated": True} if answer.truncated else {}),
            }
        raise ToolFailed(f"{MOST_REDIRECTS} redirects, and no end")

    return function_tool(NAME, fetch, seconds=seconds)


def text_of(body: bytes, kind: str) -> str:
    """The body as text, in the encoding that its type names. Raises `ToolOutputBinary` for what is none."""
    message = Message()
    message["content-type"] = kind or "text/plain"
    try:
        text = body.decode(str(message.get_content_charset("utf-8")), "strict")
    except (ValueError, LookupError):
        text = ""
    if not text and body:
        # Cut in the middle of a character, or said to be what it is not: what is text may be read all the same.
        if message.get_content_maintype() in _NO_TEXT or message.get_content_type() in _NO_TEXT:
            raise ToolOutputBinary(f"what lies there is no text ({kind})")
        text = body.decode("utf-8", "replace")
    if "\0" in text[:4096]:
        raise ToolOutputBinary(f"what lies there is no text ({kind or 'of an unknown type'})")
    return text

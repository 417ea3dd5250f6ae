"""Which servers an action may call: those on a list, and of these none with a private address unless that is allowed.

A name says nothing about where a connection goes: who owns it may let it point to the metadata service of the cloud,
or to another address at the second look. So the name is looked up once, every address that it has is judged, and the
connection goes to one of the addresses that were judged.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from circuit.errors import HostRefused, ProviderUnavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes: `address` is the judged address of `host`."""

    scheme: str
    host: str
    port: int
    address: str


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses of `host`, as the system finds them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Egress:
    """`hosts` are names (`api.example.com`), all below a name (`*.example.com`), `*`, each perhaps with `:PORT`.

    With `private`, hosts that are named on the list (not by `*` alone) may have private addresses.
    """

    def __init__(self, hosts: Sequence[str] = (), *, private: bool = False, lookup: Lookup = look_up) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._private = private
        self._lookup = lookup

    async def judge(self, url: str) -> Destination:
        """Where a request for `url` may go. Raises `HostRefused`, and `ProviderUnavailable` where the name has no
        address at this moment."""
        scheme, host, port = _parts(url)
        entry = next((entry for entry in self._hosts if _fits(entry, host, port)), None)
        if entry is None:
            raise HostRefused(
                f"{host} is not among the hosts that actions may call: add it to CIRCUIT_HTTP_HOSTS where Circuit runs"
            )
        try:
            found = await self._lookup(host, port)
        except OSError as error:
            raise ProviderUnavailable(f"the address of {host} cannot be found: {error.strerror or error}") from None
        addresses = [ipaddress.ip_address(address.partition("%")[0]) for address in found]
        if not addresses:
            raise ProviderUnavailable(f"the address of {host} cannot be found")
        private = [address for address in addresses if not is_public(address)]
        if private and not (self._private and entry.partition(":")[0] != "*"):
            raise HostRefused(
                f"{host} has the private address {private[0]}, which actions may not call; set"
                " CIRCUIT_HTTP_PRIVATE=true, and name the host in CIRCUIT_HTTP_HOSTS, if that is meant"
            )
        # The old kind first: it is the one that is reached everywhere.
        return Destination(scheme, host, port, str(min(addresses, key=lambda address: address.version)))


def _parts(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").rstrip(".").lower()
    except ValueError:
        parts, port, host = None, None, ""
    if parts is None or parts.scheme not in _PORTS or not host or "@" in parts.netloc or any(c <= " " for c in url):
        raise HostRefused("the URL of an http action must be http://HOST/... or https://HOST/..., without a password")
    return parts.scheme, host, port or _PORTS[parts.scheme]


def _fits(entry: str, host: str, port: int) -> bool:
    name, colon, wanted = entry.rpartition(":")
    if not colon or not wanted.isdigit():
        name, wanted = entry, ""
    if wanted and int(wanted) != port:
        return False
    name = name.strip("[]")
    return name == "*" or name == host or (name.startswith("*.") and host.endswith(name[1:]))


def is_public(address: Address) -> bool:
    """Whether an address belongs to the open internet, also where an IPv6 address stands for an IPv4 one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    # What was once private in IPv6 is no public address either, though nobody calls it private any more.
    return address.is_global and not address.is_multicast and not (address.version == 6 and address.is_site_local)

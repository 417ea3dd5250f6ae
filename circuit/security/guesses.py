"""How often an address may show credentials that do not hold: some for nothing, then each doubles the wait.

A credential that held before is let through whatever came from its address, so that who guesses locks nobody out who is
in. Credentials are remembered as digests, in memory alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address, ip_address

FREE_GUESSES = 10
"""Credentials that may be wrong before anybody waits: programs are set up wrongly, and tokens mistyped."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 300.0
FORGET_SECONDS = 900.0
"""After so long without a wrong one an address begins anew."""
MOST_REMEMBERED = 10_000


def wait_after(wrong: int) -> float:
    """For how many seconds an address waits after so many wrong credentials."""
    beyond = wrong - FREE_GUESSES
    return 0.0 if beyond < 0 else min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(beyond, 30))


@dataclass(slots=True)
class _Tries:
    wrong: int
    until: float
    forgotten_at: float


class Guesses:
    """The wrong credentials of each address."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tries: OrderedDict[str, _Tries] = OrderedDict()
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tries)

    def wait(self, address: str, credential: str) -> float:
        """After how many seconds somebody at `address` may show this credential; 0: now."""
        tries = self._tries.get(block(address))
        if tries is None or self.held(credential):
            return 0.0
        return max(0.0, tries.until - self._monotonic())

    def wrong(self, address: str) -> None:
        """A credential from `address` did not hold."""
        tries = self._tries.get(block(address))
        before = 0 if tries is None or tries.forgotten_at <= self._monotonic() else tries.wrong
        wait = wait_after(before + 1)
        self.learn(address, before + 1, wait, wait + FORGET_SECONDS)

    def learn(self, address: str, wrong: int, wait: float, forgotten: float) -> None:
        """So many from `address` did not hold, wherever they were shown: it waits, and begins anew, in so many
        seconds."""
        now, key = self._monotonic(), block(address)
        self._tries[key] = _Tries(wrong, now + wait, now + forgotten)
        self._tries.move_to_end(key)
        if len(self._tries) > MOST_REMEMBERED:
            self._tries.popitem(last=False)

    def right(self, credential: str) -> None:
        """A credential held."""
        digest = _digest(credential)
        self._right[digest] = None
        self._right.move_to_end(digest)
        if len(self._right) > MOST_REMEMBERED:
            self._right.popitem(last=False)

    def held(self, credential: str) -> bool:
        """Whether this credential held before."""
        return _digest(credential) in self._right


def _digest(credential: str) -> bytes:
    return sha256(credential.encode(errors="surrogatepass")).digest()


def block(address: str) -> str:
    """What counts as one address: of IPv6 the network of a site (/64), whose every address its owner may take."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))

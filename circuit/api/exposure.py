"""Who can reach the server, as the server itself learns when it begins to listen."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(slots=True)
class Exposure:
    """`local` says that only this machine can connect. `development` overrides what follows from it."""

    local: bool = False
    development: bool | None = None

    @property
    def explorable(self) -> bool:
        """Whether the schema may be asked for, and explored on a page."""
        return self.local if self.development is None else self.development

    def accepts(self, host: str | None) -> bool:
        """Whether a request for `host` is meant for this server.

        A page of another site can have its own name point at 127.0.0.1 and then speak to the server as if it were the
        page's own. Such a request names the other site as its host.
        """
        return not self.local or host is None or names_this_machine(host)


def names_this_machine(host: str) -> bool:
    """Whether `host`, with or without a port, is a name of this machine itself."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

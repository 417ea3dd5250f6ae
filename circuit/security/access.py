"""Which credentials a server takes."""

from __future__ import annotations

from dataclasses import dataclass, field

SHORTEST_SECRET = 16
"""Bytes of a secret by which tokens are signed: whoever holds a token may guess for as long as he likes."""
SHORTEST_TOKEN = 8
"""Bytes of the service's token, for which every guess is a request."""
DEFAULT_AUDIENCE = "circuit"


@dataclass(frozen=True, slots=True)
class Access:
    """Which credentials are taken, beside API keys; what is None is not. Secrets are shown nowhere."""

    service_token: str | None = field(default=None, repr=False)
    jwt_secret: str | None = field(default=None, repr=False)
    jwks_url: str | None = None
    audience: str = DEFAULT_AUDIENCE
    issuer: str | None = None
    stream_secret: str | None = field(default=None, repr=False)

    @property
    def configured(self) -> bool:
        """Whether anything here lets somebody in (stream tokens are made for those who are in)."""
        return any((self.service_token, self.jwt_secret, self.jwks_url))

"""What every resolver may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope
from strawberry.types import Info

from circuit.api.authentication import address
from circuit.api.graphql.loading import Loaders
from circuit.api.problems import Problems
from circuit.api.readers import Readers
from circuit.api.services import Services
from circuit.errors import CircuitError, Unauthenticated
from circuit.security.permissions import Permission
from circuit.security.principal import Principal


@dataclass(slots=True)
class Context:
    """The context of one request, or of one WebSocket connection (then with what its `connection_init` brought).

    `explorable` says whether the schema itself may be asked for; `who` asks, if that is known already.
    """

    services: Services
    readers: Readers
    problems: Problems
    explorable: bool
    scope: Scope
    who: Principal | None
    connection_params: dict[str, Any] = field(default_factory=dict[str, Any])
    loaders: Loaders = field(init=False)

    def __post_init__(self) -> None:
        self.loaders = Loaders(self.services.pages)

    async def refused(self, error: CircuitError, field: str) -> None:
        """Have it written down that a field was refused, if it was by who may do what."""
        await self.problems.noted(error, self.who, field, address(self.scope))

    @property
    def principal(self) -> Principal:
        """Who asks. Raises `Unauthenticated` on a connection that has not said it."""
        if self.who is None:
            raise Unauthenticated("nobody has said who asks: send `authorization` in connection_init")
        return self.who

    @property
    def tenant(self) -> int:
        """Whose rows are seen. Raises `Forbidden` where the principal may see none."""
        self.require_reading()
        return self.principal.tenant

    def require_reading(self) -> None:
        """Raise `Forbidden` where the principal may see nothing."""
        self.principal.require(Permission.READ)


Resolving = Info[Context, None]

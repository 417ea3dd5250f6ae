"""What every resolver may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from strawberry.types import Info

from circuit.api.readers import Readers
from circuit.api.services import Services
from circuit.security.principal import Principal


@dataclass(slots=True)
class Context:
    """The context of one request, or of one WebSocket connection (then with what its `connection_init` brought).

    `explorable` says whether the schema itself may be asked for.
    """

    services: Services
    readers: Readers
    explorable: bool
    connection_params: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.services.principal

    @property
    def tenant(self) -> int:
        """Whose rows are seen."""
        return self.services.principal.tenant


Resolving = Info[Context, None]

"""Which people may do something with the tokens of a place. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from circuit.errors import Forbidden
from circuit.net.structure import Net
from circuit.security.principal import Principal


def require_places(net: Net, places: Iterable[str], principal: Principal) -> None:
    """Raise `Forbidden` where one of these places asks for people of other roles."""
    for name in sorted(set(places)):
        roles = net.places[name].roles
        if not principal.may(roles):
            raise Forbidden(f"the tokens of place {name} ask for one of the roles {', '.join(sorted(roles))}")

"""What a principal may do: five permissions, and the four roles that bring them.

Any other name among a principal's roles is one that workflows ask for (`trigger.roles`): it brings no permission, but
what the workflow asks of that role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum


class Permission(StrEnum):
    """Each is also a scope: a credential may be limited to some of them."""

    READ = "read"
    """See workflows, cases and streams."""
    RUN = "run"
    """Start cases, fire manual transitions, answer what waits for a person."""
    OPERATE = "operate"
    """Cancel and repair cases, resolve incidents."""
    EDIT = "edit"
    """Publish and retire workflows and agents."""
    ADMINISTER = "administer"
    """Make and revoke credentials."""


EVERY_ROLE = "*"

ROLES: Mapping[str, frozenset[Permission]] = {
    "viewer": frozenset({Permission.READ}),
    "operator": frozenset({Permission.READ, Permission.RUN, Permission.OPERATE}),
    "editor": frozenset({Permission.READ, Permission.RUN, Permission.OPERATE, Permission.EDIT}),
    "admin": frozenset(Permission),
}


def permissions_of(roles: Iterable[str]) -> frozenset[Permission]:
    """What these roles bring together."""
    found: set[Permission] = set()
    for role in roles:
        found |= frozenset(Permission) if role == EVERY_ROLE else ROLES.get(role, frozenset())
    return frozenset(found)


def roles_with(permission: Permission) -> list[str]:
    """The roles that bring `permission`."""
    return [role for role, brings in ROLES.items() if permission in brings]

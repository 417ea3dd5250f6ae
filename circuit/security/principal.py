"""Who asks. Every command and query carries a principal; what it may do follows from its roles and its scopes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from circuit.errors import Forbidden
from circuit.ids import DEFAULT_TENANT, DEPLOYMENT
from circuit.security.permissions import EVERY_ROLE, Permission, permissions_of, roles_with


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or a program that asks something of one tenant's cases. The role `*` stands for every role.

    `scopes`, where given, are the only permissions that its credential was made for. `execution` is the only one whose
    stream it may read, if its credential was made for that.
    """

    subject: str
    tenant: int = DEFAULT_TENANT
    roles: frozenset[str] = field(default_factory=frozenset[str])
    scopes: frozenset[str] | None = None
    execution: str | None = None

    def may(self, roles: Collection[str]) -> bool:
        """Whether this principal holds one of `roles`; where none is asked for, everybody may."""
        return not roles or EVERY_ROLE in self.roles or not self.roles.isdisjoint(roles)

    def can(self, permission: Permission) -> bool:
        """Whether this principal has `permission`."""
        if self.execution is not None or (self.scopes is not None and permission not in self.scopes):
            return False
        return permission in permissions_of(self.roles)

    def require(self, permission: Permission) -> None:
        """Raise `Forbidden` without `permission`."""
        if not self.can(permission):
            roles = ", ".join(roles_with(permission))
            raise Forbidden(
                f"{self.subject} has no permission to {permission.value}: it takes one of the roles {roles}, and a"
                " credential that is not limited to other scopes"
            )

    def require_task(self, roles: Collection[str], what: str) -> None:
        """Raise `Forbidden` where `what`, which asks for one of `roles`, is not for this principal.

        Whoever holds a role that a workflow asks for may do what it asks of that role. Where it asks for none, it takes
        the permission to run cases.
        """
        if not roles:
            self.require(Permission.RUN)
        elif not self.may(roles):
            raise Forbidden(f"{what} asks for one of the roles {', '.join(sorted(roles))}")
        elif self.execution is not None or (self.scopes is not None and Permission.RUN not in self.scopes):
            raise Forbidden(
                f"{self.subject} may do {what}, but not with this credential: it is limited to other scopes"
            )

    def require_stream(self, execution: str) -> None:
        """Raise `Forbidden` where the stream of `execution` is not this principal's to read."""
        if self.execution is None:
            self.require(Permission.READ)
        elif self.execution != execution:
            raise Forbidden("this stream token was made for another execution")

    @classmethod
    def from_json(cls, value: Mapping[str, Any], tenant: int = DEFAULT_TENANT) -> Principal:
        """The principal that a command row names. What is no list of roles gives none."""
        roles: Any = value.get("roles")
        held = frozenset(str(role) for role in roles) if isinstance(roles, list) else frozenset[str]()
        return cls(str(value.get("subject", "")), tenant, held)

    def as_dict(self) -> dict[str, Any]:
        """The principal as it goes into command rows."""
        return {"subject": self.subject, "roles": sorted(self.roles)}


LOCAL = Principal("local", DEFAULT_TENANT, frozenset({EVERY_ROLE}))
"""Who works on this machine's command line: holds every role."""
NOBODY = Principal("unknown", DEPLOYMENT)
"""Who asks where nobody knows it: an entry of the deployment, for no tenant can be told either."""

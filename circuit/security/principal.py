"""Who asks. Every command and query carries a principal; what it may do follows from its roles."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from circuit.ids import DEFAULT_TENANT

EVERY_ROLE = "*"


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or a program that asks something of one tenant's cases. The role `*` stands for every role."""

    subject: str
    tenant: int = DEFAULT_TENANT
    roles: frozenset[str] = field(default_factory=frozenset[str])

    def may(self, roles: Collection[str]) -> bool:
        """Whether this principal holds one of `roles`; where none is asked for, everybody may."""
        return not roles or EVERY_ROLE in self.roles or not self.roles.isdisjoint(roles)

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

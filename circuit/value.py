"""Frozen dataclasses that cost no more to make than others.

`dataclass(frozen=True)` of the standard library makes each instance through one call of `object.__setattr__` a field,
which takes six times as long as plain assignment; a firing makes some thirty values. This one is the same decorator to
the type checker, which refuses every assignment to a field, and leaves the check out at run time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool = False, **options: Any) -> Callable[[type], type]:
        """`dataclasses.dataclass`, where `frozen` is for the type checker: values compare, hash and print the same."""
        return dataclasses.dataclass(unsafe_hash=frozen, **options)

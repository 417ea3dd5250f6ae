"""What a firing hands to its action: the configuration with this case's replacements, frozen inputs, tokens by id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from circuit.definition.workflow import COLLEAGUES, ActionSpec, AgentDefinition, ProviderSpec, Workflow
from circuit.engine.action import ActionCall
from circuit.engine.memory import LiveFiring, Memory
from circuit.net.binding import Binding
from circuit.net.mapping import map_inputs, merge_inputs
from circuit.net.marking import Token
from circuit.net.structure import Transition
from circuit.security.rules import Rule, rules_of
from circuit.storage.records import CaseRow

AGENT_EXTRAS = (
    "fallback",
    "capabilities",
    "tools",
    "policies",
    "context_tokens",
    "images",
    "conversation",
    "cache",
    "redaction",
    "screening",
)
"""What of an agent's definition goes to its action as it stands."""


def token_image(token: Token) -> dict[str, Any]:
    """A token as it is frozen into a firing's request."""
    return {
        "number": token.number,
        "version": token.version,
        "place": token.place,
        "data": token.data,
        "metadata": token.metadata,
        "entered_at": token.entered_at.isoformat(),
    }


def inputs_of(memory: Memory, transition: Transition, binding: Binding) -> dict[str, Any]:
    """What the action of a firing that begins with this binding gets."""
    mapping = transition.input_mapping
    if mapping is not None and mapping.entries:
        return map_inputs(mapping, binding.scope(memory.case, transition.lists))
    if len(binding.consumed) == 1:
        return dict(binding.consumed[0].data)
    merged, _ = merge_inputs(binding.consumed, transition.merge)
    return dict(merged)


def action_config(workflow: Workflow, spec: ActionSpec, row: CaseRow) -> dict[str, Any]:
    """The action's configuration. An agent's comes with its definition, with the model that this case asked for, and
    with what its start changed of the definition (`agents`: by agent id)."""
    agent_id = spec.config.get("agent_id")
    if agent_id is None:
        return {"action": spec.kind, **spec.config}
    agent = workflow.agents[agent_id]
    provider = provider_of(agent, row.parameters, spec.provider(workflow.agents))
    described = agent_json(agent, provider)
    described["parameters"] = {**agent.parameters, **spec.config.get("llm_config", {})}
    changes: Mapping[str, Any] = (row.parameters.get("agents") or {}).get(agent_id) or {}
    if changes:
        described["changed"] = sorted(changes)
    for name, value in changes.items():
        if name == "llm_config":
            described["parameters"] |= value
        else:
            described[name] = value
    config: dict[str, Any] = {"agent_id": agent_id, "agent": described}
    colleagues = colleagues_json(workflow, agent, row.parameters)
    if colleagues:
        config["colleagues"] = colleagues
    return config


def colleagues_json(workflow: Workflow, agent: AgentDefinition, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The agents that `agent` may ask or hand over to, and those of these in turn, by id, as its action gets them."""
    found: dict[str, Any] = {}
    pending = [agent]
    while pending:
        for entry in pending.pop().document.get("tools") or ():
            name = entry.get("name")
            if entry["kind"] in COLLEAGUES and name not in found:
                one = workflow.agents[name]
                found[name] = agent_json(one, provider_of(one, parameters))
                pending.append(one)
    return dict(sorted(found.items()))


def agent_json(agent: AgentDefinition, provider: ProviderSpec) -> dict[str, Any]:
    """An agent as its action gets it, with the provider that answers for it."""
    return {
        "id": agent.id,
        "name": agent.name,
        "description": agent.description,
        "provider": {"type": provider.type, "model": provider.model, "options": provider.options},
        "parameters": agent.parameters,
        "prompts": {
            "system": agent.prompts.system,
            "user_template": agent.prompts.user_template,
            "context_instructions": agent.prompts.context_instructions,
            "capabilities": agent.prompts.capabilities,
            **({"engine": agent.prompts.engine} if agent.prompts.engine else {}),
        },
        "output_schema": agent.output_schema,
        **{name: agent.document[name] for name in AGENT_EXTRAS if name in agent.document},
        "hash": agent.hash,
        "prompt_hash": agent.prompt_hash,
    }


def provider_of(agent: AgentDefinition, parameters: Mapping[str, Any], own: ProviderSpec | None = None) -> ProviderSpec:
    """The agent's provider (or the one that its action names, its `own`), or what the start of the case put in the
    place of either (`models`: by agent id, or `*`).

    A replacement of the same type keeps the options of the original (a base URL, headers) that it does not name.
    """
    original = own or agent.provider
    models: Mapping[str, Any] = parameters.get("models") or {}
    chosen = models.get(agent.id) or models.get("*")
    if chosen is None:
        return original
    options = dict(chosen.get("options") or {})
    if chosen["type"] == original.type:
        options = {**original.options, **options}
    return ProviderSpec(chosen["type"], chosen["model"], options)


class Performer(NamedTuple):
    """Who performs a transition: the action's configuration, and what the execution's row keeps of it."""

    config: Mapping[str, Any]
    descriptor: Mapping[str, Any]


def performer(memory: Memory, transition: str) -> Performer:
    """Who performs `transition` in this case. Worked out once for a version, but for cases with models of their own."""
    workflow, row = memory.workflow, memory.row
    if not row.parameters:
        known: Performer | None = workflow.derived.get(transition)
        if known is not None:
            return known
    config = action_config(workflow, workflow.actions[transition], row)
    made = Performer(config, descriptor(config))
    if not row.parameters:
        workflow.derived[transition] = made
    return made


def providers_of(workflow: Workflow, parameters: Mapping[str, Any]) -> Iterator[tuple[ProviderSpec, ...]]:
    """Every provider that a case with these parameters may speak to: those of the agents, and those that their actions
    name in their place; each with those that fall in where it fails. One that was chosen for the case stands alone."""
    for agent in workflow.agents.values():
        yield _answering(agent, parameters, agent.provider)
    for spec in workflow.actions.values():
        if "llm_provider" in spec.config:
            yield _answering(workflow.agents[spec.config["agent_id"]], parameters, spec.provider(workflow.agents))


def _answering(agent: AgentDefinition, parameters: Mapping[str, Any], own: ProviderSpec) -> tuple[ProviderSpec, ...]:
    first = provider_of(agent, parameters, own)
    given: Sequence[Mapping[str, Any]] = agent.document.get("fallback") or ()
    others = [ProviderSpec(one["type"], one.get("model") or "", one.get("options") or {}) for one in given]
    return (first, *others) if first == own else (first,)


def descriptor(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the execution's row keeps of who ran: versions, provider, model and parameters, and nothing secret."""
    agent = config.get("agent")
    if agent is None:
        return {name: config[name] for name in ("action", "name") if name in config}
    return {
        "agent_id": agent["id"],
        "agent_hash": agent["hash"],
        "prompt_hash": agent["prompt_hash"],
        "provider": agent["provider"]["type"],
        "model": agent["provider"]["model"],
        "parameters": agent["parameters"],
        # What its case put in the place of the definition: the hashes are those of the definition.
        **({"changed": agent["changed"]} if "changed" in agent else {}),
    }


def action_call(memory: Memory, live: LiveFiring, config: Mapping[str, Any]) -> ActionCall:
    """The present start of a live firing, as its action gets it."""
    row = live.row
    spec = memory.workflow.actions[row.transition]
    recorded = memory.journal.get(row.number)
    return ActionCall(
        key=memory.key,
        firing=row.number,
        attempt=row.attempt,
        start=row.start,
        execution_id=memory.execution_id(row.number),
        workflow_id=memory.row.workflow_id,
        transition=row.transition,
        kind=spec.kind,
        config={**config, "occurrence": row.request["occurrence"]},
        inputs=row.request["inputs"],
        tokens=tuple([_view(memory, token) for token in live.binding.consumed]),
        history_count=row.request["history_count"],
        timeout_seconds=spec.timeout_seconds,
        recorded=dict(recorded) if recorded else {},
        budget=memory.workflow.budget,
        child=memory.row.parent is not None,
        traceparent=memory.row.traceparent,
        redaction=memory.workflow.redaction,
        screening=memory.workflow.screening,
    )


def rules_of_agents(config: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of redaction of the agent in the configuration of an action, and of those that it may ask."""
    agents = (config.get("agent") or {}, *(config.get("colleagues") or {}).values())
    return tuple(rule for agent in agents for rule in rules_of(agent.get("redaction") or ()))


def _view(memory: Memory, token: Token) -> dict[str, Any]:
    """A token as an action sees it, known by its id."""
    return {
        "id": memory.execution_id(token.number),
        "place": token.place,
        "data": token.data,
        "metadata": token.metadata,
    }

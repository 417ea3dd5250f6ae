"""The canonical form of a document: long forms, seconds, references as `${NAME}`; plain JSON, the same for the same
workflow however it was spelt. Keys that say nothing (`null`, empty mappings, defaults that are `false`)
are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from circuit.definition.action_document import (
    Action,
    ActionEntry,
    CompensationEntry,
    FunctionEntry,
    HttpEntry,
    HumanEntry,
    JobEntry,
    SubworkflowEntry,
)
from circuit.definition.agent_document import Agent, LlmConfig, LlmProvider
from circuit.definition.agent_reference import reference, reference_text
from circuit.definition.arc_document import CancelEntry, InputArcEntry, OutputArcEntry, RegionEntry
from circuit.definition.compensation import ALL
from circuit.definition.document import (
    RULE_FIELDS,
    RULE_KINDS,
    Document,
    FieldComparison,
    PlaceAgent,
    PlaceAgentSchedule,
    PlaceEntry,
    RuleEntry,
    TransitionEntry,
    TriggerEntry,
)
from circuit.definition.execution_document import AgentExecution, MappingEntry, RetryConfig
from circuit.definition.field import seconds
from circuit.definition.redaction_document import rules_json
from circuit.definition.screening_document import screening_json
from circuit.definition.tool_canonical import capability_json, policy_json, tool_json

DEFAULT_TIMEOUT_SECONDS = 300.0


def canonical(document: Document) -> dict[str, Any]:
    """The document as canonical JSON, all of the format included, also what this release does not run."""
    return _tidy(
        {
            "workflow": document.workflow,
            "name": document.name or document.workflow,
            "description": document.description or "",
            "labels": dict(document.labels or {}),
            "pool": document.pool,
            "colours": dict(document.colours or {}),
            "start": None if document.start is None else {"message": document.start.message},
            "places": _places(document),
            "agents": {name: agent_json(name, agent) for name, agent in (document.agents or {}).items()},
            "transitions": {name: _transition(entry) for name, entry in document.transitions.items()},
            "regions": {name: _region(entry) for name, entry in (document.regions or {}).items()},
            "complete_when": document.complete_when,
            "outbox": sorted(set(document.outbox or ())),
            "budget": None if document.budget is None else document.budget.model_dump(exclude_none=True),
            "subject": [document.subject] if isinstance(document.subject, str) else list(document.subject or ()),
            "redaction": rules_json(document.redaction),
            "screening": screening_json(document.screening),
            "place_agents": [_place_agent(entry) for entry in document.place_agents or ()],
        },
        keep=("description", "places", "transitions"),
    )


def _tidy(value: Mapping[str, Any], keep: Sequence[str] = ()) -> dict[str, Any]:
    """Without what is not said: null, empty mappings and lists, except for the keys to keep."""
    return {key: item for key, item in value.items() if key in keep or (item is not None and item != {} and item != [])}


def _places(document: Document) -> dict[str, Any]:
    if isinstance(document.places, dict):
        return {name: _place(entry) for name, entry in document.places.items()}
    # The short form says no more than names: the case begins in the first, and ends where nothing leads on.
    names = list(dict.fromkeys(document.places))
    left = {
        arc["place"]
        for entry in document.transitions.values()
        for arc in _inputs(entry.from_places)
        if arc["mode"] in ("consume", "drain")
    }
    left |= {arc["place"] for entry in document.transitions.values() for arc in _inputs(entry.from_any)}
    places: dict[str, Any] = {}
    for name in names:
        places[name] = _tidy({"initial": name == names[0] or None, "terminal": name not in left or None})
    return places


def _place(entry: PlaceEntry | None) -> dict[str, Any]:
    if entry is None:
        return {}
    return _tidy(
        {
            "description": entry.description or None,
            "colour": entry.colour,
            "initial": entry.initial or None,
            "terminal": entry.terminal or None,
            "outcome": entry.outcome if entry.outcome != "completed" else None,
            "ends_case": entry.ends_case or None,
            "dead_letter": entry.dead_letter or None,
            "roles": list(dict.fromkeys(entry.roles or ())),
            "capacity": entry.capacity,
            "tokens": [{"data": token.data or {}, "metadata": token.metadata or {}} for token in entry.tokens or ()],
            "shared": entry.shared or None,
            "interval": None if entry.interval is None else seconds(entry.interval),
        }
    )


def agent_json(name: str, agent: Agent) -> dict[str, Any]:
    """One agent as canonical JSON."""
    prompts = agent.prompts
    return _tidy(
        {
            "name": agent.name or name,
            "description": agent.description or "",
            "llm_provider": provider_json(agent.llm_provider),
            "fallback": [provider_json(entry) for entry in agent.fallback or ()],
            "llm_config": _llm_config(agent.llm_config),
            "prompts": {
                "system": (prompts and prompts.system) or "",
                "user_template": "{input_data}"
                if prompts is None or prompts.user_template is None
                else prompts.user_template,
                "context_instructions": (prompts and prompts.context_instructions) or "",
                **({"engine": prompts.engine} if prompts and prompts.engine else {}),
                **({"capabilities": dict(prompts.capabilities)} if prompts and prompts.capabilities else {}),
            },
            "capabilities": [capability_json(entry) for entry in agent.capabilities or ()],
            "tools": [tool_json(entry) for entry in agent.tools or ()],
            "policies": [policy_json(entry) for entry in agent.policies or ()],
            "context_tokens": agent.context_tokens,
            "images": list(dict.fromkeys(agent.images or ())),
            "conversation": agent.conversation,
            "cache": None if agent.cache is None else {"ttl": seconds(agent.cache.ttl)},
            "redaction": rules_json(agent.redaction),
            "screening": screening_json(agent.screening),
            "output_schema": agent.output_schema,
        },
        keep=("description",),
    )


def provider_json(provider: LlmProvider) -> dict[str, Any]:
    """`type`, `model` and `options` of a provider; all references to the environment are `${NAME}`."""
    options: dict[str, Any] = {}
    for name in type(provider).model_fields:
        value: Any = getattr(provider, name)
        if name in ("type", "model") or value is None:
            continue
        if name == "api_key":
            options[name] = reference_text(value)
        elif name == "base_url":
            options[name] = _address(value)
        elif name == "headers":
            options[name] = {header: reference_text(item) for header, item in value.items()}
        elif name in ("delay_seconds", "start_timeout", "sleep_after"):
            options[name] = seconds(value)
        elif name in ("limits", "price"):
            options[name] = value.model_dump(exclude_none=True)
        else:
            options[name] = value
    return {"type": provider.type, "model": provider.model, "options": _tidy(options)}


def _address(value: str) -> str:
    try:
        return reference(value)
    except ValueError:
        return value


def _llm_config(config: LlmConfig | None) -> dict[str, Any]:
    return _tidy(config.model_dump(exclude_none=True)) if config is not None else {}


def _inputs(value: str | Sequence[str | InputArcEntry] | None) -> list[dict[str, Any]]:
    arcs: list[dict[str, Any]] = []
    for entry in [value] if isinstance(value, str) else value or ():
        if isinstance(entry, str):
            arcs.append({"place": entry, "weight": 1, "mode": "consume"})
        else:
            arc = {"place": entry.place, "weight": entry.weight or 1, "mode": entry.mode or "consume"}
            order = None if entry.order == "oldest" else entry.order
            own = {"order": order, "where": entry.where, "correlate": entry.correlate, "gather": entry.gather}
            arcs.append({**arc, **_tidy(own)})
    return arcs


def _outputs(value: str | OutputArcEntry | Sequence[str | OutputArcEntry] | None) -> list[dict[str, Any]]:
    arcs: list[dict[str, Any]] = []
    for entry in [value] if isinstance(value, str | OutputArcEntry) else value or ():
        if isinstance(entry, str):
            arcs.append({"place": entry, "weight": 1})
        else:
            # `data: {}` says something: the new token has no data.
            data = {} if entry.data is None else {"data": dict(entry.data)}
            each = _tidy({"each": entry.each, "most": entry.most})
            arcs.append({"place": entry.place, "weight": entry.weight or 1, **data, **each})
    return arcs


def _transition(entry: TransitionEntry) -> dict[str, Any]:
    conditions = [entry.conditions] if isinstance(entry.conditions, str) else entry.conditions
    return _tidy(
        {
            "name": entry.name,
            "description": entry.description or None,
            "from_places": _inputs(entry.from_places),
            "from_any": _inputs(entry.from_any),
            "to_places": _outputs(entry.to_place if entry.to_place is not None else entry.to_places),
            "priority": entry.priority or None,
            "rules": [_rule(rule) for rule in entry.rules or ()],
            "conditions": list(conditions or ()),
            "agent_execution": _agent_execution(entry.agent_execution),
            "action": _action(entry.action),
            "output_mapping": _mapping(entry.output_mapping),
            "on_failure": entry.on_failure,
            "merge": entry.merge,
            "trigger": _trigger(entry.trigger),
            "cancels": _cancels(entry.cancels),
            "compensation": _compensation(entry.compensation),
            "compensates": _compensates(entry.compensates),
        },
        keep=("from_places", "to_places"),
    )


def _region(entry: RegionEntry) -> dict[str, Any]:
    names = {"places": entry.places, "transitions": entry.transitions}
    return _tidy({key: sorted(set(value or ())) for key, value in names.items()})


def _cancels(entry: str | Sequence[str] | CancelEntry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    if isinstance(entry, CancelEntry):
        return _tidy({**_region(entry), "regions": sorted(set(entry.regions or ()))})
    return {"regions": [entry] if isinstance(entry, str) else sorted(set(entry))}


def _compensation(entry: str | CompensationEntry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    if isinstance(entry, str):
        return {"action": _action(entry)}
    return _tidy({"agent_execution": _agent_execution(entry.agent_execution), "action": _action(entry.action)})


def _compensates(entry: str | Sequence[str] | None) -> str | list[str] | None:
    named = [entry] if isinstance(entry, str) else sorted(set(entry or ()))
    return ALL if named == [ALL] else named or None


def _rule(rule: RuleEntry) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for kind in RULE_KINDS:
        test: Any = getattr(rule, RULE_FIELDS.get(kind, kind))
        if test is None:
            continue
        if isinstance(test, FieldComparison):
            value[kind] = {"field": test.field, "value": test.value}
        elif isinstance(test, RuleEntry):
            value[kind] = _rule(test)
        elif isinstance(test, str):
            value[kind] = test
        else:
            value[kind] = [_rule(part) for part in test]
    return _tidy({"id": rule.id, "description": rule.description or None, **value})


def _mapping(mapping: Mapping[str, str | MappingEntry] | None) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, value in (mapping or {}).items():
        if isinstance(value, str):
            entries[name] = value
        elif value.optional or "default" in value.model_fields_set:
            default = {"default": value.default} if "default" in value.model_fields_set else {}
            entries[name] = {"path": value.path, **({"optional": True} if value.optional else {}), **default}
        else:
            entries[name] = value.path
    return entries


def _retry(retry: RetryConfig | None) -> dict[str, Any] | None:
    if retry is None:
        return None
    backoff = None if retry.backoff_seconds is None else seconds(retry.backoff_seconds)
    return _tidy(
        {
            "max_attempts": retry.max_attempts,
            "backoff_seconds": backoff,
            "retry_on_errors": list(dict.fromkeys(retry.retry_on_errors or ())),
            "max_crashes": retry.max_crashes,
        }
    )


def _agent_execution(entry: str | AgentExecution | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    if isinstance(entry, str):
        entry = AgentExecution(agent_id=entry)
    return _tidy({"agent_id": entry.agent_id, **_execution(entry)})


def _execution(entry: AgentExecution | ActionEntry) -> dict[str, Any]:
    """What running an agent and running an action have in common."""
    default = None if isinstance(entry, HumanEntry | JobEntry | SubworkflowEntry) else DEFAULT_TIMEOUT_SECONDS
    timeout = default if entry.timeout_seconds is None else seconds(entry.timeout_seconds)
    return {
        "input_mapping": _mapping(entry.input_mapping),
        "output_mapping": _mapping(entry.output_mapping),
        "required": entry.required is not False,
        "timeout_seconds": timeout,
        "retry_config": _retry(entry.retry_config),
    }


def _action(entry: Action | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    if isinstance(entry, str):
        entry = FunctionEntry(type="function", name=entry)
    if isinstance(entry, FunctionEntry):
        own = _function(entry)
    elif isinstance(entry, HttpEntry):
        own = _request(entry)
    elif isinstance(entry, JobEntry):
        own = _job(entry)
    elif isinstance(entry, SubworkflowEntry):
        own = {"workflow": entry.workflow}
    else:
        own = _task(entry)
    return {"type": entry.type, **_tidy({**own, **_execution(entry)}, keep=("body",) if "body" in own else ())}


def _job(entry: JobEntry) -> dict[str, Any]:
    return {
        "command": list(entry.command),
        "backend": entry.backend if entry.backend != "process" else None,
        "environment": dict(entry.environment or {}),
        "working_directory": entry.working_directory,
        "poll_seconds": None if entry.poll_seconds is None else seconds(entry.poll_seconds),
    }


def _task(entry: HumanEntry) -> dict[str, Any]:
    return {
        "title": entry.title,
        "instructions": entry.instructions or None,
        "form": entry.form,
        "roles": list(dict.fromkeys(entry.roles or ())),
    }


def _function(entry: FunctionEntry) -> dict[str, Any]:
    heartbeat = None if entry.heartbeat_seconds is None else seconds(entry.heartbeat_seconds)
    return {"name": entry.name, "heartbeat_seconds": heartbeat}


def _request(entry: HttpEntry) -> dict[str, Any]:
    expect = [entry.expect] if isinstance(entry.expect, int) else entry.expect
    body = {"body": entry.body} if "body" in entry.model_fields_set else {}
    return {
        "method": entry.method or ("POST" if body else "GET"),
        "url": entry.url,
        "headers": dict(entry.headers or {}),
        "query": dict(entry.query or {}),
        **body,
        "expect": sorted(set(expect or ())),
        "idempotency_header": entry.idempotency_header,
    }


def _trigger(entry: TriggerEntry | None) -> dict[str, Any] | None:
    if entry is None or entry.type == "auto":
        return None
    after = None if entry.after is None else seconds(entry.after)
    correlate = [entry.correlate] if isinstance(entry.correlate, str) else entry.correlate
    return {
        "type": entry.type,
        **_tidy(
            {
                "form": entry.form,
                "roles": list(dict.fromkeys(entry.roles or ())),
                "after": after,
                "at": entry.at,
                "cron": entry.cron,
                "interrupt": entry.interrupt or None,
                "message": entry.message,
                "correlate": list(correlate or ()),
            }
        ),
    }


def _schedule(schedule: PlaceAgentSchedule | None) -> dict[str, Any]:
    if schedule is None:
        return {}
    spans = {"initial_delay_seconds": schedule.initial_delay_seconds, "interval_seconds": schedule.interval_seconds}
    return _tidy(
        {
            **{name: None if span is None else seconds(span) for name, span in spans.items()},
            "max_executions": schedule.max_executions,
            "cron": schedule.cron,
            "missed": schedule.missed if schedule.missed != "once" else None,
        }
    )


def _place_agent(entry: PlaceAgent) -> dict[str, Any]:
    schedule = _schedule(entry.schedule) | ({"cron": entry.cron} if entry.cron is not None else {})
    return _tidy(
        {
            "place_id": entry.place_id,
            "agent_id": entry.agent_id,
            "llm_config": _llm_config(entry.llm_config),
            "llm_provider": None if entry.llm_provider is None else provider_json(entry.llm_provider),
            "trigger_conditions": [_rule(rule) for rule in entry.trigger_conditions or ()],
            "input_mapping": _mapping(entry.input_mapping),
            "output_mapping": _mapping(entry.output_mapping),
            "auto_transition": entry.auto_transition,
            "schedule": schedule,
            "retry_config": _retry(entry.retry_config),
        }
    )

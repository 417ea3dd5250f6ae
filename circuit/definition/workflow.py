"""What the compiler makes of a document: a net, its actions and its agents, known by a content hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circuit.expressions.path import Path
from circuit.net.structure import Net
from circuit.security.rules import Rule
from circuit.spend import UNLIMITED, Limits

DEFAULT_POOL = "default"
"""The pool of workers that runs a workflow which names none."""


COLLEAGUES = ("agent", "hand_over")
"""The kinds of tools that are other agents."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an action is tried. `retry_on_errors` empty means every error that calls itself retryable.

    The wait before try n+1 is `backoff_seconds * 2**(n-1)`, less up to half of it by jitter. After `max_crashes` lost
    processes the firing fails; these count apart from the attempts.
    """

    max_attempts: int = 1
    backoff_seconds: float = 1.0
    retry_on_errors: tuple[str, ...] = ()
    max_crashes: int = 10

    @classmethod
    def of_json(cls, value: Mapping[str, Any] | None) -> RetryPolicy:
        """The policy of a `retry_config` in canonical form."""
        given = value or {}
        return cls(
            given.get("max_attempts", 1),
            given.get("backoff_seconds", 1.0),
            tuple(given.get("retry_on_errors", ())),
            given.get("max_crashes", 10),
        )


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """What an acting transition does. `kind` names a registered action, `config` is that action's own (JSON). `holds`
    are the amounts of shared places that a firing holds from its begin to its end."""

    kind: str
    config: Mapping[str, Any]
    required: bool = True
    timeout_seconds: float = 300.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    holds: Mapping[str, int] = field(default_factory=dict[str, int])

    def provider(self, agents: Mapping[str, AgentDefinition]) -> ProviderSpec:
        """The provider of an agent's action: the one that it names itself, or the agent's."""
        own: Mapping[str, Any] | None = self.config.get("llm_provider")
        if own is None:
            return agents[self.config["agent_id"]].provider
        return ProviderSpec(own["type"], own["model"], own.get("options") or {})


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """Which model of which provider. `options` are the provider's own keys (`base_url`, `headers`, `responses`, ...).

    Secrets are references to the environment (`${NAME}`), resolved when a request is sent and never before.
    """

    type: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompts:
    system: str = ""
    user_template: str = "{input_data}"
    context_instructions: str = ""
    capabilities: Mapping[str, str] = field(default_factory=dict)
    engine: str = ""


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """An agent. `hash` names this version of it, `prompt_hash` this version of its prompts."""

    id: str
    name: str
    description: str
    provider: ProviderSpec
    parameters: Mapping[str, Any]
    prompts: Prompts
    output_schema: Mapping[str, Any] | None
    document: Mapping[str, Any]
    hash: str
    prompt_hash: str


@dataclass(frozen=True, slots=True)
class Resource:
    """A shared place: how much of it there is for all cases of the workflow together. With an interval it is *paced*:
    what was taken is there again after so many seconds."""

    capacity: int
    interval_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class InitialToken:
    """A token that lies in its place when a case starts, beside the one that the case is started with."""

    place: str
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A compiled workflow. `document` is the canonical JSON from which any process compiles the same again.

    `initial_tokens` come in the order of their places' names, then of the file: with a version's content their
    numbers are known. `outbox` are the kinds of events that leave Circuit, `start_message` is the name of the messages
    that start cases, `budget` is what each case may spend on models, `subject` leads to whom a case is about,
    `redaction` are its own rules for logs, events and prompts, `screening` says what is done about what is found in
    what its agents are told, and `derived` keeps what others work out of this version once.
    """

    id: str
    name: str
    description: str
    labels: Mapping[str, str]
    document: Mapping[str, Any]
    hash: str
    net: Net
    actions: Mapping[str, ActionSpec]
    agents: Mapping[str, AgentDefinition]
    requires: Mapping[str, Any]
    initial_tokens: tuple[InitialToken, ...] = ()
    pool: str = DEFAULT_POOL
    outbox: frozenset[str] = frozenset()
    start_message: str | None = None
    resources: Mapping[str, Resource] = field(default_factory=dict[str, Resource])
    budget: Limits = UNLIMITED
    subject: tuple[Path, ...] = ()
    redaction: tuple[Rule, ...] = ()
    screening: Mapping[str, str] = field(default_factory=dict[str, str])
    derived: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

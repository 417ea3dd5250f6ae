"""The workflow file as its authors write it: places, transitions and all else, in short and long forms.

With `arc_document`, `execution_document`, `action_document` and `agent_document` this is the only place where the keys
of the format are named. Each key carries its description, from which the JSON Schema of the format is made.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, model_validator

from circuit.definition.action_document import Action, Compensation
from circuit.definition.agent_document import Agent, LlmConfig, LlmProvider
from circuit.definition.arc_document import CancelEntry, Inputs, Output, Outputs, RegionEntry
from circuit.definition.execution_document import (
    AgentExecution,
    InputMappingEntries,
    OutputMappingEntries,
    RetryConfig,
)
from circuit.definition.field import Duration, Identifier, JsonObject, Line, Part, Text, by_kind, fault
from circuit.definition.redaction_document import Rules
from circuit.definition.screening_document import Screening
from circuit.events import CASE_EVENTS

ALIASES = {"to_places": "to_place"}
"""Keys of the canonical document and the key under which an author may have written the same."""


class InitialToken(Part):
    """A token that lies in its place when a case starts."""

    data: Annotated[JsonObject | None, Field(description="The token's data.")] = None
    metadata: Annotated[JsonObject | None, Field(description="The token's metadata.")] = None


class PlaceEntry(Part):
    """Holds tokens."""

    description: Annotated[Text | None, Field(description="What it means that a token lies here.")] = None
    colour: Annotated[
        Identifier | None, Field(description="The colour (under `colours`) that tokens here must fit.")
    ] = None
    initial: Annotated[bool | None, Field(description="New cases put their token here. One place at most.")] = None
    terminal: Annotated[bool | None, Field(description="A case is complete when all tokens lie in such places.")] = None
    outcome: Annotated[
        Literal["completed", "failed"] | None,
        Field(description="How a case ends whose token arrives in this terminal place. Default: completed."),
    ] = None
    ends_case: Annotated[
        bool | None,
        Field(description="Of a terminal place: the case ends as soon as a token is here, whatever lies elsewhere."),
    ] = None
    dead_letter: Annotated[
        bool | None, Field(description="Tokens here wait for a person: the case asks for attention.")
    ] = None
    roles: Annotated[
        list[Line] | None,
        Field(
            min_length=1,
            description="Roles of people who may do something with tokens here: fire manual transitions and complete "
            "tasks that take them (unless those name roles), change them by hand, have agents run on them. "
            "Default: everyone.",
        ),
    ] = None
    capacity: Annotated[int | None, Field(ge=1, description="The most tokens that may lie here at once.")] = None
    tokens: Annotated[
        list[InitialToken] | None, Field(max_length=1_000, description="Tokens that lie here when a case starts.")
    ] = None
    shared: Annotated[
        bool | None, Field(description="A counted resource of all cases of the workflow; `capacity` is its amount.")
    ] = None
    interval: Annotated[
        Duration | None,
        Field(description="Of a shared place: what was taken is there again after this time, as a rate has it."),
    ] = None


class FieldComparison(Part):
    """A field and what it is compared with."""

    field: Annotated[Line, Field(description="Dotted path (data.x, metadata.x); a bare name: metadata, else data.")]
    value: Annotated[Any, Field(description="What the field is compared with.")]


RULE_KINDS = (
    "field_exists",
    "field_equals",
    "field_greater_than",
    "field_less_than",
    "field_contains",
    "and",
    "or",
    "not",
)
RULE_FIELDS = {"and": "and_", "or": "or_", "not": "not_"}


class RuleEntry(Part):
    """A condition in structured form: exactly one of the field tests, `and`, `or`, `not`."""

    id: Annotated[Line | None, Field(description="Its name in diagnostics.")] = None
    description: Annotated[Text | None, Field(description="What it asks for, for people.")] = None
    field_exists: Annotated[Line | None, Field(description="Holds where the field exists.")] = None
    field_equals: Annotated[FieldComparison | None, Field(description="Holds where the field equals the value.")] = None
    field_greater_than: Annotated[
        FieldComparison | None, Field(description="Holds where the field is greater than the value.")
    ] = None
    field_less_than: Annotated[
        FieldComparison | None, Field(description="Holds where the field is less than the value.")
    ] = None
    field_contains: Annotated[
        FieldComparison | None, Field(description="Holds where the field (text, list, object) contains the value.")
    ] = None
    and_: Annotated[
        list[RuleEntry] | None, Field(alias="and", min_length=1, description="Holds where all of these hold.")
    ] = None
    or_: Annotated[
        list[RuleEntry] | None, Field(alias="or", min_length=1, description="Holds where one of these holds.")
    ] = None
    not_: Annotated[RuleEntry | None, Field(alias="not", description="Holds where this does not.")] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> RuleEntry:
        given = [kind for kind in RULE_KINDS if getattr(self, RULE_FIELDS.get(kind, kind)) is not None]
        if not given:
            raise fault("incomplete", "the rule tests nothing", f"give one of {', '.join(RULE_KINDS)}")
        if len(given) > 1:
            raise fault(
                "several", f"a rule has one test, not {len(given)}: {', '.join(given)}", "join rules with and: [...]"
            )
        return self


_CRON = (
    "Five fields (minute hour day month weekday) in UTC, or in the zone that the line begins with: "
    "CRON_TZ=Europe/Berlin 0 8 * * 1-5."
)


MessageName = Annotated[Line, Field(max_length=200)]


class TriggerEntry(Part):
    """Who fires the transition."""

    type: Annotated[
        Literal["auto", "manual", "timer", "message"],
        Field(description="auto fires by itself, manual by a person, timer when its time has come, message by one."),
    ]
    form: Annotated[JsonObject | None, Field(description="JSON Schema of what the person fills in (manual).")] = None
    roles: Annotated[list[Line] | None, Field(description="Roles that may fire it (manual). Default: everyone.")] = None
    after: Annotated[
        Duration | None, Field(description="Timer: so long after the token (the last, of several) came to its place.")
    ] = None
    at: Annotated[
        Line | None, Field(description="Timer: an instant (ISO 8601), or the path of one, such as data.deadline.")
    ] = None
    cron: Annotated[Line | None, Field(description=f"Timer: the first time after the token came. {_CRON}")] = None
    interrupt: Annotated[
        bool | None,
        Field(description="Timer: also take tokens that a firing holds, which is cancelled then. Default: false."),
    ] = None
    message: Annotated[MessageName | None, Field(description="Message: its name.")] = None
    correlate: Annotated[
        Annotated[
            Annotated[Line, Tag("<text>")] | Annotated[list[Line], Field(min_length=1, max_length=10), Tag("<list>")],
            by_kind("a path, or a list of paths", "text", "list"),
        ]
        | None,
        Field(
            description="Message: the path (or paths) to the key by which it finds its tokens. Default: it has no key."
        ),
    ] = None

    @model_validator(mode="after")
    def _own_keys(self) -> TriggerEntry:
        owners = {"form": "manual", "roles": "manual"}
        owners |= dict.fromkeys(("after", "at", "cron", "interrupt"), "timer")
        owners |= {"message": "message", "correlate": "message"}
        for key, owner in owners.items():
            if key in self.model_fields_set and owner != self.type:
                message = f"{key!r} belongs to a trigger of type {owner}, not {self.type}"
                raise fault("misplaced", message, f"write type: {owner}, or remove {key!r}", at=[key])
        if self.type == "message" and self.message is None:
            raise fault("incomplete", "a trigger of type message needs its name", "write message: NAME")
        times = [key for key in ("after", "at", "cron") if getattr(self, key) is not None]
        hint = "write after: 14d, at: data.deadline or cron: ..."
        if self.type == "timer" and not times:
            raise fault("incomplete", "a timer needs one of after, at and cron", hint)
        if self.type == "timer" and len(times) > 1:
            message = f"a timer needs one of after, at and cron, not {' and '.join(times)}"
            raise fault("several", message, hint, at=[times[1]])
        return self


class TransitionEntry(Part):
    """Takes tokens from places and puts tokens into places."""

    name: Annotated[Line | None, Field(description="Its name for people. Default: the id.")] = None
    description: Annotated[Text | None, Field(description="What it does.")] = None
    from_places: Annotated[
        Inputs | None, Field(description="The places that it takes a token from: all of them (the Petri rule).")
    ] = None
    from_any: Annotated[
        Inputs | None, Field(description="Places of which one must hold a token, beside all of from_places.")
    ] = None
    to_place: Annotated[Output | None, Field(description="The place that gets the token.")] = None
    to_places: Annotated[Outputs | None, Field(description="The places that get a token each.")] = None
    priority: Annotated[
        int | None,
        Field(ge=-1_000_000, le=1_000_000, description="Of several enabled, the highest fires first. Default: 0."),
    ] = None
    rules: Annotated[list[RuleEntry] | None, Field(description="Conditions in structured form; all must hold.")] = None
    conditions: Annotated[
        Annotated[
            Annotated[Text, Tag("<text>")] | Annotated[list[Text], Tag("<list>")],
            by_kind("a CEL expression, or a list of them", "text", "list"),
        ]
        | None,
        Field(
            description="CEL expressions over data, metadata (one consumed token), tokens.PLACE, case; all must hold."
        ),
    ] = None
    agent_execution: Annotated[
        Annotated[
            Annotated[Identifier, Tag("<text>")] | Annotated[AgentExecution, Tag("<mapping>")],
            by_kind("the id of an agent, or {agent_id, input_mapping, output_mapping, ...}", "text", "mapping"),
        ]
        | None,
        Field(description="Runs an agent: its id, or a mapping with agent_id."),
    ] = None
    action: Annotated[
        Action | None, Field(description="Does something else: the name of a function, or a mapping with type.")
    ] = None
    output_mapping: Annotated[
        OutputMappingEntries | None,
        Field(
            description="Manual transitions: {token_path: form.FIELD}; those of a message: {token_path: message.FIELD}."
        ),
    ] = None
    on_failure: Annotated[
        Identifier | None, Field(description="Where the tokens go when the agent or the action fails for good.")
    ] = None
    merge: Annotated[
        Literal["last", "deep", "list"] | None,
        Field(description="What a join does where its inputs give different values to one key."),
    ] = None
    trigger: Annotated[TriggerEntry | None, Field(description="Who fires it. Default: it fires by itself.")] = None
    cancels: Annotated[
        Annotated[
            Annotated[Identifier, Tag("<text>")]
            | Annotated[list[Identifier], Tag("<list>")]
            | Annotated[CancelEntry, Tag("<mapping>")],
            by_kind(
                "the name of a region, a list of them, or {regions, places, transitions}", "text", "list", "mapping"
            ),
        ]
        | None,
        Field(description="What is cancelled when it fires: what runs there ends, and the tokens are taken."),
    ] = None
    compensation: Annotated[
        Compensation | None,
        Field(
            description="What undoes a completed firing, when a transition that `compensates` fires: a function, or "
            "{action} or {agent_execution}, which get data.consumed.PLACE and data.produced.PLACE."
        ),
    ] = None
    compensates: Annotated[
        Annotated[
            Annotated[Identifier, Tag("<text>")] | Annotated[list[Identifier], Field(min_length=1), Tag("<list>")],
            by_kind("all, a transition, or a list of transitions", "text", "list"),
        ]
        | None,
        Field(
            description="When it fires, completed firings are undone, the last first, before its tokens arrive: those "
            "of `all` transitions with a compensation, or of the ones named."
        ),
    ] = None

    @model_validator(mode="after")
    def _one_spelling(self) -> TransitionEntry:
        if self.to_place is not None and self.to_places is not None:
            raise fault("several", "to_place and to_places exclude each other", "keep to_places", at=["to_place"])
        if self.agent_execution is not None and self.action is not None:
            message = "agent_execution and action exclude each other: a transition does one thing"
            raise fault("several", message, "remove one, or make two transitions of it", at=["action"])
        return self


class PlaceAgentSchedule(Part):
    """When a place agent runs."""

    initial_delay_seconds: Annotated[Duration | None, Field(description="Wait before the first run.")] = None
    interval_seconds: Annotated[Duration | None, Field(description="Time between runs.")] = None
    max_executions: Annotated[int | None, Field(ge=1, description="Runs for each stay of a token.")] = None
    cron: Annotated[Line | None, Field(description=f"The times of runs, instead of an interval. {_CRON}")] = None
    missed: Annotated[
        Literal["skip", "once", "all"] | None,
        Field(
            description="What becomes of runs whose time passed while no worker was there or the agent still ran: none "
            "(skip), one for all of them (once, the default), or each (all)."
        ),
    ] = None

    @model_validator(mode="after")
    def _one_rhythm(self) -> PlaceAgentSchedule:
        if self.cron is not None and self.interval_seconds is not None:
            raise fault("several", "cron and interval_seconds exclude each other", "remove one of them", at=["cron"])
        return self


class PlaceAgent(Part):
    """An agent that runs on the tokens of a place."""

    place_id: Annotated[Identifier, Field(description="The place.")]
    agent_id: Annotated[Identifier, Field(description="The agent (under `agents`).")]
    llm_config: Annotated[LlmConfig | None, Field(description="Merged key by key over the agent's.")] = None
    llm_provider: Annotated[LlmProvider | None, Field(description="In place of the agent's.")] = None
    trigger_conditions: Annotated[
        list[RuleEntry] | None, Field(description="Rules that must hold of the token; it waits until they do.")
    ] = None
    input_mapping: Annotated[
        InputMappingEntries | None, Field(description="What the agent gets. Default: the token's data.")
    ] = None
    output_mapping: Annotated[
        OutputMappingEntries | None, Field(description="What of the agent's output the token gets, where it lies.")
    ] = None
    auto_transition: Annotated[
        Identifier | None,
        Field(description="A transition that takes the token when the agent is done with it, and only then."),
    ] = None
    schedule: Annotated[
        PlaceAgentSchedule | None, Field(description="When it runs. Default: once, as soon as a token comes.")
    ] = None
    cron: Annotated[Line | None, Field(description=f"The times of runs; the same as schedule.cron. {_CRON}")] = None
    retry_config: Annotated[RetryConfig | None, Field(description="How often a failure is tried again.")] = None

    @model_validator(mode="after")
    def _one_cron(self) -> PlaceAgent:
        if (
            self.cron is not None
            and self.schedule is not None
            and (self.schedule.cron or self.schedule.interval_seconds)
        ):
            message = "cron and the rhythm of schedule exclude each other"
            raise fault("several", message, "keep one of them", at=["cron"])
        return self


class BudgetEntry(Part):
    """What one case may spend on calls of models. Each call is held at the most that it may cost before it is made."""

    calls: Annotated[int | None, Field(ge=0, description="Calls of models.")] = None
    tokens: Annotated[int | None, Field(ge=0, description="Tokens, those of prompts and of answers together.")] = None
    usd: Annotated[
        float | None, Field(ge=0, le=1_000_000_000, description="Money, in US dollars: models need a price then.")
    ] = None

    @model_validator(mode="after")
    def _any(self) -> BudgetEntry:
        if self.calls is None and self.tokens is None and self.usd is None:
            raise fault("incomplete", "the budget limits nothing", "give calls, tokens or usd")
        return self


def _check_event(kind: str) -> str:
    if kind not in CASE_EVENTS:
        raise fault("event", f"there is no event of the kind {kind!r}", f"there are {', '.join(CASE_EVENTS)}")
    return kind


EventKind = Annotated[str, AfterValidator(_check_event), Field(json_schema_extra={"enum": list(CASE_EVENTS)})]


class StartEntry(Part):
    """What starts cases, beside whoever asks for one."""

    message: Annotated[
        MessageName,
        Field(description="A message of this name that no case waits for starts one; its data is the token's."),
    ]


class IncludeEntry(Part):
    """A fragment that is put into this file."""

    file: Annotated[Line, Field(description="Its path, from the directory of the file that names it.")]
    with_: Annotated[
        JsonObject | None, Field(alias="with", description="Its parameters: texts of one line, numbers, booleans.")
    ] = None


class Document(Part):
    """A workflow of Circuit: a Petri net whose transitions may run agents."""

    workflow: Annotated[Identifier, Field(description="The id of the workflow; it stays the same over versions.")]
    name: Annotated[Line | None, Field(description="Its name for people. Default: the id.")] = None
    description: Annotated[Text | None, Field(description="What it is for.")] = None
    labels: Annotated[dict[Line, str] | None, Field(description="Names and values to find the workflow by.")] = None
    pool: Annotated[
        Identifier | None, Field(description="The pool of workers that runs its cases (`--pool`). Default: default.")
    ] = None
    colours: Annotated[
        dict[Identifier, JsonObject] | None,
        Field(description="JSON Schemas (draft 2020-12) of token data; $ref: '#/colours/NAME' names another colour."),
    ] = None
    places: Annotated[
        Annotated[list[Identifier], Tag("<list>")] | Annotated[dict[Identifier, PlaceEntry | None], Tag("<mapping>")],
        by_kind("a list of names, or a mapping of names to places", "list", "mapping"),
        Field(
            description="Where tokens lie: a mapping of names to places, or a list of names, of which the first is "
            "initial and those that no transition takes from are terminal."
        ),
    ]
    start: Annotated[StartEntry | None, Field(description="What starts cases, beside whoever asks for one.")] = None
    agents: Annotated[dict[Identifier, Agent] | None, Field(description="The agents that transitions run.")] = None
    transitions: Annotated[dict[Identifier, TransitionEntry], Field(description="What moves tokens.")]
    include: Annotated[
        list[
            Annotated[
                Annotated[Line, Tag("<text>")] | Annotated[IncludeEntry, Tag("<mapping>")],
                by_kind("the path of a fragment, or {file, with}", "text", "mapping"),
            ]
        ]
        | None,
        Field(description="Fragments whose places, transitions and the like are put into this file."),
    ] = None
    regions: Annotated[
        dict[Identifier, RegionEntry] | None, Field(description="Parts of the net that transitions cancel as a whole.")
    ] = None
    complete_when: Annotated[
        Text | None,
        Field(
            description="CEL over tokens.PLACE (lists) and case: a case is complete when it holds. Default: when all "
            "tokens lie in terminal places."
        ),
    ] = None
    outbox: Annotated[
        list[EventKind] | None,
        Field(description="The kinds of case events that consumers outside get (`circuit outbox tail`)."),
    ] = None
    budget: Annotated[BudgetEntry | None, Field(description="What each case may spend on calls of models.")] = None
    subject: Annotated[
        Annotated[
            Annotated[Line, Tag("<text>")] | Annotated[list[Line], Field(min_length=1, max_length=10), Tag("<list>")],
            by_kind("a path, or a list of paths", "text", "list"),
        ]
        | None,
        Field(
            description="Whom a case is about: the path (or paths) in the tokens that it starts with, such as "
            "data.customer_id, by which `circuit subjects` finds it."
        ),
    ] = None
    redaction: Annotated[
        Rules | None, Field(description="What is taken out of logs, events and prompts, beside the deployment's rules.")
    ] = None
    screening: Annotated[
        Screening | None,
        Field(description="What is done about what is found in what agents are told. Default: the deployment's."),
    ] = None
    place_agents: Annotated[
        list[PlaceAgent] | None,
        Field(description="Agents that run on tokens while they lie in a place, and patch them there."),
    ] = None

"""Every error that Circuit raises, grouped by who must act.

    CircuitError
    ├── DefinitionError            the author of a workflow          invalid_definition
    ├── RequestError               the caller
    │   ├── InvalidRequest         invalid_request
    │   ├── NotFound               not_found
    │   ├── Conflict               conflict
    │   ├── Unauthenticated        unauthenticated
    │   ├── Forbidden              forbidden
    │   ├── TooManyRequests        too_many_requests (retryable)
    │   ├── NoWorker               no_worker         (retryable)
    │   ├── Restarting             restarting        (retryable)
    │   ├── TokenRefused           token_refused
    │   └── PayloadTooLarge        payload_too_large
    ├── NetError                   whoever wrote the code that calls the net     net_misuse
    ├── FiringError                decides what becomes of a firing
    │   ├── MappingError           mapping_error
    │   ├── MergeConflict          merge_conflict
    │   ├── ColourMismatch         colour_mismatch
    │   ├── ExecutionTimeout       timeout           (retryable)
    │   ├── InvalidInput           invalid_input
    │   ├── InvalidOutput          invalid_output    (retryable)
    │   ├── Cancelled              cancelled
    │   ├── Crashed                crashed
    │   ├── Livelock               livelock
    │   ├── JobFailed              job_failed
    │   ├── JobLost                job_lost          (retryable)
    │   ├── SubworkflowFailed      subworkflow_failed
    │   ├── HostRefused            host_refused
    │   ├── UnexpectedStatus       unexpected_status
    │   ├── BudgetExhausted        budget_exhausted
    │   ├── BudgetUnbounded        budget_unbounded
    │   ├── AgentNotAllowed        agent_not_allowed
    │   └── ActionFailed           action_failed
    ├── ProviderError              a model provider, or its set-up
    │   ├── ProviderMisconfigured  provider_misconfigured
    │   ├── KeyMissing             key_missing
    │   ├── AuthenticationRefused  authentication
    │   ├── KeyExpired             key_expired
    │   ├── ModelRequestRefused    provider_refused
    │   ├── ModelNotFound          model_not_found
    │   ├── ContextTooLong         context_too_long
    │   ├── QuotaExceeded          quota
    │   ├── RateLimited            rate_limit        (retryable)
    │   ├── ProviderUnavailable    unavailable       (retryable)
    │   ├── ProviderTimeout        timeout           (retryable)
    │   ├── BadResponse            bad_response      (retryable)
    │   ├── StreamCut              stream_cut        (retryable)
    │   ├── OutputTruncated        output_truncated
    │   ├── ContentFiltered        content_filter
    │   ├── ModelRefusal           refusal
    │   ├── ExtraMissing           extra_missing
    │   ├── ModelOptionsRefused    model_options
    │   ├── ModelOutOfMemory       model_out_of_memory
    │   ├── ModelUnsupported       model_unsupported
    │   └── ModelCrashed           model_crashed     (retryable)
    ├── AgentError                 the author of an agent
    │   ├── TurnLimit              turn_limit
    │   ├── ToolLoop               tool_loop
    │   ├── ToolsMisconfigured     tools_misconfigured
    │   ├── ToolsUnreachable       tools_unreachable (retryable)
    │   ├── ToolSchemaInvalid      tool_schema_invalid
    │   ├── OutputImpossible       output_impossible
    │   ├── OutputHeld             output_held
    │   ├── InputRefused           input_refused
    │   ├── InvisibleCharacters    invisible_characters
    │   ├── InjectedInstructions   injected_instructions
    │   └── ControlTokens          control_tokens
    ├── ToolError                  the model, which is told of it and goes on
    │   ├── ToolUnknown            tool_unknown
    │   ├── ToolArgumentsInvalid   tool_arguments
    │   ├── ToolArgumentsMalformed tool_arguments_malformed
    │   ├── ToolDenied             tool_denied
    │   ├── ToolFailed             tool_failed
    │   ├── ToolServerLost         tool_server_lost
    │   ├── ToolSchemaBroken       tool_schema_broken
    │   ├── ToolTimeout            tool_timeout
    │   ├── ToolOutputInvalid      tool_output
    │   ├── ToolOutputTooLarge     tool_output_too_large
    │   └── ToolOutputBinary       tool_output_binary
    ├── StorageError               the database, or its set-up
    │   ├── DatabaseUnreachable    database_unreachable (retryable)
    │   ├── DatabaseNotStarted     database_not_started (retryable), an unreachable one
    │   ├── DatabaseMisconfigured  database_misconfigured
    │   ├── SchemaMismatch         schema_mismatch
    │   ├── UnstorableText         unstorable_text
    │   ├── HomeNotWritable        home_not_writable
    │   ├── ArchiveDamaged         archive_damaged
    │   ├── ArtefactLost           artefact_lost
    │   ├── GuardLost              guard_lost
    │   └── Fenced                 fenced
    └── StreamError                a reader of streams
        ├── InvalidCursor          invalid_cursor
        └── StreamRetired          stream_retired

A message says what is wrong, with which thing, and what to do. No message holds a secret.
"""

from circuit.errors.firings import (
    ActionFailed,
    AgentNotAllowed,
    BudgetExhausted,
    BudgetUnbounded,
    Cancelled,
    ColourMismatch,
    Crashed,
    ExecutionTimeout,
    FiringError,
    HostRefused,
    InvalidInput,
    InvalidOutput,
    JobFailed,
    JobLost,
    Livelock,
    MappingError,
    MergeConflict,
    NetError,
    SubworkflowFailed,
    UnexpectedStatus,
)
from circuit.errors.models import (
    AgentError,
    AuthenticationRefused,
    BadResponse,
    ContentFiltered,
    ContextTooLong,
    ControlTokens,
    ExtraMissing,
    InjectedInstructions,
    InputRefused,
    InvisibleCharacters,
    KeyExpired,
    KeyMissing,
    ModelCrashed,
    ModelNotFound,
    ModelOptionsRefused,
    ModelOutOfMemory,
    ModelRefusal,
    ModelRequestRefused,
    ModelUnsupported,
    OutputHeld,
    OutputImpossible,
    OutputTruncated,
    ProviderError,
    ProviderMisconfigured,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    StreamCut,
    ToolArgumentsInvalid,
    ToolArgumentsMalformed,
    ToolDenied,
    ToolError,
    ToolFailed,
    ToolLoop,
    ToolOutputBinary,
    ToolOutputInvalid,
    ToolOutputTooLarge,
    ToolSchemaBroken,
    ToolSchemaInvalid,
    ToolServerLost,
    ToolsMisconfigured,
    ToolsUnreachable,
    ToolTimeout,
    ToolUnknown,
    TurnLimit,
)
from circuit.errors.requests import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    NoWorker,
    PayloadTooLarge,
    RequestError,
    Restarting,
    TokenRefused,
    TooManyRequests,
    Unauthenticated,
    refused,
)
from circuit.errors.root import CircuitError, DefinitionError, Fault
from circuit.errors.stores import (
    ArchiveDamaged,
    ArtefactLost,
    DatabaseMisconfigured,
    DatabaseNotStarted,
    DatabaseUnreachable,
    Fenced,
    GuardLost,
    HomeNotWritable,
    InvalidCursor,
    SchemaMismatch,
    StorageError,
    StreamError,
    StreamRetired,
    UnstorableText,
)

__all__ = [
    "ActionFailed",
    "AgentError",
    "AgentNotAllowed",
    "ArchiveDamaged",
    "ArtefactLost",
    "AuthenticationRefused",
    "BadResponse",
    "BudgetExhausted",
    "BudgetUnbounded",
    "Cancelled",
    "CircuitError",
    "ColourMismatch",
    "Conflict",
    "ContentFiltered",
    "ContextTooLong",
    "ControlTokens",
    "Crashed",
    "DatabaseMisconfigured",
    "DatabaseNotStarted",
    "DatabaseUnreachable",
    "DefinitionError",
    "ExecutionTimeout",
    "ExtraMissing",
    "Fault",
    "Fenced",
    "FiringError",
    "Forbidden",
    "GuardLost",
    "HomeNotWritable",
    "HostRefused",
    "InjectedInstructions",
    "InputRefused",
    "InvalidCursor",
    "InvalidInput",
    "InvalidOutput",
    "InvalidRequest",
    "InvisibleCharacters",
    "JobFailed",
    "JobLost",
    "KeyExpired",
    "KeyMissing",
    "Livelock",
    "MappingError",
    "MergeConflict",
    "ModelCrashed",
    "ModelNotFound",
    "ModelOptionsRefused",
    "ModelOutOfMemory",
    "ModelRefusal",
    "ModelRequestRefused",
    "ModelUnsupported",
    "NetError",
    "NoWorker",
    "NotFound",
    "OutputHeld",
    "OutputImpossible",
    "OutputTruncated",
    "PayloadTooLarge",
    "ProviderError",
    "ProviderMisconfigured",
    "ProviderTimeout",
    "ProviderUnavailable",
    "QuotaExceeded",
    "RateLimited",
    "RequestError",
    "Restarting",
    "SchemaMismatch",
    "StorageError",
    "StreamCut",
    "StreamError",
    "StreamRetired",
    "SubworkflowFailed",
    "TokenRefused",
    "TooManyRequests",
    "ToolArgumentsInvalid",
    "ToolArgumentsMalformed",
    "ToolDenied",
    "ToolError",
    "ToolFailed",
    "ToolLoop",
    "ToolOutputBinary",
    "ToolOutputInvalid",
    "ToolOutputTooLarge",
    "ToolSchemaBroken",
    "ToolSchemaInvalid",
    "ToolServerLost",
    "ToolTimeout",
    "ToolUnknown",
    "ToolsMisconfigured",
    "ToolsUnreachable",
    "TurnLimit",
    "Unauthenticated",
    "UnexpectedStatus",
    "UnstorableText",
    "refused",
]

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
    │   ├── HostRefused            host_refused
    │   ├── UnexpectedStatus       unexpected_status
    │   └── ActionFailed           action_failed
    ├── ProviderError              a model provider, or its set-up
    │   ├── ProviderMisconfigured  provider_misconfigured
    │   ├── AuthenticationRefused  authentication
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
    │   └── ModelRefusal           refusal
    ├── AgentError                 the author of an agent
    │   ├── TurnLimit              turn_limit
    │   ├── ToolLoop               tool_loop
    │   ├── ToolsMisconfigured     tools_misconfigured
    │   └── OutputHeld             output_held
    ├── ToolError                  the model, which is told of it and goes on
    │   ├── ToolUnknown            tool_unknown
    │   ├── ToolArgumentsInvalid   tool_arguments
    │   ├── ToolDenied             tool_denied
    │   ├── ToolFailed             tool_failed
    │   ├── ToolTimeout            tool_timeout
    │   └── ToolOutputInvalid      tool_output
    ├── StorageError               the database, or its set-up
    │   ├── DatabaseUnreachable    database_unreachable (retryable)
    │   ├── DatabaseMisconfigured  database_misconfigured
    │   ├── SchemaMismatch         schema_mismatch
    │   ├── HomeNotWritable        home_not_writable
    │   ├── GuardLost              guard_lost
    │   └── Fenced                 fenced
    └── StreamError                a reader of streams
        └── InvalidCursor          invalid_cursor

A message says what is wrong, with which thing, and what to do. No message holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class CircuitError(Exception):
    """What all of Circuit's errors are. `code` is stable; `retryable` says whether the same call may work later."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, retry_after: float | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.details = dict(details or {})

    def as_dict(self) -> dict[str, Any]:
        """The error as it goes into rows, frames and answers."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file. Lines and columns count from 1."""

    source: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}: "
        path = f"{self.path}: " if self.path else ""
        return where + path + self.message + (f" ({self.hint})" if self.hint else "")


class DefinitionError(CircuitError):
    """A workflow that cannot be used, with all of its faults."""

    code = "invalid_definition"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        count = len(self.faults)
        lines = "\n".join(str(fault) for fault in self.faults)
        super().__init__(
            f"{count} fault{'' if count == 1 else 's'}:\n{lines}",
            details={
                "faults": [
                    {
                        "file": fault.source,
                        "line": fault.line,
                        "column": fault.column,
                        "path": fault.path,
                        "message": fault.message,
                        "hint": fault.hint,
                    }
                    for fault in self.faults
                ]
            },
        )


class RequestError(CircuitError):
    """The caller asked for something that cannot be."""

    code = "request_error"


class InvalidRequest(RequestError):
    code = "invalid_request"


class NotFound(RequestError):
    code = "not_found"


class Conflict(RequestError):
    """The thing is not in a state that allows this."""

    code = "conflict"


class Unauthenticated(RequestError):
    """Nobody knows who asks: there is no credential, or it does not hold (any more)."""

    code = "unauthenticated"


class Forbidden(RequestError):
    code = "forbidden"


class TooManyRequests(RequestError):
    """The caller asks more often than it may."""

    code = "too_many_requests"
    retryable = True


class TokenRefused(RequestError):
    """A token from outside that its place does not take."""

    code = "token_refused"


class PayloadTooLarge(RequestError):
    code = "payload_too_large"


class NetError(CircuitError):
    """The net was asked for something that its rules exclude: a programming fault."""

    code = "net_misuse"


class FiringError(CircuitError):
    """A firing that cannot complete; the engine decides between a retry, `on_failure` and an incident."""

    code = "firing_failed"


class MappingError(FiringError):
    """A path of a mapping leads nowhere."""

    code = "mapping_error"


class MergeConflict(FiringError):
    """The inputs of a join give different values to one key, and nothing says which counts."""

    code = "merge_conflict"


class ColourMismatch(FiringError):
    """A token that a firing would produce does not fit its place."""

    code = "colour_mismatch"


class ExecutionTimeout(FiringError):
    code = "timeout"
    retryable = True


class InvalidInput(FiringError):
    """An action was called with inputs that it does not take."""

    code = "invalid_input"


class InvalidOutput(FiringError):
    """An agent's answer does not fit its `output_schema`, or cannot be stored."""

    code = "invalid_output"
    retryable = True


class Cancelled(FiringError):
    code = "cancelled"


class Crashed(FiringError):
    """A firing whose process was lost again and again."""

    code = "crashed"


class Livelock(FiringError):
    """Immediate transitions that only repeat what they did before."""

    code = "livelock"


class JobFailed(FiringError):
    """A job ended, and not well."""

    code = "job_failed"


class JobLost(FiringError):
    """A job is neither running nor has it said how it ended."""

    code = "job_lost"
    retryable = True


class HostRefused(FiringError):
    """An action may not call this server."""

    code = "host_refused"


class UnexpectedStatus(FiringError):
    """A server answered an action's request with a status that is no success."""

    code = "unexpected_status"


class ActionFailed(FiringError):
    """An action raised something that is not one of these errors."""

    code = "action_failed"


class ProviderError(CircuitError):
    """A model provider did not give an answer."""

    code = "provider_error"


class ProviderMisconfigured(ProviderError):
    """A key, a base URL or an environment variable is missing."""

    code = "provider_misconfigured"


class AuthenticationRefused(ProviderError):
    code = "authentication"


class ModelRequestRefused(ProviderError):
    """The provider will not take this request (4xx other than 401, 403, 408, 409 and 429)."""

    code = "provider_refused"


class ModelNotFound(ProviderError):
    """The provider has no such model, or not for this key."""

    code = "model_not_found"


class ContextTooLong(ProviderError):
    """The prompt is longer than what the model can hold."""

    code = "context_too_long"


class QuotaExceeded(ProviderError):
    """The account has no money or no daily allowance left: waiting a minute does not help."""

    code = "quota"


class RateLimited(ProviderError):
    code = "rate_limit"
    retryable = True


class ProviderUnavailable(ProviderError):
    code = "unavailable"
    retryable = True


class ProviderTimeout(ProviderError):
    code = "timeout"
    retryable = True


class BadResponse(ProviderError):
    """The provider answered with something that is not its protocol."""

    code = "bad_response"
    retryable = True


class StreamCut(ProviderError):
    """A stream of a provider that ended without its terminal marker."""

    code = "stream_cut"
    retryable = True


class OutputTruncated(ProviderError):
    """The model stopped at `max_tokens` before its structured answer was whole."""

    code = "output_truncated"


class ContentFiltered(ProviderError):
    """The provider's filter stopped the prompt or the answer."""

    code = "content_filter"


class ModelRefusal(ProviderError):
    """The model refused to answer."""

    code = "refusal"


class AgentError(CircuitError):
    """An agent that went on in a way that its author must look at: no other attempt would end better."""

    code = "agent_error"


class TurnLimit(AgentError):
    """The agent was not done after as many turns as it may have."""

    code = "turn_limit"


class ToolLoop(AgentError):
    """The model made the same call with the same arguments again and again."""

    code = "tool_loop"


class ToolsMisconfigured(AgentError):
    """A tool that an agent names is not there, or cannot be used as it is set up."""

    code = "tools_misconfigured"


class OutputHeld(AgentError):
    """An interceptor held the answer of a model back."""

    code = "output_held"


class ToolError(CircuitError):
    """A call of a tool that gave no result. The model is told why, and the run goes on."""

    code = "tool_error"


class ToolUnknown(ToolError):
    """There is no tool of the name that the model called."""

    code = "tool_unknown"


class ToolArgumentsInvalid(ToolError):
    """The arguments are no JSON object, or do not fit the tool's schema."""

    code = "tool_arguments"


class ToolDenied(ToolError):
    """A policy, or a person, does not allow the call."""

    code = "tool_denied"


class ToolFailed(ToolError):
    """The tool raised an error of its own."""

    code = "tool_failed"


class ToolTimeout(ToolError):
    code = "tool_timeout"


class ToolOutputInvalid(ToolError):
    """What the tool gave back is too large, or nothing that a model can read."""

    code = "tool_output"


class StorageError(CircuitError):
    """The database did not do what was asked."""

    code = "storage_error"


class DatabaseUnreachable(StorageError):
    code = "database_unreachable"
    retryable = True


class DatabaseMisconfigured(StorageError):
    code = "database_misconfigured"


class SchemaMismatch(StorageError):
    """The database is at another revision than this release."""

    code = "schema_mismatch"


class HomeNotWritable(StorageError):
    """The directory of the embedded database cannot be written."""

    code = "home_not_writable"


class GuardLost(StorageError):
    """A write found its case in another state than its owner knew."""

    code = "guard_lost"


class Fenced(StorageError):
    """This worker was declared dead: nothing that it writes counts any more."""

    code = "fenced"


class StreamError(CircuitError):
    """A stream cannot be read as asked."""

    code = "stream_error"


class InvalidCursor(StreamError):
    code = "invalid_cursor"


def refused(code: str, message: str) -> RequestError:
    """The error that a row holds as `{code, message}`, as its caller is to get it. What is none of a caller's errors
    becomes a `Conflict`."""
    kinds: dict[str, type[RequestError]] = {kind.code: kind for kind in RequestError.__subclasses__()}
    return kinds.get(code, Conflict)(message)

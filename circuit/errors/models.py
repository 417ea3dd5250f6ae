"""What goes wrong with a model, its agent and its tools."""

from __future__ import annotations

from circuit.errors.root import CircuitError


class ProviderError(CircuitError):
    """A model provider did not give an answer."""

    code = "provider_error"


class ProviderMisconfigured(ProviderError):
    """A key, a base URL or an environment variable is missing."""

    code = "provider_misconfigured"


class KeyMissing(ProviderMisconfigured):
    """The key of a provider is not set in the environment."""

    code = "key_missing"


class AuthenticationRefused(ProviderError):
    code = "authentication"


class KeyExpired(AuthenticationRefused):
    """The key was one, and its time is over."""

    code = "key_expired"


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
    """The model stopped at `max_tokens` before its structured answer, or a call, was whole."""

    code = "output_truncated"


class ContentFiltered(ProviderError):
    """The provider's filter stopped the prompt or the answer."""

    code = "content_filter"


class ModelRefusal(ProviderError):
    """The model refused to answer."""

    code = "refusal"


class ExtraMissing(ProviderError):
    """A part of Circuit that is installed by an extra of its own is not installed."""

    code = "extra_missing"


class ModelOptionsRefused(ProviderError):
    """The engine inside does not take the options that a model is to be loaded with."""

    code = "model_options"


class ModelOutOfMemory(ProviderError):
    """The memory of the machine does not hold the model."""

    code = "model_out_of_memory"


class ModelUnsupported(ProviderError):
    """The model, as it is loaded, cannot do what is asked of it."""

    code = "model_unsupported"


class ModelCrashed(ProviderError):
    """The process of a model ended while it answered."""

    code = "model_crashed"
    retryable = True


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


class ToolsUnreachable(AgentError):
    """The server of an agent's tools cannot be reached, or is not well, so that nobody knows which tools there are."""

    code = "tools_unreachable"
    retryable = True


class OutputHeld(AgentError):
    """An interceptor held the answer of a model back."""

    code = "output_held"


class InputRefused(AgentError):
    """Something that an agent would be told holds what its screening refuses."""

    code = "input_refused"


class InvisibleCharacters(InputRefused):
    code = "invisible_characters"


class InjectedInstructions(InputRefused):
    code = "injected_instructions"


class ControlTokens(InputRefused):
    code = "control_tokens"


class ToolSchemaInvalid(ToolsMisconfigured):
    """A server describes a tool by what is no JSON Schema."""

    code = "tool_schema_invalid"


class OutputImpossible(AgentError):
    """Nothing satisfies the schema that an agent's output is to fit."""

    code = "output_impossible"


class ToolError(CircuitError):
    """A call of a tool that gave no result. The model is told why, and the run goes on."""

    code = "tool_error"


class ToolUnknown(ToolError):
    """There is no tool of the name that the model called."""

    code = "tool_unknown"


class ToolArgumentsInvalid(ToolError):
    """The arguments do not fit the tool's schema."""

    code = "tool_arguments"


class ToolArgumentsMalformed(ToolArgumentsInvalid):
    """The arguments are no JSON object."""

    code = "tool_arguments_malformed"


class ToolDenied(ToolError):
    """A policy, or a person, does not allow the call."""

    code = "tool_denied"


class ToolFailed(ToolError):
    """The tool raised an error of its own."""

    code = "tool_failed"


class ToolServerLost(ToolFailed):
    """The server of a tool cannot be reached, or went away before it answered."""

    code = "tool_server_lost"


class ToolSchemaBroken(ToolFailed):
    """The server of a tool does not keep to the schema that it gave."""

    code = "tool_schema_broken"


class ToolTimeout(ToolError):
    code = "tool_timeout"


class ToolOutputInvalid(ToolError):
    """What the tool gave back is nothing that a model can read."""

    code = "tool_output"


class ToolOutputTooLarge(ToolOutputInvalid):
    code = "tool_output_too_large"


class ToolOutputBinary(ToolOutputInvalid):
    code = "tool_output_binary"

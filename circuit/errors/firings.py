"""What decides what becomes of a firing."""

from __future__ import annotations

from circuit.errors.root import CircuitError


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


class SubworkflowFailed(FiringError):
    """The case that a firing opened failed or was cancelled, or could not be opened."""

    code = "subworkflow_failed"


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


class BudgetExhausted(FiringError):
    """A call of a model could cost more than is left of a budget of the case, its workflow or its tenant."""

    code = "budget_exhausted"


class BudgetUnbounded(FiringError):
    """A budget applies, and nobody can say what a call of a model costs at most."""

    code = "budget_unbounded"


class AgentNotAllowed(FiringError):
    """A workflow may not use an agent, by the rules that its administrators have set."""

    code = "agent_not_allowed"


class ActionFailed(FiringError):
    """An action raised something that is not one of these errors."""

    code = "action_failed"

"""What the caller of a command or of the API did wrong."""

from __future__ import annotations

from circuit.errors.root import CircuitError


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
    """Nobody knows who asks: there is no credential, or it does not hold (any more).

    `guessed`: this may have been a guess; what has merely expired was none. `key` is the id of the API key that was
    shown, which is no secret.
    """

    code = "unauthenticated"

    def __init__(self, message: str, *, guessed: bool = True, key: str | None = None) -> None:
        super().__init__(message)
        self.guessed = guessed
        self.key = key


class Forbidden(RequestError):
    code = "forbidden"


class TooManyRequests(RequestError):
    """The caller asks more often than it may."""

    code = "too_many_requests"
    retryable = True


class NoWorker(RequestError):
    """No worker that is running can do what is asked for; one that is started may."""

    code = "no_worker"
    retryable = True


class Restarting(RequestError):
    """The server stops before it has the answer; another one, or this one when it is back, may give it."""

    code = "restarting"
    retryable = True


class TokenRefused(RequestError):
    """A token from outside that its place does not take."""

    code = "token_refused"


class PayloadTooLarge(RequestError):
    code = "payload_too_large"


def refused(code: str, message: str) -> RequestError:
    """The error that a row holds as `{code, message}`, as its caller is to get it. What is none of a caller's errors
    becomes a `Conflict`."""
    kinds: dict[str, type[RequestError]] = {kind.code: kind for kind in RequestError.__subclasses__()}
    return kinds.get(code, Conflict)(message)

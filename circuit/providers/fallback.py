"""Asks another model where one fails.

Before the first chunk nobody notices. After it the stream is marked as restarted: what was said no longer counts, and
the other model begins anew; nothing is ever continued in the middle. What one provider wants back from an earlier
answer is not shown to another one: it is marked with its protocol.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from circuit.errors import (
    AuthenticationRefused,
    ContextTooLong,
    ExtraMissing,
    ModelNotFound,
    ModelOptionsRefused,
    ModelOutOfMemory,
    ModelUnsupported,
    ProviderError,
    ProviderMisconfigured,
    QuotaExceeded,
)
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, Provider, Restarted, recalled
from circuit.value import dataclass

_ANOTHER_HELPS = (
    AuthenticationRefused,
    ContextTooLong,
    ExtraMissing,
    ModelNotFound,
    ModelOptionsRefused,
    ModelOutOfMemory,
    ModelUnsupported,
    ProviderMisconfigured,
    QuotaExceeded,
)


@dataclass(frozen=True, slots=True)
class Choice:
    """One model of one provider. `fitted` makes of a request what this model can hold of it."""

    name: str
    model: str
    provider: Provider
    fitted: Callable[[ModelRequest], ModelRequest] = lambda request: request


class FallbackProvider:
    """Streams from the first of `choices` that answers."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices

    async def recall(self, request: ModelRequest) -> Sequence[ModelChunk] | None:
        """What the first of them has: what another one has counts only where the first one fails."""
        first = self._choices[0]
        return await recalled(first.provider, replace(request, model=first.model))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        fault: ProviderError | None = None
        said = False
        for number, choice in enumerate(self._choices):
            if fault is not None and said:
                yield Restarted(f"{choice.name} is asked instead: {fault.code}")
                said = False
            asked = choice.fitted(replace(request, model=choice.model))
            kept = await recalled(choice.provider, asked) if number else None
            if kept is not None:
                for chunk in kept:
                    yield _of(number, chunk)
                return
            try:
                async with aclosing(choice.provider.stream(asked)) as chunks:
                    async for chunk in chunks:
                        said = True
                        yield _of(number, chunk)
                return
            except ProviderError as error:
                if not (error.retryable or isinstance(error, _ANOTHER_HELPS)):
                    raise
                fault = error
        if fault is not None:
            raise fault


def _of(number: int, chunk: ModelChunk) -> ModelChunk:
    return replace(chunk, choice=number) if isinstance(chunk, Finished) else chunk

"""Whether a failed attempt is tried again, and when: a pure decision."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b

from circuit.definition.workflow import RetryPolicy
from circuit.errors import CircuitError
from circuit.ids import CaseKey

LONGEST_WAIT_SECONDS = 24 * 3600.0


def retry_at(
    policy: RetryPolicy, error: CircuitError, *, key: CaseKey, firing: int, attempt: int, now: datetime
) -> datetime | None:
    """When attempt `attempt + 1` may start, or None if there is none.

    The wait doubles with each attempt and loses up to half of itself to jitter. The jitter is drawn from the
    firing's own name, so that a replay of the case decides alike. A provider that says how long to wait is heeded.
    """
    if attempt >= policy.max_attempts:
        return None
    allowed = error.code in policy.retry_on_errors if policy.retry_on_errors else error.retryable
    if not allowed:
        return None
    wait = min(policy.backoff_seconds * 2 ** (attempt - 1), LONGEST_WAIT_SECONDS)
    wait *= 1 - _jitter(key, firing, attempt) / 2
    if error.retry_after is not None:
        wait = max(wait, min(error.retry_after, LONGEST_WAIT_SECONDS))
    return now + timedelta(seconds=wait)


def _jitter(key: CaseKey, firing: int, attempt: int) -> float:
    digest = blake2b(f"{key.case}.{firing}.{attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32

"""What a provider's refusal means: from a status, headers and a body, or from an error inside a stream, to an error.

Pure: the present instant and the known secrets are handed in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

from circuit.errors import (
    AuthenticationRefused,
    BadResponse,
    ContentFiltered,
    ContextTooLong,
    KeyExpired,
    ModelNotFound,
    ModelOutOfMemory,
    ModelRequestRefused,
    ProviderError,
    ProviderMisconfigured,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
)
from circuit.security.redaction import excerpt, redact

MESSAGE_LIMIT = 500
"""How many characters of a server's own message are quoted."""

_QUOTA = re.compile(
    r"insufficient_quota|insufficient.{0,10}(credit|balance|fund)|credit balance|billing_(hard_limit|error)|PerDay"
    r"|exceeded your current quota(?!.*retry in)|payment required",
    re.IGNORECASE | re.DOTALL,
)
_CONTEXT = re.compile(
    r"context_length_exceeded|string_above_max_length|prompt is too long|maximum context length|context window"
    r"|context length|input token count.{0,40}exceeds|exceeds the maximum number of tokens|too many (input )?tokens"
    r"|exceeds the available context size|context limit|input is too long|maximum prompt length"
    r"|inputs.{0,20}tokens.{0,40}must be <=",
    re.IGNORECASE | re.DOTALL,
)
_OVERSIZE = re.compile(r"request too large for", re.IGNORECASE)
"""A request that is larger than what an account may ask for in a minute: no waiting makes it smaller."""
_MEMORY = re.compile(r"requires more (system )?memory", re.IGNORECASE)
"""Ollama's words; that a card has none left just now may pass."""
_FILTER = re.compile(
    r"content_filter|content_policy_violation|responsible ?ai ?policy|content management policy", re.IGNORECASE
)
_MODEL = re.compile(
    r"model_not_found|model.{0,80}(does not exist|not exist|not found|is not found)|not_found_error.{0,60}model"
    r"|DeploymentNotFound|model_not_available|(invalid|unknown) model\b",
    re.IGNORECASE | re.DOTALL,
)
_KEY = re.compile(
    r"API_KEY_INVALID|API key not valid|API key expired|invalid x-api-key|(invalid|incorrect)[_ ]api[_ ]key",
    re.IGNORECASE,
)
_UNREADABLE = re.compile(r"tool_use_failed|json_validate_failed")
"""Groq's words for what the model itself wrote wrongly: asked again, it may not."""
_EXPIRED = re.compile(
    r"(key|token|credential)s?\b[^.\"]{0,40}\bexpired|expired[^.\"]{0,20}\b(key|token|credential)|(key|token)_expired",
    re.IGNORECASE,
)
_UNAVAILABLE_WORDS = ("server_error", "overloaded", "unavailable", "timeout", "internal", "busy")


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom the request went to, as its errors need it. `key_hint` says how to set the key."""

    place: str
    model: str
    key_hint: str
    secrets: tuple[str, ...] = ()

    def quote(self, text: str) -> str:
        """`text` of the server as it may be shown."""
        return excerpt(redact(text, self.secrets), MESSAGE_LIMIT)


def status_error(peer: Peer, status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderError:
    """The error that an answer with another status than 200 means."""
    said = _message_of(body)
    whole = body.decode("utf-8", "replace")
    return _error(peer, status, peer.quote(said) if said else "", _wait(headers, whole, now), whole)


def stream_error(peer: Peer, error: Any, now: datetime) -> ProviderError:
    """The error that `error`, sent inside a stream or a body whose status was 200, means."""
    detail: Mapping[str, Any] = cast("Mapping[str, Any]", error) if isinstance(error, Mapping) else {"message": error}
    message = detail.get("message")
    said = peer.quote(message if isinstance(message, str) else json.dumps(message or detail, default=str))
    status = _status_of(detail)
    metadata = detail.get("metadata")
    headers: Any = cast("Mapping[str, Any]", metadata).get("headers") if isinstance(metadata, Mapping) else None
    wait = None
    if isinstance(headers, Mapping):
        fields = cast("Mapping[str, Any]", headers)
        wait = retry_after({name.lower(): str(value) for name, value in fields.items()}, now)
    whole = json.dumps(error, default=str)
    return _error(peer, status, said, wait if wait is not None else _delay(whole), whole)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait before the next request, if the server says so: `retry-after-ms`, or `Retry-After` in seconds
    or as an HTTP date (RFC 9110, section 10.2.3), counted from the answer's own `Date` where it has one."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    due = _date(text)
    if due is None:
        return None
    begin = _date(headers.get("date", "")) or now
    return max(0.0, (due - begin).total_seconds())


def _wait(headers: Mapping[str, str], body: str, now: datetime) -> float | None:
    seconds = retry_after(headers, now)
    return seconds if seconds is not None else _delay(body)


def _delay(body: str) -> float | None:
    """The delay of Google's `RetryInfo`, as `"27s"`."""
    found = re.search(r'"retryDelay"\s*:\s*"(\d+(?:\.\d+)?)s"', body)
    return float(found[1]) if found else None


def _error(peer: Peer, status: int | None, said: str, wait: float | None, whole: str) -> ProviderError:
    """`whole` is all that the server said, in which words tell causes that share a status; it is never quoted."""
    tail = f": {said.rstrip('.')}" if said else ""
    if status in (400, 401, 403) and _EXPIRED.search(whole):
        return KeyExpired(f"{peer.place} says that the key has expired ({status}). {peer.key_hint}")
    if status == 400 and _KEY.search(whole):
        return AuthenticationRefused(f"{peer.place} does not accept the key (400). {peer.key_hint}")
    if status == 402 or (status in (400, 403, 429, None) and _QUOTA.search(whole)):
        return QuotaExceeded(f"the account at {peer.place} has no quota left ({status or 'in its answer'}){tail}")
    if status == 401:
        # The server's own message is left out: it may quote the key in part.
        return AuthenticationRefused(f"{peer.place} does not accept the key (401). {peer.key_hint}")
    if status == 403:
        return AuthenticationRefused(
            f"{peer.place} does not allow this key to use the model {peer.model!r} (403){tail}. {peer.key_hint}"
        )
    if (status in (400, 413, 422, None) and _CONTEXT.search(whole)) or (
        status in (413, 429) and _OVERSIZE.search(whole)
    ):
        return ContextTooLong(f"the prompt is longer than {peer.model!r} at {peer.place} can hold{tail}")
    if status == 429:
        hint = f" It asks to wait {wait:g} s." if wait is not None else ""
        return RateLimited(f"{peer.place} limits the rate of requests (429){tail}.{hint}", retry_after=wait)
    if status in (500, None) and _MEMORY.search(whole):
        return ModelOutOfMemory(f"{peer.place} has not the memory for {peer.model!r}{tail}")
    if (status is not None and status >= 500) or status in (408, 409):
        return ProviderUnavailable(f"{peer.place} cannot answer now ({status}){tail}", retry_after=wait)
    if status is not None and 300 <= status < 400:
        return ProviderMisconfigured(
            f"{peer.place} answers with a redirect ({status}), and redirects are not followed:"
            " set the base URL to the address that it points to."
        )
    if status in (400, 422, None) and _UNREADABLE.search(whole):
        return BadResponse(f"{peer.place} could not read what the model wrote{tail}")
    if status in (400, 422, None) and _FILTER.search(whole):
        return ContentFiltered(f"the content filter of {peer.place} stopped the request{tail}")
    if status in (400, 404, None) and _MODEL.search(whole):
        where = status or "in its answer"
        return ModelNotFound(f"{peer.place} has no model {peer.model!r} for this key ({where}){tail}")
    if status == 404 and not said:
        tail = ": nothing answers at this address; the base URL usually ends in /v1"
    if status is None:
        return ProviderUnavailable(f"{peer.place} broke its answer off with an error{tail}", retry_after=wait)
    return ModelRequestRefused(f"{peer.place} refused the request for the model {peer.model!r} ({status}){tail}")


def _status_of(detail: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error inside a stream stands for; None where it names no cause."""
    for name in ("code", "status", "status_code", "http_status"):
        value = detail.get(name)
        if isinstance(value, int) and 300 <= value < 600:
            return value
        if isinstance(value, str) and value.isascii() and value.isdigit() and 300 <= int(value[:4]) < 600:
            return int(value)
    words = " ".join(str(detail.get(name) or "") for name in ("type", "code")).lower()
    if "rate_limit" in words or "insufficient_quota" in words:
        return 429
    if "authentication" in words or "invalid_api_key" in words:
        return 401
    if "permission" in words:
        return 403
    if any(word in words for word in _UNAVAILABLE_WORDS):
        return 503
    return 400 if "invalid" in words or "not_found" in words or "badrequest" in words else None


def _message_of(body: bytes) -> str:
    """The message in an error's body, whatever its shape: OpenAI's, a bare one, or a page that is no JSON."""
    text = body.decode("utf-8", "replace")
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        stripped = text.strip()
        return "" if stripped.startswith("<") else stripped
    for _ in range(4):
        if isinstance(value, list) and value:
            value = cast("list[Any]", value)[0]
        elif isinstance(value, Mapping):
            detail = cast("Mapping[str, Any]", value)
            value = next((detail[name] for name in ("error", "message", "detail", "msg") if detail.get(name)), None)
    return value if isinstance(value, str) else ("" if value is None else json.dumps(value))


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)

"""The action of the kind `http`: one request to a server that actions may call, and its answer as outputs.

Its configuration is `method`, `url`, and perhaps `headers`, `query`, `body`, `expect`, `idempotency_header`. Texts in
it hold inputs as `{name}` and references to the environment as `${NAME}`; both are put in when the request is sent, in
one pass, so that nothing that is put in is looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any, cast
from urllib.parse import quote, urlencode

import orjson

from circuit.actions.result import as_json
from circuit.egress import Egress
from circuit.engine.action import ActionCall, ActionContext, ActionOutput, lasting_step
from circuit.engine.payload import PAYLOAD_LIMIT
from circuit.errors import (
    ActionFailed,
    CircuitError,
    InvalidOutput,
    MappingError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    UnexpectedStatus,
)
from circuit.http import Http
from circuit.ids import idempotency_key
from circuit.security.redaction import excerpt, redact

KIND = "http"

IDEMPOTENCY_HEADER = "Idempotency-Key"
SAFE = ("GET", "HEAD")
"""Methods that change nothing: they carry no key, and are sent again rather than journalled."""

_HOLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\{([^\W\d]\w*)\}")
_ANSWER = lasting_step("response")
_EXCERPT = 300


class HttpAction:
    """Sends requests to servers that `egress` lets through. `environment` is where references are looked up."""

    def __init__(self, egress: Egress, http: Http, environment: Mapping[str, str]) -> None:
        self._egress = egress
        self._http = http
        self._environment = environment

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        """Send the request of `call`.

        The outputs are the keys of the answer, if it is a JSON object, and the built-in ones `status`, `headers`,
        `body` and `output` (the answer: JSON, else text), `execution_id` and `timestamp`, which hide keys of the same
        name (`output.NAME` reaches those).
        """
        answer = call.recorded.get(_ANSWER)
        if answer is None:
            answer = await self._send(call, context)
            if call.config["method"] not in SAFE:
                answer = await context.record(_ANSWER, answer)
        body = answer["body"]
        named = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
        at = context.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        outputs = {**named, **answer, "execution_id": call.execution_id, "timestamp": at, "output": body}
        return ActionOutput(outputs, body if isinstance(body, str) else "", body)

    async def _send(self, call: ActionCall, context: ActionContext) -> dict[str, Any]:
        config, method = call.config, str(call.config["method"])
        filler = _Filler(call.inputs, self._environment)
        url = filler.url(config["url"], config.get("query") or {})
        headers = {name: filler.text(value) for name, value in (config.get("headers") or {}).items()}
        body = b""
        if method not in SAFE:
            key = idempotency_key(call.execution_id, KIND, call.inputs)
            headers.setdefault(config.get("idempotency_header") or IDEMPOTENCY_HEADER, key)
            body, kind = _encoded(filler.value(config["body"]) if "body" in config else dict(call.inputs))
            if not any(name.lower() == "content-type" for name in headers):
                headers["Content-Type"] = kind
        headers.setdefault("Accept", "application/json, */*;q=0.5")
        destination = await self._egress.judge(url)
        async with self._http.request(method, url, headers=headers, body=body, address=destination.address) as exchange:
            content = await exchange.read_whole(PAYLOAD_LIMIT)
            status, given = exchange.status, dict(exchange.headers)
        if not _expected(status, config.get("expect") or ()):
            told = excerpt(redact((content or b"")[:4096].decode("utf-8", "replace"), filler.secrets), _EXCERPT)
            raise _refusal(f"{method} {destination.host}", status, given, told)
        if content is None:
            raise InvalidOutput(f"{destination.host} answered with more than {PAYLOAD_LIMIT} bytes")
        return {"status": status, "headers": given, "body": _decoded(content, given.get("content-type", ""))}


class _Filler:
    """Puts inputs and what the environment holds into the texts of one request, and remembers the secrets."""

    def __init__(self, inputs: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._inputs = inputs
        self._environment = environment
        self.secrets: list[str] = []

    def text(self, template: str, written: Callable[[str], str] = str) -> str:
        """The text of `template`; `written` is how an input is spelt there."""

        def fill(hole: re.Match[str]) -> str:
            variable, name = hole.groups()
            if variable is not None:
                return self._secret(variable)
            value = self._input(name)
            return written(value if isinstance(value, str) else orjson.dumps(value).decode())

        return _HOLE.sub(fill, template)

    def value(self, template: Any) -> Any:
        """JSON with its texts filled in; a text that is one hole becomes the input itself, of whatever kind."""
        if isinstance(template, str):
            whole = _HOLE.fullmatch(template)
            return self._input(whole[2]) if whole is not None and whole[2] is not None else self.text(template)
        if isinstance(template, Mapping):
            return {str(name): self.value(item) for name, item in cast("Mapping[str, Any]", template).items()}
        return [self.value(item) for item in cast("list[Any]", template)] if isinstance(template, list) else template

    def url(self, template: str, query: Mapping[str, Any]) -> str:
        """The URL; inputs in it are escaped, so that none can change its path or host."""
        url = self.text(template, lambda text: quote(text, safe=""))
        pairs = {name: self.value(item) if isinstance(item, str) else item for name, item in query.items()}
        told = {name: item if isinstance(item, str) else orjson.dumps(item).decode() for name, item in pairs.items()}
        return url + (("&" if "?" in url else "?") + urlencode(told) if told else "")

    def _input(self, name: str) -> Any:
        if name not in self._inputs:
            raise MappingError(f"the request uses {{{name}}}, and there is no such input")
        return self._inputs[name]

    def _secret(self, name: str) -> str:
        value = self._environment.get(name, "").strip()
        if not value:
            raise ActionFailed(f"the request refers to ${{{name}}}, which is not set in the environment")
        self.secrets.append(value)
        return value


def _encoded(body: Any) -> tuple[bytes, str]:
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return orjson.dumps(body), "application/json"


def _decoded(content: bytes, kind: str) -> Any:
    """JSON where it is JSON, else text."""
    if not content:
        return None
    if "json" in kind or not kind:
        try:
            return as_json("the server", orjson.loads(content))
        except orjson.JSONDecodeError as error:
            if "json" in kind:
                raise InvalidOutput(f"the server calls its answer JSON, and it is none: {error}") from None
    return as_json("the server", content.decode("utf-8", "replace"))


def _expected(status: int, expect: tuple[int, ...] | list[int]) -> bool:
    return status in expect if expect else 200 <= status < 300


def _refusal(what: str, status: int, headers: Mapping[str, str], told: str) -> CircuitError:
    said = f": {told}" if told else ""
    wait = headers.get("retry-after", "")
    after = float(wait) if wait.isdigit() else None
    if status == 429:
        return RateLimited(f"{what} asks to slow down (429){said}", retry_after=after)
    if status == 408:
        return ProviderTimeout(f"{what} timed out (408){said}")
    if status >= 500:
        return ProviderUnavailable(f"{what} is not available ({status}){said}", retry_after=after)
    if 300 <= status < 400:
        return UnexpectedStatus(f"{what} redirects ({status}), and redirects are not followed: give the final address")
    return UnexpectedStatus(f"{what} answered with status {status}{said}")

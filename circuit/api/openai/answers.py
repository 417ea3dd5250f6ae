"""Answers in the forms that chat clients read: completions, chunks of them, usage, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from circuit.api.openai.progress import Called, Said
from circuit.api.problems import INTERNAL_CODE, shown
from circuit.errors import CircuitError
from circuit.surface import surface

DONE = b"data: [DONE]\n\n"
_FINISH = ("stop", "length", "tool_calls", "content_filter")
_STATUS = {
    "context_too_long": 400,
    "provider_refused": 400,
    "content_filter": 400,
    "refusal": 400,
    "invalid_input": 400,
    "model_not_found": 404,
    "cancelled": 409,
    "timeout": 504,
}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


class Shape:
    """The form of one request's answers. `older` says that calls are told as `function_call`; `chat` that the answers
    are chat completions, and not those of `/v1/completions`."""

    def __init__(self, answer_id: str, model: str, created: int, *, chat: bool, older: bool = False) -> None:
        self._chat = chat
        self._older = older
        self._common: dict[str, Any] = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{answer_id}",
            "created": created,
            "model": model,
        }

    def whole(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The completion for an answer of a consultation: `message`, `finish`, `usage`."""
        message: Mapping[str, Any] = answer["message"]
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": self._finish(answer)}
        if self._chat:
            choice["message"] = self._message(message)
        else:
            choice["text"] = message["content"] or ""
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._common, "object": kind, "choices": [choice], "usage": usage_of(answer.get("usage") or {})}

    def opening(self) -> bytes:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": ""}) if self._chat else b""

    def said(self, piece: Said) -> bytes:
        """A piece of text; reasoning goes by the name that compatible servers use for it."""
        if self._chat:
            return self._chunk({"reasoning_content": piece.text} if piece.thought else {"content": piece.text})
        return b"" if piece.thought else self._chunk(piece.text)

    def called(self, piece: Called) -> bytes:
        """A whole call."""
        function = {"name": piece.name, "arguments": piece.arguments}
        if self._older:
            return self._chunk({"function_call": function}) if piece.number == 0 else b""
        return self._chunk(
            {"tool_calls": [{"index": piece.number, "id": piece.id, "type": "function", "function": function}]}
        )

    def closing(self, answer: Mapping[str, Any], *, usage: bool) -> bytes:
        """The last chunks: why it ended, the usage if that is wanted, and the mark of the end."""
        last = self._chunk({} if self._chat else "", self._finish(answer))
        counted = self._event({"choices": [], "usage": usage_of(answer.get("usage") or {})}) if usage else b""
        return last + counted + DONE

    def _chunk(self, delta: Mapping[str, Any] | str, finish: str | None = None) -> bytes:
        said = {"text": delta} if isinstance(delta, str) else {"delta": delta}
        return self._event({"choices": [{"index": 0, **said, "logprobs": None, "finish_reason": finish}]})

    def _event(self, fields: Mapping[str, Any]) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return b"data: %b\n\n" % orjson.dumps({**self._common, "object": kind, **fields})

    def _finish(self, answer: Mapping[str, Any]) -> str:
        finish = answer.get("finish")
        if finish == "tool_calls" and self._older:
            return "function_call"
        return str(finish) if finish in _FINISH else "stop"

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        calls = cast("Sequence[Mapping[str, Any]]", message.get("tool_calls") or ())
        said: dict[str, Any] = {"role": "assistant", "content": message["content"], "refusal": None}
        if calls and self._older:
            said["function_call"] = calls[0]["function"]
        elif calls:
            said["tool_calls"] = calls
        return said


def usage_of(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Counts under the names that chat clients know. What is not known is 0."""
    given, made = int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0)
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": int(usage.get("cached_input_tokens") or 0)},
        "completion_tokens_details": {"reasoning_tokens": int(usage.get("reasoning_tokens") or 0)},
    }


def problem_of(error: CircuitError) -> dict[str, Any]:
    """What goes on as a `Failed` piece's error for an error of ours."""
    told = shown(error)
    return {**told.as_dict(), "details": told.details}


def status_of(error: Mapping[str, Any]) -> int:
    """The HTTP status for an error. What another try would not mend is no fault of the server's to a chat client, which
    repeats those by itself."""
    code = str(error.get("code"))
    if code == INTERNAL_CODE:
        return 500
    if code in _STATUS:
        return _STATUS[code]
    known = surface(code).http
    if known != 500:
        return known
    return 503 if error.get("retryable") else 422


def error_body(error: Mapping[str, Any]) -> dict[str, Any]:
    """An error as chat clients read it."""
    status = status_of(error)
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    parameter = (error.get("details") or {}).get("param")
    return {"error": {"message": error["message"], "type": kind, "param": parameter, "code": error["code"]}}


def error_event(error: Mapping[str, Any]) -> bytes:
    """An error within a stream that has begun."""
    return b"data: %b\n\n" % orjson.dumps(error_body(error))

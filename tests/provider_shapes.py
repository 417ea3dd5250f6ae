"""The bytes in which each provider would say the same: one reply, spelt in every protocol that Circuit speaks.

A reply has `text` or `object`, and perhaps `reasoning`, `calls` (objects with `name`, `arguments` and perhaps `id`),
`finish` (in OpenAI's words), `usage`, `model`, `pieces` (characters a piece), `newline`, and `done: false` for a
stream without its terminal marker.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

DEFAULT_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
SIGNATURE = "c2lnbmF0dXJl"


def protocol_of(path: str) -> str:
    """The protocol that is spoken at `path`."""
    if ":streamGenerateContent" in path:
        return "google"
    for end, name in (("/messages", "anthropic"), ("/responses", "responses"), ("/api/chat", "ollama")):
        if path.partition("?")[0].endswith(end):
            return name
    return "chat"


def stream_bytes(reply: dict[str, Any], protocol: str = "chat") -> bytes:
    """The body of a streamed reply in `protocol`."""
    if "raw" in reply:
        return reply["raw"].encode("utf-8", "surrogateescape")
    return _WRITERS[protocol](reply)


def _text(reply: dict[str, Any]) -> str:
    return json.dumps(reply["object"]) if "object" in reply else reply.get("text", "")


def _pieces(reply: dict[str, Any], text: str) -> list[str]:
    size = reply.get("pieces", 8)
    return [text[at : at + size] for at in range(0, len(text), size)]


def _calls(reply: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Id, name and arguments as JSON text."""
    return [
        (call.get("id", f"call-{number}"), call["name"], _written(call.get("arguments", {})))
        for number, call in enumerate(reply.get("calls", ()))
    ]


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _events(items: list[dict[str, Any]], newline: str, *, named: bool = False) -> bytes:
    lines = []
    for item in items:
        name = f"event: {item['type']}{newline}" if named else ""
        lines.append(f"{name}data: {json.dumps(item, ensure_ascii=False)}{newline * 2}")
    return "".join(lines).encode()


def _chat(reply: dict[str, Any]) -> bytes:
    model = reply.get("model", "loopback-1")
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    usage = reply.get("usage", DEFAULT_USAGE)

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}

    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"reasoning_content": piece}) for piece in _pieces(reply, reply.get("reasoning", ""))]
    chunks += [chunk({"content": piece}) for piece in _pieces(reply, _text(reply))]
    for index, (call_id, name, arguments) in enumerate(_calls(reply)):
        head = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        chunks.append(chunk({"tool_calls": [head]}))
        for piece in _pieces(reply, arguments):
            chunks.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
    finish = reply.get("finish", "tool_calls" if reply.get("calls") else "stop")
    if finish is not None:
        chunks.append(chunk({}, finish))
    if usage is not None:
        chunks.append({**common, "choices": [], "usage": usage})
    newline = reply.get("newline", "\n")
    end = f"data: [DONE]{newline * 2}" if reply.get("done", True) else ""
    return _events(chunks, newline) + end.encode()


def _responses(reply: dict[str, Any]) -> bytes:
    numbers = iter(range(10_000))
    output: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    model = reply.get("model", "loopback-1")

    def say(kind: str, **fields: Any) -> None:
        events.append({"type": f"response.{kind}", "sequence_number": next(numbers), **fields})

    def response(status: str, **more: Any) -> dict[str, Any]:
        return {
            "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": model, "output": output,
            "error": None, "incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            **more,
        }  # fmt: skip

    say("created", response=response("in_progress"))
    if reply.get("reasoning"):
        item: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": []}
        say("output_item.added", output_index=0, item=item)
        place = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
        for piece in _pieces(reply, reply["reasoning"]):
            say("reasoning_summary_text.delta", **place, delta=piece)
        item = {
            **item,
            "summary": [{"type": "summary_text", "text": reply["reasoning"]}],
            "encrypted_content": SIGNATURE,
        }
        output.append(item)
        say("output_item.done", output_index=0, item=item)
    if _text(reply):
        at = len(output)
        place = {"item_id": "msg_1", "output_index": at, "content_index": 0}
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
        say("output_item.added", output_index=at, item=item)
        say("content_part.added", **place, part={"type": "output_text", "text": "", "annotations": []})
        for piece in _pieces(reply, _text(reply)):
            say("output_text.delta", **place, delta=piece, logprobs=[])
        say("output_text.done", **place, text=_text(reply), logprobs=[])
        content = [{"type": "output_text", "text": _text(reply), "annotations": []}]
        output.append({**item, "status": "completed", "content": content})
        say("output_item.done", output_index=at, item=output[-1])
    for number, (call_id, name, arguments) in enumerate(_calls(reply)):
        at = len(output)
        item = {"type": "function_call", "id": f"fc_{number}", "call_id": call_id, "name": name}
        say("output_item.added", output_index=at, item={**item, "arguments": "", "status": "in_progress"})
        for piece in _pieces(reply, arguments):
            say("function_call_arguments.delta", output_index=at, item_id=f"fc_{number}", delta=piece)
        say("function_call_arguments.done", output_index=at, item_id=f"fc_{number}", name=name, arguments=arguments)
        output.append({**item, "arguments": arguments, "status": "completed"})
        say("output_item.done", output_index=at, item=output[-1])
    given = reply.get("usage", DEFAULT_USAGE)
    usage = given and {
        "input_tokens": given["prompt_tokens"],
        "output_tokens": given["completion_tokens"],
        "total_tokens": given["prompt_tokens"] + given["completion_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    if reply.get("done", True):
        if reply.get("finish") == "length":
            details = {"reason": "max_output_tokens"}
            say("incomplete", response=response("incomplete", incomplete_details=details, usage=usage))
        else:
            say("completed", response=response("completed", usage=usage))
    return _events(events, reply.get("newline", "\n"), named=True)


def _anthropic(reply: dict[str, Any]) -> bytes:
    given = reply.get("usage", DEFAULT_USAGE) or {"prompt_tokens": 0, "completion_tokens": 0}
    counted = {"input_tokens": given["prompt_tokens"], "output_tokens": 1}
    counted |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": reply.get("model", "loopback-1"),
        "content": [], "stop_reason": None, "stop_sequence": None, "usage": counted,
    }  # fmt: skip
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    index = 0

    def block(start: dict[str, Any], deltas: list[dict[str, Any]]) -> None:
        nonlocal index
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events.append({"type": "ping"})
        events.extend({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
        index += 1

    if reply.get("reasoning"):
        deltas: list[dict[str, Any]] = [
            {"type": "thinking_delta", "thinking": piece} for piece in _pieces(reply, reply["reasoning"])
        ]
        deltas.append({"type": "signature_delta", "signature": SIGNATURE})
        block({"type": "thinking", "thinking": "", "signature": ""}, deltas)
    if _text(reply):
        pieces = _pieces(reply, _text(reply))
        block({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces])
    for call_id, name, arguments in _calls(reply):
        written = "" if arguments == "{}" else arguments
        pieces = ["", *_pieces(reply, written)]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        block({"type": "tool_use", "id": call_id, "name": name, "input": {}}, deltas)
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "refusal": "refusal"}
    reason = reasons[reply.get("finish", "tool_calls" if reply.get("calls") else "stop")]
    counted = {"output_tokens": given["completion_tokens"]}
    events.append({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": counted})
    if reply.get("done", True):
        events.append({"type": "message_stop"})
    return _events(events, reply.get("newline", "\n"), named=True)


def _google(reply: dict[str, Any]) -> bytes:
    given = reply.get("usage", DEFAULT_USAGE) or {"prompt_tokens": 0, "completion_tokens": 0}

    def chunk(parts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        usage = {"promptTokenCount": given["prompt_tokens"], "candidatesTokenCount": 1}
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **more}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": reply.get("model", "loopback-1")}

    chunks = [chunk([{"text": piece, "thought": True}]) for piece in _pieces(reply, reply.get("reasoning", ""))]
    chunks += [chunk([{"text": piece}]) for piece in _pieces(reply, _text(reply))]
    for number, (call_id, name, arguments) in enumerate(_calls(reply)):
        call = {"functionCall": {"id": call_id, "name": name, "args": json.loads(arguments)}}
        # Of parallel calls only the first carries a signature.
        chunks.append(chunk([call | ({"thoughtSignature": SIGNATURE} if number == 0 else {})]))
    if reply.get("done", True):
        reasons = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}
        last = chunk([{"text": ""}], finishReason=reasons[reply.get("finish", "stop")])
        last["usageMetadata"]["candidatesTokenCount"] = given["completion_tokens"]
        chunks.append(last)
    return _events(chunks, reply.get("newline", "\r\n"))


def _ollama(reply: dict[str, Any]) -> bytes:
    given = reply.get("usage", DEFAULT_USAGE) or {}
    common = {"model": reply.get("model", "loopback-1"), "created_at": "2026-01-01T00:00:00Z"}

    def lines() -> Iterator[dict[str, Any]]:
        for piece in _pieces(reply, reply.get("reasoning", "")):
            yield {"message": {"role": "assistant", "content": "", "thinking": piece}, "done": False}
        for piece in _pieces(reply, _text(reply)):
            yield {"message": {"role": "assistant", "content": piece}, "done": False}
        for _, name, arguments in _calls(reply):
            call = {"function": {"name": name, "arguments": json.loads(arguments)}}
            yield {"message": {"role": "assistant", "content": "", "tool_calls": [call]}, "done": False}
        if reply.get("done", True):
            counts = {"prompt_eval_count": given.get("prompt_tokens"), "eval_count": given.get("completion_tokens")}
            reason = {"tool_calls": "stop"}.get(reply.get("finish", "stop"), reply.get("finish", "stop"))
            yield {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": reason, **counts}

    return "".join(json.dumps({**common, **line}, ensure_ascii=False) + "\n" for line in lines()).encode()


_WRITERS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "chat": _chat,
    "responses": _responses,
    "anthropic": _anthropic,
    "google": _google,
    "ollama": _ollama,
}

"""What is left of a payload that was erased: the SHA-256 of what was there. Pure.

The rows of a case stay, with all that the replay of its history needs: numbers, places, versions, the marks of groups.
The same payload leaves the same tombstone wherever it lies, so that a token is still what its history produced. What a
person wrote or an agent said goes; ids, names of who acted, times, codes and amounts stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast

import orjson

from circuit.events import ENVELOPE
from circuit.net.selection import FAN_OUT
from circuit.storage.records import ANSWERS

ERASED = "$erased"
"""The only key of what stands for an erased value."""
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_TEXT = re.compile(r"\[erased sha256:[0-9a-f]{64}\]")
_ACCOUNT = ("agent", "provider", "asked", "model", "cost", "cached", "finish", "at")
"""What of an answer says who was asked, and what that cost."""
_COUNTS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
"""What of a usage is counted; under other names a provider may have said anything."""
_MARKS = frozenset({"id", "size", "index"})
_GROUP = re.compile(r"[0-9]{1,10}(\.[0-9]{1,10})?")

Row = Mapping[str, Any]


def tombstone(value: Any) -> dict[str, str]:
    """What stands for `value`; what is erased already stays as it is."""
    return dict(value) if is_erased(value) else {ERASED: f"sha256:{_digest(value)}"}


def is_erased(value: Any) -> bool:
    """Whether `value` stands for an erased one."""
    if not isinstance(value, Mapping) or len(value) != 1:  # pyright: ignore[reportUnknownArgumentType]
        return False
    told: Any = value.get(ERASED)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return isinstance(told, str) and _HASH.fullmatch(told) is not None


def erased_text(text: str) -> str:
    """What stands for `text`, where only a text may stand."""
    return text if not text or _TEXT.fullmatch(text) else f"[erased sha256:{_digest(text)}]"


def erased_row(table: str, row: Row, stored: Row | None = None) -> dict[str, Any]:
    """The columns of a row that an erasure changes, with what they hold then. The row is as JSON has it, with all of
    its values; `stored` is how it lies in the table, where it refers to some."""
    change = _CHANGES.get(table)
    changed = {} if change is None else change(row)
    before = row if stored is None else stored
    return {column: value for column, value in changed.items() if value != before[column]}


def _case(row: Row) -> dict[str, Any]:
    # Empty ones too: this is how an erased case is known.
    return {"parameters": tombstone(row["parameters"])}


def _token(row: Row) -> dict[str, Any]:
    return {"data": _object(row["data"]), "metadata": _metadata(row["metadata"])}


def _history(row: Row) -> dict[str, Any]:
    body = dict(row["body"])
    if "produced" in body:
        body["produced"] = [{**image, **_token(image)} for image in body["produced"]]
    for name in ("error", "skipped"):
        if body.get(name):
            body[name] = _error(body[name])
    for name in ("note", "key"):
        if body.get(name):
            body[name] = erased_text(body[name])
    if body.get("found"):
        quoted = ("path", "words")
        body["found"] = [
            {**one, **{key: erased_text(str(one.get(key, ""))) for key in quoted}} for one in body["found"]
        ]
    if row["kind"] == "message_taken":
        body["key"] = _key(row["body"]["key"])
    if row["kind"] == "case_ended" and body.get("status") == "cancelled":
        body["reason"] = erased_text(body.get("reason") or "")
    return {"body": body}


def _firing(row: Row) -> dict[str, Any]:
    return {"request": tombstone(row["request"]), "error": _error(row["error"]), "awaits": _optional(row["awaits"])}


def _journal(row: Row) -> dict[str, Any]:
    value = row["value"]
    if not row.get("step", "").startswith(ANSWERS) or not isinstance(value, dict):
        return {"value": tombstone(value)}
    answer = cast("dict[str, Any]", value)
    if is_erased({ERASED: answer.get(ERASED)}):
        return {}
    # What it cost is still counted.
    kept = {name: answer[name] for name in _ACCOUNT if isinstance(answer.get(name), str | int | float)}
    usage: Any = answer.get("usage")
    told = cast("dict[str, Any]", usage) if isinstance(usage, dict) else {}
    counts = {name: told[name] for name in _COUNTS if isinstance(told.get(name), int)}
    return {"value": {**kept, "usage": counts, **tombstone(answer)}}


def _execution(row: Row) -> dict[str, Any]:
    return {"error": _error(row["error"])}


def _frame(row: Row) -> dict[str, Any]:
    frame: dict[str, Any] = orjson.loads(row["frame"])
    kept = {name: frame[name] for name in ENVELOPE if name in frame}
    if is_erased({name: value for name, value in frame.items() if name not in kept}):
        return {}
    # How long its pieces were would tell much of what they said.
    pieces = {"lengths": None} if row.get("lengths") else {}
    return {"frame": orjson.dumps({**kept, ERASED: f"sha256:{_digest(frame)}"}).decode(), **pieces}


def _command(row: Row) -> dict[str, Any]:
    return {"payload": tombstone(row["payload"]), "result": _optional(row["result"])}


def _incident(row: Row) -> dict[str, Any]:
    return {"message": erased_text(row["message"])}


def _feedback(row: Row) -> dict[str, Any]:
    return {"comment": erased_text(row["comment"])}


def is_unsaid(parts: Sequence[Any]) -> bool:
    """Whether the parts of a message are what stands for an erased one."""
    return len(parts) == 1 and _TEXT.fullmatch(str(parts[0].get("text"))) is not None


def _said(row: Row) -> dict[str, Any]:
    parts: list[Any] = row["parts"]
    if is_unsaid(parts):
        return {}
    return {"parts": [{"type": "text", "text": f"[erased sha256:{_digest(parts)}]"}]}


def _sent(row: Row) -> dict[str, Any]:
    return {"data": _object(row["data"]), "key": _key(row["key"]), "error": _error(row["error"])}


_CHANGES: Mapping[str, Callable[[Row], dict[str, Any]]] = {
    "case": _case,
    "token": _token,
    "history": _history,
    "firing": _firing,
    "journal": _journal,
    "execution": _execution,
    "stream_event": _frame,
    "command": _command,
    "incident": _incident,
    "feedback": _feedback,
    "message": _said,
    "sent_message": _sent,
}
PERSONAL = tuple(_CHANGES)
"""The tables that hold payloads of cases."""


def _object(value: Mapping[str, Any]) -> dict[str, Any]:
    return tombstone(value) if value else {}


def _optional(value: Any) -> Any:
    return None if value is None else tombstone(value)


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Without all but the marks of groups, by which a join is replayed."""
    marks: Any = metadata.get(FAN_OUT)
    groups = {name: group for name, group in marks.items() if _is_group(group)} if isinstance(marks, Mapping) else {}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    rest = {name: value for name, value in metadata.items() if name != FAN_OUT}
    if FAN_OUT in metadata and groups != marks:
        rest[FAN_OUT] = marks
    return {**({FAN_OUT: groups} if groups else {}), **_object(rest)}


def _is_group(group: Any) -> bool:
    """Whether this is the mark of a group as the net makes it: numbers, and nothing else."""
    if not isinstance(group, Mapping) or not group or not set(group) <= _MARKS:  # pyright: ignore[reportUnknownArgumentType]
        return False
    return all(
        isinstance(value, int) or (isinstance(value, str) and _GROUP.fullmatch(value) is not None)
        for value in group.values()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    )


def _error(error: Any) -> Any:
    """An error with its code and without its words, which may quote anything."""
    if not error or is_erased(error):
        return error
    kept = {name: error[name] for name in ("code", "retryable") if name in error}
    message = str(error.get("message") or "")
    return {**kept, "message": erased_text(message)}


def _key(key: str) -> str:
    """The key of a message, whose parts may be a person's number. Keys are lists of texts; the empty text is none."""
    if not key:
        return key
    return orjson.dumps([erased_text(part) for part in orjson.loads(key)]).decode()


def _digest(value: Any) -> str:
    text = json.dumps(_plain(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    """`value` with numbers written in one way: what is stored as `jsonb` reads 1e16 back as a whole number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_plain(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    return value

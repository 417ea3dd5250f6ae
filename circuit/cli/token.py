"""The token that a new case starts with, from `--token`, `--token-file` and `--set`, checked before anything runs."""

from __future__ import annotations

import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from circuit.errors import InvalidRequest, PayloadTooLarge
from circuit.expressions.path import Path as DottedPath
from circuit.expressions.path import assign
from circuit.expressions.value import exact_json

if TYPE_CHECKING:
    from circuit.engine.token_change import TokenChange

TOKEN_LIMIT = 4 * 1024 * 1024
WORKFLOW_LIMIT = 4 * 1024 * 1024
_PARTS = ("data", "metadata")


@dataclass(frozen=True, slots=True)
class TokenParts:
    """`data` and `metadata` of a token; both are JSON objects."""

    data: dict[str, Any] = field(default_factory=dict[str, Any])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


def read_bytes(file: Path, limit: int, what: str) -> bytes:
    """The bytes of `file` (`-` is standard input), of which there may be `limit`; its size is looked at first."""
    if str(file) == "-":
        content = sys.stdin.buffer.read(limit + 1)
    else:
        try:
            status = file.stat()
            if stat.S_ISDIR(status.st_mode):
                raise InvalidRequest(f"{what} {str(file)!r} is a directory; give a file.")
            if stat.S_ISREG(status.st_mode) and status.st_size > limit:
                raise _too_large(file, what, status.st_size, limit)
            with file.open("rb") as opened:
                content = opened.read(limit + 1)
        except FileNotFoundError:
            raise InvalidRequest(f"{what} {str(file)!r} does not exist.") from None
        except PermissionError:
            raise InvalidRequest(f"{what} {str(file)!r} may not be read by this user.") from None
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{what} {str(file)!r} cannot be read: {error}.") from error
    if len(content) > limit:
        raise _too_large(file, what, len(content), limit)
    return content


def read_text(file: Path, limit: int, what: str) -> str:
    """The text of `file`, which must be UTF-8 without NUL."""
    content = read_bytes(file, limit, what)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{what} {str(file)!r} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}."
            " Circuit takes text and JSON, no binary files."
        ) from None
    if "\0" in text:
        raise InvalidRequest(
            f"{what} {str(file)!r} holds a NUL character at offset {text.index(chr(0))}, which Postgres cannot store."
        )
    return text


def token_parts(token: str | None, token_file: Path | None, assignments: Sequence[str]) -> TokenParts | None:
    """The token that the options describe, or None where none is given. Raises `RequestError` for bad input."""
    if token is not None and token_file is not None:
        raise InvalidRequest("--token and --token-file exclude each other; give one of them.")
    parts: TokenParts | None = None
    if token is not None:
        if len(token.encode(errors="surrogatepass")) > TOKEN_LIMIT:
            raise PayloadTooLarge(f"--token may be {TOKEN_LIMIT} bytes long; it is longer.")
        parts = _from_json(parse_json(token, "--token"), "--token")
    elif token_file is not None:
        parts = _from_file(token_file)
    if assignments:
        parts = _assigned(parts or TokenParts(), assignments)
    if parts is not None:
        refuse_nul({"data": parts.data, "metadata": parts.metadata}, "The token")
    return parts


def parse_json(text: str, what: str) -> Any:
    """The JSON value in `text`. Raises `InvalidRequest` that says where it ends being JSON."""
    try:
        return exact_json(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            details={"line": error.lineno, "column": error.colno},
        ) from None


def parse_object(text: str, what: str) -> dict[str, Any]:
    """The JSON object in `text`, for a form."""
    value = parse_value(text, what)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what} must be a JSON object; it is {_kind(value)}.")
    return value


def parse_value(text: str, what: str) -> Any:
    """The JSON value in `text`, for a signal."""
    value = parse_json(text, what)
    refuse_nul(value, what)
    return value


def refuse_nul(value: Any, what: str) -> None:
    """Raise `InvalidRequest` if a string in `value` holds a NUL, naming where it is: Postgres cannot store one."""
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        path, item = pending.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise InvalidRequest(f"{what} holds a NUL character at {path!r}, which Postgres cannot store.")
        elif isinstance(item, Mapping):
            for key, child in item.items():
                if "\0" in key:
                    raise InvalidRequest(f"{what} holds a NUL character in a key at {path or 'its top'!r}.")
                pending.append((f"{path}.{key}" if path else str(key), child))
        elif isinstance(item, list):
            pending.extend((f"{path}.{index}", child) for index, child in enumerate(item))


def _from_file(file: Path) -> TokenParts:
    text = read_text(file, TOKEN_LIMIT, "--token-file")
    try:
        value = exact_json(text)
    except orjson.JSONDecodeError:
        if file.suffix.lower() == ".json":
            # A name that promises JSON keeps its promise: else a slip of the pen would run as a document.
            parse_json(text, f"--token-file {str(file)!r}")
        return TokenParts({"content": text})
    return _from_json(value, f"--token-file {str(file)!r}")


def _from_json(value: Any, what: str) -> TokenParts:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what} must be a JSON object; it is {_kind(value)}.")
    if not any(part in value for part in _PARTS):
        return TokenParts(value)
    strange = sorted(str(key) for key in value if key not in _PARTS)
    if strange:
        raise InvalidRequest(
            f"{what} has the key {strange[0]!r} beside 'data' or 'metadata'."
            ' Write {"data": {...}, "metadata": {...}}, or leave both words out to give the data alone.'
        )
    for part in _PARTS:
        if not isinstance(value.get(part, {}), dict):
            raise InvalidRequest(f"{what}: {part!r} must be a JSON object; it is {_kind(value[part])}.")
    return TokenParts(value.get("data", {}), value.get("metadata", {}))


def _assigned(parts: TokenParts, assignments: Sequence[str]) -> TokenParts:
    root: dict[str, Any] = {"data": parts.data, "metadata": parts.metadata}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InvalidRequest(f"--set {assignment!r} has no '='; write --set data.NAME=VALUE.")
        if name in _PARTS or name.partition(".")[0] not in _PARTS:
            raise InvalidRequest(
                f"--set {name!r}: a path begins with 'data.' or 'metadata.';"
                f" write --set {'data.NAME' if name in _PARTS or not name else 'data.' + name}=VALUE."
            )
        try:
            path = DottedPath.parse(name)
            root = assign(root, path, _value(text))
        except ValueError as error:
            raise InvalidRequest(f"--set {name!r}: {error}") from error
    return TokenParts(root["data"], root["metadata"])


def assignments(given: Sequence[str]) -> dict[str, Any]:
    """The values of `--set` options by their paths, for tokens that exist. Raises `InvalidRequest`."""
    _assigned(TokenParts(), given)
    values = {name: _value(text) for name, _, text in (one.partition("=") for one in given)}
    refuse_nul(values, "--set")
    return values


def token_changes(given: Sequence[str]) -> list[TokenChange]:
    """The changes of `--set [TOKEN:]PATH=VALUE` options, for tokens that exist. Raises `InvalidRequest`."""
    from circuit.engine.token_change import TokenChange

    found: list[TokenChange] = []
    for text in given:
        head, equals, value = text.partition("=")
        where, colon, path = head.rpartition(":")
        if head.startswith(("data.", "metadata.")):
            where, colon, path = "", "", head
        [(name, told)] = assignments([f"{path}{equals}{value}"]).items()
        number = int(where) if where.isascii() and where.isdigit() else None
        found.append(TokenChange(name, told, number, where if colon and number is None else None))
    return found


def put_together(data: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """An object with fields set by `FIELD=VALUE`, where FIELD is a dotted path."""
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InvalidRequest(f"--set {assignment!r} has no '='; write --set FIELD=VALUE.")
        try:
            data = assign(data, DottedPath.parse(name), _value(text))
        except ValueError as error:
            raise InvalidRequest(f"--set {name!r}: {error}") from error
    return data


def _value(text: str) -> Any:
    try:
        return exact_json(text)
    except orjson.JSONDecodeError:
        return text


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    return "an array" if isinstance(value, list) else "an object"


def _too_large(file: Path, what: str, size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"{what} {str(file)!r} is {'at least ' if size == limit + 1 else ''}{size:,} bytes long;"
        f" {limit:,} bytes ({limit // 1024 // 1024} MiB) are the most that it may be.",
        details={"bytes": size, "limit": limit},
    )

"""Bodies of requests, as an OpenAPI document says how they are written: JSON, forms, text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any
from urllib.parse import quote_plus

import orjson

from circuit.agents.toolbox.schemas import listed, mapped
from circuit.value import dataclass

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Media:
    """How a body is written, and what is in it. `encoding` says it of parts of a form."""

    kind: str
    schema: Any
    encoding: Mapping[str, Any] = field(default_factory=dict[str, Any])


def media_of(content: Mapping[str, Any]) -> Media | None:
    """The way to write a body that a model can use best, of those that a server takes; None where there is none."""
    plain = {str(kind).partition(";")[0].strip().lower(): mapped(about) for kind, about in content.items()}
    for fits in (r"application/json|.+\+json|application/\*|\*/\*", re.escape(FORM), re.escape(PARTS)):
        for kind, about in plain.items():
            if re.fullmatch(fits, kind):
                return Media(JSON if "*" in kind else kind, about.get("schema") or {}, mapped(about.get("encoding")))
    for kind in plain:
        if re.fullmatch(r"text/.+|application/xml|.+\+xml", kind):
            return Media("text/plain" if "*" in kind else kind, {"type": "string"})
    return None


def body_of(media: Media, value: Any) -> tuple[str, bytes]:
    """Its type, as a header says it, and the body."""
    if media.kind == FORM:
        return FORM, "&".join(encoded_pair(*pair) for pair in _fields(media, value)).encode()
    if media.kind == PARTS:
        return _parts(media, list(_fields(media, value)))
    if isinstance(value, str) and not media.kind.endswith("json"):
        return f"{media.kind}; charset=utf-8", value.encode("utf-8", "replace")
    return media.kind, orjson.dumps(value)


def text_of_value(value: Any) -> str:
    """A value where it stands alone: a text without quotes, all else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def encoded_pair(name: str, text: str) -> str:
    """A name and its text in a query or a form."""
    return f"{quote_plus(name)}={quote_plus(text)}"


def bracketed(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """`{a: {b: [1]}}` as `a[b][0]=1`, which is how those write it who nest in forms and queries."""
    if isinstance(value, dict | list):
        pairs = enumerate(listed(value)) if isinstance(value, list) else mapped(value).items()
        for key, one in pairs:
            yield from bracketed(f"{name}[{key}]", one)
    elif value is not None:
        yield name, text_of_value(value)


def _fields(media: Media, value: Any) -> Iterator[tuple[str, str]]:
    for name, one in mapped(value).items():
        if mapped(media.encoding.get(name)).get("style") == "deepObject":
            yield from bracketed(name, one)
        elif isinstance(one, list):
            yield from ((name, text_of_value(each)) for each in listed(one))
        elif one is not None:
            yield name, text_of_value(one)


def _parts(media: Media, fields: list[tuple[str, str]]) -> tuple[str, bytes]:
    """A form in parts. What the document calls binary is a file."""
    files = {
        name
        for name, about in mapped(mapped(media.schema).get("properties")).items()
        if mapped(about).get("format") == "binary" or mapped(about).get("contentMediaType")
    }
    # The same body for the same arguments: a call that is made again is the same one.
    boundary = hashlib.sha256(orjson.dumps(fields)).hexdigest()[:32]
    made = bytearray()
    for name, text in fields:
        plain = re.sub(r'[\x00-\x1f"\\]', "_", name)
        file = f'; filename="{plain}"' if name in files else ""
        made += f'--{boundary}\r\nContent-Disposition: form-data; name="{plain}"{file}\r\n\r\n'.encode()
        made += text.encode("utf-8", "replace") + b"\r\n"
    made += f"--{boundary}--\r\n".encode()
    return f"{PARTS}; boundary={boundary}", bytes(made)

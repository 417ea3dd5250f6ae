"""References to the environment, addresses and headers, as an agent's settings name them."""

from __future__ import annotations

import re
from typing import Annotated, Any, cast
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, Tag

from circuit.definition.field import JsonObject, Part, by_kind, fault

REFERENCE_HINT = "write ${NAME}, and set the environment variable NAME where Circuit runs"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_BRACED = re.compile(rf"\$\{{{_VARIABLE}\}}")
_WHOLE = re.compile(rf"\$({_VARIABLE})|env:({_VARIABLE})")
_SECRET_NAME = re.compile(r"api[_-]?key|authorization|(access|auth)[_-]?token|secret|password", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(rf"{_SECRET_NAME.pattern}|(subscription[_-])?key|token|sig|signature", re.IGNORECASE)
_KEY_LIKE = re.compile(r"(sk|pk|rk)-[A-Za-z0-9_-]{12,}$|AIza[A-Za-z0-9_-]{30,}$|Bearer\s+\S{12,}$")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def reference(value: str) -> str:
    """A reference to the environment as `${NAME}`, from `$NAME`, `env:NAME` or text around `${NAME}`.

    Raises `ValueError`, without the value, where `value` holds no reference.
    """
    if _BRACED.search(value):
        return value
    if match := _WHOLE.fullmatch(value.strip()):
        return f"${{{match[1] or match[2]}}}"
    raise ValueError("the value must be a reference to the environment")


def check_reference(value: str) -> str:
    try:
        reference(value)
    except ValueError as error:
        raise fault("secret", f"{error}; a file that holds a secret gives it away", REFERENCE_HINT) from None
    if "\n" in value or "\r" in value:
        raise fault("secret", "the value must be one line", REFERENCE_HINT)
    return value


def check_url(value: str) -> str:
    if _BRACED.search(value) or _WHOLE.fullmatch(value):
        return value
    hint = "write an address like https://host/v1"
    try:
        parts = urlsplit(value)
        named = parts.hostname
        _ = parts.port
    except ValueError:
        raise fault("url", "this is not an address", hint) from None
    if parts.scheme not in ("http", "https") or not named or any(character.isspace() for character in value):
        raise fault("url", "this is not an address of a server", hint)
    if "@" in parts.netloc:
        raise fault("url", "an address must not hold a name or a password", "put ${NAME} into a header instead")
    return value


def check_base(value: str) -> str:
    """The address of a provider: one that holds a secret would be stored with the workflow and shown."""
    check_url(value)
    parts = urlsplit(_BRACED.sub("", value))
    if parts.netloc.rpartition("@")[0].strip(":"):
        raise fault("url", "an address must not hold a name or a password", "put ${NAME} into a header instead")
    for name, given in parse_qsl(parts.query):
        if _SECRET_PARAMETER.fullmatch(name) and given:
            hint = f"write {name}=${{NAME}}"
            raise fault("url", f"the {name} in an address must be a reference to the environment", hint)
    return value


def check_body(value: JsonObject) -> JsonObject:
    """What goes into the bodies of requests: no key."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while pending:
        path, found = pending.pop()
        if isinstance(found, dict):
            pending += [((*path, name), inner) for name, inner in cast("dict[str, Any]", found).items()]
        elif isinstance(found, list):
            pending += [((*path, at), inner) for at, inner in enumerate(cast("list[Any]", found))]
        elif isinstance(found, str) and path:
            named = isinstance(path[-1], str) and _SECRET_NAME.fullmatch(path[-1])
            if (named and found) or _KEY_LIKE.match(found):
                what = "a key that is written in a workflow would be stored with it"
                raise fault("secret", what, "give the provider an api_key or headers: ${NAME}", at=list(path))
    return value


class EnvironmentReference(Part):
    """A reference to an environment variable."""

    env: Annotated[str, Field(pattern=rf"^{_VARIABLE}$", description="The name of the environment variable.")]


SecretReference = Annotated[
    Annotated[
        str,
        AfterValidator(check_reference),
        Field(
            json_schema_extra={
                "pattern": rf"(\$\{{{_VARIABLE}\}}|^\${_VARIABLE}$|^env:{_VARIABLE}$)",
                "examples": ["${MY_KEY}", "Bearer ${MY_KEY}", "env:MY_KEY"],
            }
        ),
        Tag("<text>"),
    ]
    | Annotated[EnvironmentReference, Tag("<mapping>")],
    by_kind("a reference to the environment: ${NAME}", "text", "mapping"),
]


def check_headers(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if not _HEADER_NAME.fullmatch(name):
            raise fault("header", f"{name!r} is not the name of an HTTP header", at=[name])
    return value


Headers = Annotated[dict[str, SecretReference], AfterValidator(check_headers)]
Body = Annotated[JsonObject, AfterValidator(check_body)]
Url = Annotated[
    str,
    AfterValidator(check_base),
    Field(json_schema_extra={"examples": ["https://llm.example.org/v1", "${LLM_BASE_URL}"]}),
]


def reference_text(value: str | EnvironmentReference) -> str:
    """A reference in its canonical form, `${NAME}`."""
    return f"${{{value.env}}}" if isinstance(value, EnvironmentReference) else reference(value)

"""References to the environment, addresses and headers, as an agent's settings name them."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, Tag

from circuit.definition.field import Part, by_kind, fault

REFERENCE_HINT = "write ${NAME}, and set the environment variable NAME where Circuit runs"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_BRACED = re.compile(rf"\$\{{{_VARIABLE}\}}")
_WHOLE = re.compile(rf"\$({_VARIABLE})|env:({_VARIABLE})")
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
Url = Annotated[
    str,
    AfterValidator(check_url),
    Field(json_schema_extra={"examples": ["https://llm.example.org/v1", "${LLM_BASE_URL}"]}),
]


def reference_text(value: str | EnvironmentReference) -> str:
    """A reference in its canonical form, `${NAME}`."""
    return f"${{{value.env}}}" if isinstance(value, EnvironmentReference) else reference(value)

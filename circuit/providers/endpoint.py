"""Where the requests of a provider go and with what: addresses, keys and headers, resolved for each request anew.

Keys come from the environment only: `OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `GOOGLE_API_KEY`, or the variable that the
option `api_key` refers to. A variable may hold several keys, and that of an address several addresses, with commas
between them: each pair is an endpoint of its own. Nothing that was resolved is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from circuit.errors import KeyMissing, ProviderMisconfigured
from circuit.http import origin
from circuit.security.secrets import UnresolvedReference, references, resolve

USER_AGENT = "circuit-engine"
_AZURE = re.compile(r"\.(openai\.azure\.com|cognitiveservices\.azure\.com|services\.ai\.azure\.com)$")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes and with what. `secrets` are the values that no text may show, `own` says that it is the
    provider's own address and not that of a compatible server."""

    base: str
    headers: Mapping[str, str]
    secrets: tuple[str, ...]
    key_hint: str
    own: bool = False

    def url(self, path: str) -> str:
        """The address of `path` below the base; the queries of both stay."""
        base, more = urlsplit(self.base), urlsplit(path)
        query = "&".join(part for part in (base.query, more.query) if part)
        return urlunsplit(base._replace(path=base.path.rstrip("/") + more.path, query=query, fragment=""))

    @property
    def identity(self) -> str:
        """A name for this endpoint that gives nothing away."""
        text = "\n".join((self.base, *self.secrets))
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Account:
    """How a type of provider is reached. `headers` makes those that carry a key."""

    name: str
    url: str = ""
    url_variable: str = ""
    key_variable: str = ""
    headers: Callable[[str], Mapping[str, str]] = lambda key: {"Authorization": f"Bearer {key}"}
    always: Mapping[str, str] | None = None
    complete: Callable[[str], str] = lambda base: base
    keyless: bool = False
    """Whether the provider's own address takes requests without a key."""


def endpoints(
    account: Account, model: str, options: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Endpoint, ...]:
    """All endpoints of `account` as `options` and `environment` describe them: each address with each key.

    Raises `ProviderMisconfigured` where an address, a key or a variable is missing.
    """
    bases, secrets = _bases(account, options, environment)
    keys, key_secrets, hint = _keys(account, options, environment)
    headers, header_secrets = _headers(options, environment)
    # Who signs requests himself sends no key beside that.
    signed = any(name.lower() == "authorization" for name in headers)
    version = str(options.get("api_version") or environment.get("OPENAI_API_VERSION", "")).strip()
    made: list[Endpoint] = []
    for base in bases:
        origin(base)
        own = bool(account.url) and urlsplit(base).hostname == urlsplit(account.url).hostname
        azure = account.name == "openai" and (_azure(base) or bool(options.get("api_version")))
        full = _azure_base(base, model, options, version) if azure else account.complete(base)
        if own and not keys and not account.keyless and not signed:
            raise KeyMissing(_no_key(account))
        for key in keys or ("",):
            carried = {"api-key": key} if azure else account.headers(key)
            given = {**(account.always or {}), **(carried if key and not signed else {})}
            whole = _standard(given, headers)
            made.append(Endpoint(full, whole, (*secrets, *key_secrets, *header_secrets, key), hint, own))
    return tuple(made)


def _no_key(account: Account) -> str:
    elsewhere = f", or set {account.url_variable} to a compatible server" if account.url_variable else ""
    return (
        f"{account.key_variable} is not set: a model of {account.name} needs a key. Set it{elsewhere},"
        " or use the scripted provider, which needs none."
    )


def _bases(
    account: Account, options: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    secrets: tuple[str, ...] = ()
    if options.get("base_url"):
        text, secrets = _resolved("base_url", options["base_url"], environment)
    else:
        text = environment.get(account.url_variable, "").strip() or account.url
    found = _several(text)
    if not found:
        raise ProviderMisconfigured(
            f"a {account.name} provider needs a base_url, such as http://localhost:8000/v1: set it in llm_provider"
            + (f", or set {account.url_variable}" if account.url_variable else "")
        )
    return found, secrets


def _keys(
    account: Account, options: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """The keys, the secrets in them, and how to set them."""
    given = options.get("api_key")
    if not given:
        keys = _several(environment.get(account.key_variable, "")) if _at_home(account, options) else ()
        return keys, keys, _hint(account, options)
    names = references(str(given))
    if not names:
        raise ProviderMisconfigured(
            "api_key must refer to an environment variable, as in ${MY_KEY}:"
            " a key that is written in a workflow would be stored with it"
        )
    text, secrets = _resolved("api_key", given, environment)
    keys = _several(text)
    return keys, (*secrets, *keys), f"Set {', '.join(names)} to a valid key."


def _at_home(account: Account, options: Mapping[str, Any]) -> bool:
    """Whether a key in the environment may be sent: who has no address of his own has his key for the one there."""
    return bool(account.url) or options.get("base_url") in (None, "", f"${{{account.url_variable}}}")


def _hint(account: Account, options: Mapping[str, Any]) -> str:
    names = [name for value in _mapping(options.get("headers")).values() for name in references(str(value))]
    headers = f"Check {', '.join(dict.fromkeys(names))} in the environment." if names else ""
    signed = any(name.lower() == "authorization" for name in _mapping(options.get("headers")))
    if account.key_variable and _at_home(account, options) and not (signed or (headers and account.keyless)):
        return f"Set {account.key_variable} to a valid key. {headers}".rstrip()
    if headers:
        return headers
    return "Give the provider an api_key or a header that refers to the environment, such as ${MY_KEY}."


def _several(text: str) -> tuple[str, ...]:
    """The values of a variable that may hold several, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _headers(options: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    headers: dict[str, str] = {}
    secrets: list[str] = []
    for name, value in _mapping(options.get("headers")).items():
        headers[name], found = _resolved(f"the header {name}", value, environment)
        # A value that was written out should not have been; it is kept out of messages all the same.
        secrets += (*found, headers[name])
    return headers, tuple(secrets)


def _resolved(what: str, text: Any, environment: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """`text` with its references resolved, and the values that came in by them."""
    try:
        value = resolve(str(text), environment).strip()
    except UnresolvedReference as missing:
        names = missing.names
    else:
        return value, tuple(environment[name].strip() for name in references(str(text)))
    kind = KeyMissing if what == "api_key" else ProviderMisconfigured
    raise kind(f"{what} of the provider refers to {', '.join(names)}, which is not set in the environment: set it")


def _standard(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The headers of every request: `given` ones over the provider's `own`, and these over what all have."""
    # No compression: it would hold back the pieces of a stream.
    standard = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream, application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
        **own,
    }
    names = {name.lower() for name in given}
    return {name: value for name, value in standard.items() if name.lower() not in names} | dict(given)


def _azure(base: str) -> bool:
    return bool(_AZURE.search(urlsplit(base).hostname or ""))


def _azure_base(base: str, model: str, options: Mapping[str, Any], version: str) -> str:
    """The base of Azure's form. A resource without a path is completed: to the deployment of the model, for responses
    to the resource itself, and where no `api_version` is given to the form without versions."""
    parts = urlsplit(base)
    query = dict(parse_qsl(parts.query))
    path = parts.path.rstrip("/")
    if not path and (version or "api-version" in query):
        path = "/openai" if options.get("api") == "responses" else f"/openai/deployments/{model}"
    elif not path:
        path = "/openai/v1"
    if version and not path.endswith("/v1"):
        query.setdefault("api-version", version)
    return urlunsplit(parts._replace(path=path, query=urlencode(query)))


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}

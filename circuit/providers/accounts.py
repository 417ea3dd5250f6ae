"""The types of remote providers: how each is reached, and the protocol that it speaks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from circuit.errors import ProviderMisconfigured
from circuit.providers.anthropic import VERSION, AnthropicWire
from circuit.providers.completion import ChatWire
from circuit.providers.endpoint import Account
from circuit.providers.google import GoogleWire
from circuit.providers.ollama import OllamaWire
from circuit.providers.responses import ResponsesWire
from circuit.providers.wire import Wire

APIS = ("chat", "responses")


def _version(base: str, pattern: str, path: str) -> str:
    """`base` with `path` after it, unless its own path already ends as `pattern` says."""
    parts = urlsplit(base)
    own = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=own if re.search(pattern, own) else own + path))


def _anthropic(base: str) -> str:
    """Addresses are written with and without the version, which the protocol's own path begins with."""
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix("/v1")))


ACCOUNTS: Mapping[str, Account] = {
    "openai": Account("openai", "https://api.openai.com/v1", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
    "custom": Account("custom", "", "CUSTOM_BASE_URL", "CUSTOM_API_KEY"),
    "anthropic": Account(
        "anthropic",
        "https://api.anthropic.com",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_API_KEY",
        headers=lambda key: {"x-api-key": key},
        always={"anthropic-version": VERSION},
        complete=_anthropic,
    ),
    "google": Account(
        "google",
        "https://generativelanguage.googleapis.com/v1beta",
        "GOOGLE_BASE_URL",
        "GOOGLE_API_KEY",
        headers=lambda key: {"x-goog-api-key": key},
        complete=lambda base: _version(base, r"/v\d", "/v1beta"),
    ),
    "ollama": Account("ollama", "http://localhost:11434", "OLLAMA_BASE_URL", "OLLAMA_API_KEY", keyless=True),
}


def wire_of(kind: str, options: Mapping[str, Any]) -> Wire:
    """The protocol that a provider of `kind` speaks. Raises `ProviderMisconfigured`."""
    if kind == "anthropic":
        return AnthropicWire()
    if kind == "google":
        return GoogleWire()
    if kind == "ollama":
        return OllamaWire()
    api = options.get("api", "chat")
    if api not in APIS:
        raise ProviderMisconfigured(f"the api {api!r} of a provider is not known: use {' or '.join(APIS)}")
    if api == "responses":
        return ResponsesWire()
    # As it is written, not as it is looked up: all addresses of a provider are one server.
    return ChatWire(str(options.get("base_url") or f"${{{ACCOUNTS[kind].url_variable}}}").rstrip("/"))

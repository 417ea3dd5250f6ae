"""A canonical document as a workflow file again: whoever loads the text gets the same version."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_LIKE_A_NUMBER = re.compile(r"[-+]?[.0-9]")


class _Writer(yaml.SafeDumper):
    """Writes text over several lines as a block, and quotes what YAML 1.2 would take for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(writer: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None
    if "\n" in value:
        style = "|"
    elif _LIKE_A_NUMBER.match(value):
        style = '"'
    return writer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Writer.add_representer(str, _text)


def written(document: Mapping[str, Any], place_agents: Sequence[Mapping[str, Any]] = ()) -> str:
    """The text of a workflow file, in its long form. The `place_agents`, as somebody spelt them, come after its own."""
    plain = _as_file(dict(document))
    if place_agents:
        plain["place_agents"] = [*plain.get("place_agents", ()), *(dict(entry) for entry in place_agents)]
    return yaml.dump(plain, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=110)


def as_lines(document: Mapping[str, Any]) -> str:
    """A document that no file held, as JSON with lines that faults can point at. Whatever JSON can spell stands in it:
    what cannot be stored of that (numbers with too many digits, half a character) is for the loader to say."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def _as_file(document: dict[str, Any]) -> dict[str, Any]:
    """Providers have their options beside `type` and `model` in a file; all else is spelt as it stands."""
    plain = dict(document)
    if "agents" in plain:
        plain["agents"] = {name: _entry(agent) for name, agent in plain["agents"].items()}
    if "place_agents" in plain:
        plain["place_agents"] = [_entry(entry) for entry in plain["place_agents"]]
    return plain


def _entry(value: Mapping[str, Any]) -> dict[str, Any]:
    entry = dict(value)
    if "llm_provider" in entry:
        entry["llm_provider"] = _provider(entry["llm_provider"])
    if "fallback" in entry:
        entry["fallback"] = [_provider(one) for one in entry["fallback"]]
    return entry


def _provider(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": value["type"], "model": value["model"], **value.get("options", {})}

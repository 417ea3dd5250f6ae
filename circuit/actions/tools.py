"""The tools of an agent, from what its definition names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from circuit.agents.function import MOST_THREADS, function_tool
from circuit.agents.policy import matches
from circuit.agents.toolbox.fetch import DEFAULT_LIMIT as FETCH_LIMIT
from circuit.agents.toolbox.fetch import Gate, fetch_tool
from circuit.agents.toolbox.files import NAMES, file_tools
from circuit.agents.toolbox.openapi import Api, api_of, openapi_tools
from circuit.agents.toolbox.root import DEFAULT_LIMIT, Root
from circuit.agents.toolbox.shell import MEGABYTE, Bounds, shell_tool
from circuit.agents.tools import DEFAULT_SECONDS, Tool, Toolset, table
from circuit.errors import ToolsMisconfigured
from circuit.security.secrets import UnresolvedReference, references, resolve
from circuit.threads import Threads
from circuit.value import dataclass

if TYPE_CHECKING:
    from circuit.http import Http

SHELL = ("shell.run", "shell.*")
MOST_APIS = 32
"""How many APIs a process keeps read."""
DOORS = ("mcp",)
"""The kinds of tools that extensions bring."""


def _http() -> Http:
    """Loaded when the first tool asks a server: its library is large."""
    from circuit.http import Http

    return Http()


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What tools a process has. Each case has a directory of its own below `workspaces` for what its agents write."""

    workspaces: Path
    http: Callable[[], Http] = field(default=_http)
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict[str, Callable[..., Any]])
    """Python functions that agents may name."""
    _threads: Threads = field(default_factory=lambda: Threads(MOST_THREADS), repr=False)
    _toolsets: dict[str, Toolset] = field(default_factory=dict[str, Toolset], repr=False)
    _apis: dict[str, Api] = field(default_factory=dict[str, Api], repr=False)

    async def tools(self, agent: Mapping[str, Any], case_id: str) -> dict[str, Tool]:
        """The tools that `agent` names, for one case. Raises `ToolsMisconfigured`."""
        entries: list[Mapping[str, Any]] = agent.get("tools") or []
        found: list[Tool] = []
        for entry in entries:
            if entry["kind"] in DOORS:
                given = await self._foreign(entry)
            elif entry["kind"] == "openapi":
                given = await self._api(entry)
            else:
                given = self._of(entry, entries, case_id)
            known = {tool.name for tool in found}
            found += [tool for tool in given if tool.name not in known]
        return table(found)

    async def aclose(self) -> None:
        """Close what toolsets hold open. Twice is fine."""
        for toolset in self._toolsets.values():
            await toolset.aclose()
        self._toolsets.clear()

    async def _foreign(self, entry: Mapping[str, Any]) -> Iterable[Tool]:
        """The tools of an extension. Agents with the same settings share what it holds open."""
        key = orjson.dumps(entry, option=orjson.OPT_SORT_KEYS).decode()
        toolset = self._toolsets.get(key)
        if toolset is None:
            toolset = self._toolsets[key] = _door(str(entry["kind"]))(entry, self.environment)
        return await toolset.tools()

    async def _api(self, entry: Mapping[str, Any]) -> Iterable[Tool]:
        """The tools of an HTTP API. Its document is read once, and again when its file has changed."""
        given = {**(entry.get("headers") or {}), "": str(entry.get("base_url") or "")}
        try:
            values = {name: resolve(text, self.environment) for name, text in given.items()}
        except UnresolvedReference as missing:
            lacking = ", ".join(missing.names)
            raise ToolsMisconfigured(f"the settings of {entry['prefix']} refer to {lacking}: set it") from None
        base = values.pop("")
        document = entry["document"]
        written = await asyncio.to_thread(_written, document) if isinstance(document, str) else None
        key = orjson.dumps([entry, base, written], option=orjson.OPT_SORT_KEYS).decode()
        api = self._apis.get(key)
        if api is None:
            api = await asyncio.to_thread(api_of, entry, base, tuple(values))
            while len(self._apis) >= MOST_APIS:
                del self._apis[next(iter(self._apis))]
            self._apis[key] = api
        names = {name for text in given.values() for name in references(text)}
        secrets = tuple(self.environment[name].strip() for name in names)
        return openapi_tools(self.http(), api, entry, values, secrets)

    def _of(self, entry: Mapping[str, Any], entries: list[Mapping[str, Any]], case_id: str) -> Iterator[Tool]:
        match entry["kind"]:
            case "files":
                yield from file_tools(self._root(entry, case_id), self._threads)
            case "shell":
                yield self._shell(entry, entries, case_id)
            case "agent" | "hand_over":
                return  # the action that runs agents makes these
            case "http":
                gate = Gate(tuple(entry["allow"]), bool(entry.get("private")))
                seconds = entry.get("seconds", DEFAULT_SECONDS)
                yield fetch_tool(self.http(), gate, entry.get("max_bytes", FETCH_LIMIT), seconds=seconds)
            case "function":
                yield from self._required(str(entry["name"]), self._functions(str(entry["name"]), entries))
            case _:
                name = str(entry["name"])
                yield from self._required(name, self._named(name, entries, case_id))

    def _functions(self, name: str, entries: list[Mapping[str, Any]]) -> Iterator[Tool]:
        """The functions that a name or a pattern means, with the settings of the first entry that has some for them."""
        for known, call in self.functions.items():
            if matches([name], known):
                given = (one for one in entries if one["kind"] == "function" and matches([one["name"]], known))
                seconds = next((one["seconds"] for one in given if "seconds" in one), None)
                yield function_tool(known, call, seconds=seconds, threads=self._threads)

    def _named(self, name: str, entries: list[Mapping[str, Any]], case_id: str) -> Iterator[Tool]:
        """The tools that a bare name or a pattern means, with the settings that the agent has for their kind."""
        yield from self._functions(name, entries)
        if any(matches([name], known) for known in NAMES):
            root = self._root(_settings("files", entries), case_id)
            yield from (tool for tool in file_tools(root, self._threads) if matches([name], tool.name))
        if name in SHELL:
            # Never by a wider pattern: who grants a shell names it.
            yield self._shell(_settings("shell", entries), entries, case_id)

    def _required(self, name: str, tools: Iterable[Tool]) -> list[Tool]:
        """`tools`, which `name` means. Raises `ToolsMisconfigured` where it means none."""
        chosen = list(tools)
        if not chosen:
            known = ", ".join(self.functions) or "none"
            raise ToolsMisconfigured(
                f"there is no tool {name!r}: write the name of one, a pattern such as fs.*, or a mapping with settings"
                f" (functions that this process has: {known})"
            )
        return chosen

    def _shell(self, settings: Mapping[str, Any], entries: list[Mapping[str, Any]], case_id: str) -> Tool:
        """The shell, in the root of the agent's files unless it has one of its own."""
        root = self._root(settings if settings.get("root") else _settings("files", entries), case_id)
        plain = Bounds()
        bounds = Bounds(
            settings.get("seconds", plain.seconds),
            settings.get("memory_mb", plain.memory // MEGABYTE) * MEGABYTE,
            settings.get("max_bytes", plain.output),
        )
        return shell_tool(root.path, bounds)

    def _root(self, settings: Mapping[str, Any], case_id: str) -> Root:
        path = Path(settings["root"]) if settings.get("root") else self.workspaces / case_id
        if not settings.get("root"):
            self.workspaces.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(exist_ok=True)
        return Root(
            path,
            tuple(settings.get("read_only", ())),
            tuple(settings.get("extensions", ())),
            settings.get("max_bytes", DEFAULT_LIMIT),
        )


def _door(kind: str) -> Callable[[Mapping[str, Any], Mapping[str, str]], Toolset]:
    """What opens the toolsets of an extension, found by its entry point."""
    found = next(iter(entry_points(group="circuit.toolsets", name=kind)), None)
    if found is None:
        raise ToolsMisconfigured(f"no extension that is installed has tools of the kind {kind}")
    return found.load()


def _written(path: str) -> list[int]:
    """What tells a file from what it was before; nothing where there is none."""
    with suppress(OSError):
        info = Path(path).stat()
        return [info.st_ino, info.st_size, info.st_mtime_ns]
    return []


def _settings(kind: str, entries: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((entry for entry in entries if entry["kind"] == kind), {})

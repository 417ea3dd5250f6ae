"""The tools of an agent, from what its definition names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuit.agents.policy import matches
from circuit.agents.toolbox.files import PREFIX, file_tools
from circuit.agents.toolbox.root import DEFAULT_LIMIT, Root
from circuit.agents.tools import Tool, table
from circuit.errors import ToolsMisconfigured
from circuit.value import dataclass


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What tools a process has. Each case has a directory of its own below `workspaces` for what its agents write."""

    workspaces: Path

    def tools(self, agent: Mapping[str, Any], case_id: str) -> dict[str, Tool]:
        """The tools that `agent` names, for one case. Raises `ToolsMisconfigured`."""
        entries: list[Mapping[str, Any]] = agent.get("tools") or []
        found: list[Tool] = []
        for entry in entries:
            known = {tool.name for tool in found}
            found += [tool for tool in self._of(entry, entries, case_id) if tool.name not in known]
        return table(found)

    def _of(self, entry: Mapping[str, Any], entries: list[Mapping[str, Any]], case_id: str) -> Iterator[Tool]:
        if entry["kind"] == "files":
            yield from file_tools(self._root(entry, case_id))
            return
        name = str(entry["name"])
        if name.startswith(PREFIX):
            # A bare name is one of the files that the agent has settings for, if it has.
            settings = next((one for one in entries if one["kind"] == "files"), {})
            chosen = [tool for tool in file_tools(self._root(settings, case_id)) if matches([name], tool.name)]
            if chosen:
                yield from chosen
                return
        raise ToolsMisconfigured(f"there is no tool {name!r}: write the name of one, or a pattern such as fs.*")

    def _root(self, settings: Mapping[str, Any], case_id: str) -> Root:
        path = Path(settings["root"]) if settings.get("root") else self.workspaces / case_id
        if not settings.get("root"):
            path.mkdir(parents=True, exist_ok=True)
        return Root(
            path,
            tuple(settings.get("read_only", ())),
            tuple(settings.get("extensions", ())),
            settings.get("max_bytes", DEFAULT_LIMIT),
        )

"""Makes transitions of place agents: each refreshes the tokens of its place.

The transition is called `AGENT@PLACE`, and `AGENT@PLACE#2` where an agent stands twice on a place: no name in a file
can hold these characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from circuit.definition.workflow import ActionSpec, RetryPolicy
from circuit.expressions.schedule import Cron
from circuit.net.guard import Guard, Rule
from circuit.net.mapping import InputMapping, OutputMapping
from circuit.net.structure import InputArc, Mode, OutputArc, Transition
from circuit.net.timing import Missed, Rhythm


def names(place_agents: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the transitions of these place agents are called, in their order."""
    found: list[str] = []
    for entry in place_agents:
        name = f"{entry['agent_id']}@{entry['place_id']}"
        again = sum(known.partition("#")[0] == name for known in found)
        found.append(f"{name}#{again + 1}" if again else name)
    return found


def compile_place_agents(place_agents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Transition, ActionSpec]]:
    """The transitions of place agents in canonical form, each with what it does."""
    for name, entry in zip(names(place_agents), place_agents, strict=True):
        place: str = entry["place_id"]
        rules = tuple(Rule.parse(rule) for rule in entry.get("trigger_conditions", ()))
        transition = Transition(
            name=name,
            inputs=(InputArc(place, 1, Mode.REFRESH),),
            outputs=(OutputArc(place),),
            guard=Guard(rules, ()) if rules else None,
            acting=True,
            timing=rhythm(name, entry.get("schedule") or {}),
            then=entry.get("auto_transition"),
            input_mapping=InputMapping.parse(_sorted(entry["input_mapping"])) if "input_mapping" in entry else None,
            output_mapping=OutputMapping.parse(_sorted(entry["output_mapping"])) if "output_mapping" in entry else None,
        )
        config = {key: entry[key] for key in ("agent_id", "llm_config", "llm_provider") if key in entry}
        yield transition, ActionSpec("agent", config, retry=RetryPolicy.of_json(entry.get("retry_config")))


def rhythm(name: str, schedule: Mapping[str, Any]) -> Rhythm:
    """When the place agent `name` runs. Raises `ScheduleFault`."""
    return Rhythm(
        name,
        delay=schedule.get("initial_delay_seconds", 0.0),
        interval=schedule.get("interval_seconds"),
        cron=Cron.parse(schedule["cron"]) if "cron" in schedule else None,
        most=schedule.get("max_executions"),
        missed=Missed(schedule.get("missed", "once")),
    )


def _sorted(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entries[name] for name in sorted(entries)}

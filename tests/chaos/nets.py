"""Workflows of every shape, as the fault programme runs them: each as a file's text, and what its cases must come to.

Every way through a net ends in a terminal place, whatever a provider does: what fails for good goes to `gone`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

GONE = "gone"
"""Where tokens end whose agent failed for good."""

Document = dict[str, Any]

RETRY = {"max_attempts": 8, "backoff_seconds": 0.05}
EXECUTION_SECONDS = 2
"""Time limits are scaled by a hundred and more: 300 s become 2."""


def documents(url: str) -> dict[str, Document]:
    """All workflows, by their ids; their agents ask the server at `url`."""
    nets = [chain(4), choice(), loop(3), *(fork_join(width) for width in (2, 3, 5, 8)), shared(), watched(), *family()]
    return {net["workflow"]: _complete(net, url) for net in nets}


def text(document: Mapping[str, Any]) -> str:
    """A document as the text of a file: JSON is YAML."""
    return json.dumps(document)


def draw(random: Random, names: list[str], count: int) -> list[str]:
    """`count` workflows: every shape in its turn, from a random one on."""
    first = random.randrange(len(names))
    return [names[(first + number) % len(names)] for number in range(count)]


def chain(length: int) -> Document:
    """One agent after the other."""
    places: Document = {"p0": {"initial": True}, **{f"p{n}": {} for n in range(1, length)}, "done": {"terminal": True}}
    names = list(places)
    return {
        "workflow": f"chain-{length}",
        "places": places,
        "transitions": {f"step{n}": _asks(f"step{n}", names[n], names[n + 1]) for n in range(length)},
    }


def fork_join(width: int) -> Document:
    """One token becomes `width`, an agent works on each, and an agent joins them: all or nothing."""
    branches = range(width)
    return {
        "workflow": f"fork-join-{width}",
        "places": {
            "begin": {"initial": True},
            **{f"left{n}": {} for n in branches},
            **{f"right{n}": {} for n in branches},
            "joined": {},
            "done": {"terminal": True},
        },
        "transitions": {
            "fork": {"from_places": "begin", "to_places": [f"left{n}" for n in branches]},
            **{f"work{n}": _asks(f"work{n}", f"left{n}", f"right{n}") for n in branches},
            "join": {"from_places": [f"right{n}" for n in branches], "to_place": "joined", "merge": "last"},
            "close": _asks("close", "joined", "done"),
        },
    }


def choice() -> Document:
    """What the agent says decides where the token goes."""
    low = "data.choose < '5'"
    return {
        "workflow": "choice",
        "places": {"begin": {"initial": True}, "chosen": {}, "low": {}, "high": {}, "done": {"terminal": True}},
        "transitions": {
            "choose": _asks("choose", "begin", "chosen"),
            "go_low": {"from_places": "chosen", "to_place": "low", "conditions": [low]},
            "go_high": {"from_places": "chosen", "to_place": "high", "conditions": [f"!({low})"]},
            "after_low": _asks("after_low", "low", "done"),
            "after_high": _asks("after_high", "high", "done"),
        },
    }


def loop(times: int) -> Document:
    """An agent is asked again until it was asked `times` times."""
    return {
        "workflow": f"loop-{times}",
        "places": {"begin": {"initial": True}, "asked": {}, "done": {"terminal": True}},
        "transitions": {
            "ask": _asks("ask", "begin", "asked"),
            "again": {"from_places": "asked", "to_place": "begin", "conditions": [f"case.fired.ask < {times}"]},
            "leave": {"from_places": "asked", "to_place": "done", "conditions": [f"case.fired.ask >= {times}"]},
        },
    }


def shared() -> Document:
    """Agents that hold what all cases share: a counted resource, and one that is there again after a while."""
    places = {"desk": {"shared": True, "capacity": 2}, "line": {"shared": True, "capacity": 3, "interval": "200ms"}}
    write, call = _asks("write", "begin", "written"), _asks("call", "written", "done")
    return {
        "workflow": "shared",
        "places": {**places, "begin": {"initial": True}, "written": {}, "done": {"terminal": True}},
        "transitions": {
            "write": write | {"from_places": ["begin", "desk"]},
            "call": call | {"from_places": ["written", "desk", "line"]},
        },
    }


def watched() -> Document:
    """An agent runs on a token again and again while it lies, until time takes it."""
    return {
        "workflow": "watched",
        "places": {"lying": {"initial": True}, "done": {"terminal": True}},
        "transitions": {
            "take": {"from_places": "lying", "to_place": "done", "trigger": {"type": "timer", "after": 1.2}}
        },
        "place_agents": [
            {
                "place_id": "lying",
                "agent_id": "watch",
                "output_mapping": {"data.watch": "text"},
                "schedule": {"interval_seconds": 1, "max_executions": 2, "missed": "all"},
                "retry_config": RETRY,
            }
        ],
    }


def family() -> list[Document]:
    """A case that opens another one and goes on with what that ends with; the one that is opened comes first."""
    called = chain(2) | {"workflow": "called"}
    calls = {
        "workflow": "calls",
        "places": {"begin": {"initial": True}, "told": {}, "done": {"terminal": True}},
        "transitions": {
            "open": {
                "from_places": "begin",
                "to_place": "told",
                "action": {"type": "subworkflow", "workflow": "called", "output_mapping": {"data.place": "place"}},
                "on_failure": GONE,
            },
            "close": _asks("close", "told", "done"),
        },
    }
    return [called, calls]


def poisoned(url: str) -> Document:
    """One agent, once: whatever its token does to it."""
    net = {
        "workflow": "poisoned",
        "places": {"begin": {"initial": True}, "done": {"terminal": True}},
        "transitions": {"touch": _asks("touch", "begin", "done")},
    }
    net["transitions"]["touch"]["agent_execution"]["retry_config"] = {"max_attempts": 1, "max_crashes": 3}
    return _complete(net, url)


def _asks(name: str, source: str, target: str) -> Document:
    """A transition whose agent, of the same name, says something into `data.NAME`."""
    return {
        "from_places": source,
        "to_place": target,
        "agent_execution": {
            "agent_id": name,
            "output_mapping": {f"data.{name}": "text"},
            "timeout_seconds": EXECUTION_SECONDS,
            "retry_config": RETRY,
        },
        "on_failure": GONE,
    }


def _complete(net: Document, url: str) -> Document:
    """The net with its agents, and the place where failures go. A question names the firing that asks it."""
    asking = [name for name, transition in net["transitions"].items() if "agent_execution" in transition]
    asking += [one["agent_id"] for one in net.get("place_agents", ())]
    agents = {
        name: {
            "name": name,
            "description": "Says something.",
            "llm_provider": {"type": "custom", "base_url": url, "model": "loopback"},
            "prompts": {"user_template": f"{name} {{token_id}} {{history_count}}"},
        }
        for name in asking
    }
    return net | {"places": net["places"] | {GONE: {"terminal": True}}, "agents": agents}

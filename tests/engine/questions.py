"""What somebody may ask of a simulated case: rightly, too early, too late, or of what is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.engine.world import World

WAIT_KEY = "k"
"""The one wait that each firing may come to."""


def _asked_to_fire(world: World) -> dict[str, Any]:
    return {"transition": world.random.choice(world.transitions).partition("@")[0], "form": {}}


def _asked_to_summon(world: World) -> dict[str, Any]:
    """Agents of a place, or one of them, to run now on its tokens, or on one of them; there or not."""
    draw = world.random
    agents = [name for name, part in world.shape["transitions"].items() if "refresh" in part]
    name = draw.choice([*agents, *agents, world.transitions[0]])
    return {
        "place": world.shape["transitions"][name]["consume"][0][0],
        "agent": draw.choice([None, None, None, name]),
        "token": draw.choice([None, None, *world.case.tokens]),
    }


def _asked_to_take_a_message(world: World) -> dict[str, Any]:
    """A message that the case waits for, or did, or never will."""
    draw = world.random
    known = [(one.name, one.key) for one in sorted(world.case.awaited)]
    name, key = draw.choice([*known, *known, (draw.choice(world.transitions), '["0"]')])
    return {"message": f"message {world.commands}", "name": name, "key": key, "data": {}}


def _asked_to_signal(world: World) -> dict[str, Any]:
    """A signal to a firing that waits, or that does not yet, or that has ended, or that never was."""
    waiting = world.suspended()
    firing = world.random.choice([*waiting, *waiting, *range(1, world.case.row.next_firing + 1)])
    return {"firing": firing, "key": world.random.choice([WAIT_KEY, None]), "payload": world.commands}


def _asked_to_modify(world: World) -> dict[str, Any]:
    """Tokens put, taken, moved or changed by hand, held or not, there or not."""
    draw = world.random
    number = draw.choice([*world.case.tokens, world.case.row.next_token])
    place = draw.choice(sorted(world.shape["places"]))
    changes: dict[str, list[Any]] = {"put": [], "take": [], "move": [], "set": []}
    kind = draw.choice(["put", "take", "move", "move", "set"])
    changes[kind] = {
        "put": [{"place": place, "data": {"n": draw.randint(0, 9), "k": draw.randint(0, 1)}, "metadata": {}}],
        "take": [number],
        "move": [{"token": number, "place": place}],
        "set": [{"path": "data.n", "value": draw.randint(0, 9), "token": number, "place": None}],
    }[kind]
    return {**changes, "reason": "simulated", "cancel_firings": draw.random() < 0.5}


def _asked_to_migrate(world: World) -> dict[str, Any]:
    """To another version that says the same, as the case stands now or stood before. What restarts may run or wait."""
    row, draw = world.case.row, world.random
    live = [number for number, firing in world.case.firings.items() if firing.state.live]
    return {
        "from": row.workflow_hash,
        "to": f"hash {row.seq}",
        "seq": row.seq - draw.choice([0, 0, 0, 1]),
        "bucket": 0,
        "places": {},
        "restart": [number for number in live if draw.random() < 0.6],
    }


def _asked_for_nothing_more(world: World) -> dict[str, Any]:
    return {}


ASKED: dict[str, tuple[float, Callable[[World], dict[str, Any]]]] = {
    "fire": (6, _asked_to_fire),
    "signal": (5, _asked_to_signal),
    "summon": (2, _asked_to_summon),
    "message": (3, _asked_to_take_a_message),
    "retry": (3, _asked_for_nothing_more),
    "modify": (2, _asked_to_modify),
    "migrate": (3, _asked_to_migrate),
    "cancel": (0.3, _asked_for_nothing_more),
}
"""The kinds of commands: how often each is asked, beside the others, and with what."""

"""The way of a case to another version of its workflow: whether it can go, and how it goes. Pure.

A case is judged as it was at one of its events, and goes only if it still stands there. Firings that wait without a
worker, or for their next try, go along where their transition says the same in both versions. All else that is under
way has to end first, or is cancelled and begins anew in the new version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuit.definition.place_agent import names
from circuit.definition.workflow import Workflow
from circuit.engine.draft import Draft
from circuit.engine.failure import resolve
from circuit.engine.memory import LiveFiring, Memory
from circuit.errors import Conflict, InvalidRequest
from circuit.events import CaseMigrated, TokenImage, TokenRef
from circuit.net.marking import Run, Token
from circuit.storage.records import FiringRow, FiringState

REASON = "migrated"


@dataclass(frozen=True, slots=True)
class Passage:
    """From one version to another. `places` are those with another name in the new version, old by new; with
    `restart`, what is under way and cannot go along is cancelled and begins anew there."""

    old: Workflow
    new: Workflow
    places: Mapping[str, str]
    restart: bool = False

    def marking(self, marking: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
        """A marking as it is in the new version, and why it cannot be."""
        mapped: Counter[str] = Counter()
        reasons: list[str] = []
        for place, count in marking.items():
            name = self.places.get(place, place)
            if name in self.new.net.places:
                mapped[name] += count
            else:
                reasons.append(
                    f"there is no place {name} in the new version: name the one for it (`--map {place}=...`)"
                )
        for name, count in mapped.items():
            capacity = self.new.net.places[name].capacity
            if capacity is not None and count > capacity:
                reasons.append(f"{name} takes {capacity} in the new version, and {count} would lie there")
        return dict(mapped), reasons

    def refuses(self, tokens: Sequence[Token]) -> Iterator[str]:
        """Why the places of the new version do not take these tokens."""
        for token in tokens:
            place = self.new.net.places.get(self.places.get(token.place, token.place))
            colour = None if place is None else place.colour
            if place is not None and colour is not None and (faults := colour.faults(token.data)):
                yield f"token {token.number} is no {colour.name} for {place.name}: {'; '.join(faults)}"

    def held_back(self, firings: Sequence[FiringRow]) -> tuple[list[int], list[str]]:
        """The firings that are cancelled and begin anew, or why they keep their case from going."""
        restarted: list[int] = []
        reasons: list[str] = []
        for row in firings:
            if row.state is FiringState.RUNNING:
                why = f"firing {row.number} of {row.transition} is running"
            elif not self._same(row.transition):
                why = f"firing {row.number} of {row.transition} waits, and that transition is not the same there"
            else:
                continue
            restarted.append(row.number)
            reasons.append(f"{why}: wait for its end, or have it begin anew there (`--restart-firings`)")
        return (restarted, []) if self.restart else ([], reasons)

    def _same(self, transition: str) -> bool:
        """Whether a transition and what it does are the same in both versions."""
        old, new = _definition(self.old, transition), _definition(self.new, transition)
        return old is not None and old == new


def migrate(
    memory: Memory, payload: Mapping[str, Any], principal: str, draft: Draft, cancel: Callable[[LiveFiring], None]
) -> dict[str, Any]:
    """Bring the case to the version that a command names, where it was judged for it. Raises `Conflict` where it does
    not stand any more as it was judged, `InvalidRequest` for a command that is none."""
    try:
        old, new, seq, bucket = (payload[name] for name in ("from", "to", "seq", "bucket"))
        places: dict[str, str] = dict(payload["places"])
        restart = {int(number) for number in payload["restart"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"a command of the kind migrate has no {error}") from None
    if memory.row.workflow_hash != old:
        raise Conflict(f"case {memory.key} is on version {memory.row.workflow_hash[:12]}, and not on {old[:12]}")
    if draft.seq != seq:
        raise Conflict(f"case {memory.key} went on to event {draft.seq} since it was judged at {seq}: judge it anew")
    restarted = [live for live in memory.firings.values() if live.row.number in restart]
    for live in memory.firings.values():
        if live.running and live not in restarted:
            raise Conflict(f"case {memory.key}: firing {live.row.number} of {live.row.transition} is running")
    for live in restarted:
        cancel(live)
    for number in list(memory.incidents):
        resolve(memory, number, REASON, draft, principal)
    consumed: list[TokenRef] = []
    produced: list[TokenImage] = []
    for token in memory.marking.all():
        place = places.get(token.place, token.place)
        if place == token.place:
            continue
        moved = replace(token, version=token.version + 1, place=place, runs=_runs(token, place))
        draft.touch(token.number, token.version)
        memory.marking.move(moved)
        consumed.append(TokenRef(token.number, token.version, token.place))
        produced.append(TokenImage(moved.number, moved.version, place, moved.data, moved.metadata))
    row = memory.row
    draft.record(CaseMigrated(row.workflow_id, old, new, tuple(consumed), tuple(produced), principal))
    memory.row = replace(row, workflow_hash=new, bucket=bucket)
    memory.migrated = True
    return {"from": old, "to": new, "restarted": sorted(restart)}


def _runs(token: Token, place: str) -> dict[str, Run] | None:
    """What the agents of its place did on a token, by the names that they have on the place of another name."""
    if token.runs is None:
        return None
    return {name.replace(f"@{token.place}", f"@{place}"): run for name, run in token.runs.items()}


def _definition(workflow: Workflow, transition: str) -> Any:
    """All that a version says of a transition and its action, or None where it says nothing of it."""
    document = workflow.document
    place_agents = dict(zip(names(document.get("place_agents") or ()), document.get("place_agents") or (), strict=True))
    # A transition from any of several places stands for variants, `label@place`; what undoes it is `label~undo`.
    named = [transition, transition.partition("@")[0], transition.partition("~")[0]]
    said = place_agents.get(transition)
    for name in named:
        said = said if said is not None else document.get("transitions", {}).get(name)
    if said is None or transition not in workflow.net.transitions:
        return None
    spec = workflow.actions.get(transition)
    agent = None if spec is None else workflow.agents.get(str(spec.config.get("agent_id")))
    shared = [document.get(name) for name in ("tools", "policies")] if agent is not None else []
    return said, spec, None if agent is None else agent.hash, shared

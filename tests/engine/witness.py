"""Reads the committed history of a simulated case beside the oracle, and says where the two part."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from circuit.events import (
    CaseEnded,
    CaseMigrated,
    FiringBegun,
    FiringCancelled,
    FiringFailed,
    IncidentResolved,
    TokensChanged,
    TransitionFired,
)
from circuit.net.marking import Token
from circuit.storage.records import CaseStatus, ExecutionStatus, FiringState
from tests import reference_net as oracle
from tests.engine.model import ModelCase
from tests.engine.shapes import Shape, elements, single


def oracle_net(shape: Shape) -> dict[str, Any]:
    """The net of a shape in the oracle's words."""
    return {
        "places": {name: place["capacity"] for name, place in shape["places"].items()},
        "transitions": {name: _oracle_transition(name, part) for name, part in shape["transitions"].items()},
    }


def _oracle_transition(name: str, part: Shape) -> dict[str, Any]:
    above = part["above"]
    guard = (lambda consumed, read: consumed[0]["data"]["n"] > above) if above is not None and single(part) else None
    return {
        "consume": part["consume"],
        "read": part["read"],
        **{kind: part.get(kind, []) for kind in ("drain", "inhibit", "reset")},
        "produce": part["produce"],
        "priority": part["priority"],
        "acting": part["acting"],
        "auto": not part["manual"] and not part.get("called") and not part.get("message"),
        "after": _milliseconds(part.get("after")),
        "refresh": _oracle_rhythm(part["refresh"]) if "refresh" in part else None,
        "on_failure": part["on_failure"],
        "guard": guard,
        "filters": {arc: partial(_over, least) for arc, least in part.get("where", {}).items()},
        "keys": dict.fromkeys(part.get("keys", ()), "k"),
        "newest": part.get("newest", ()),
        "each": {part["each"]: elements} if "each" in part else {},
        "gather": part.get("gather"),
        "label": part.get("label", name),
    }


def _over(least: int, data: Any) -> bool:
    return data["n"] > least


def _oracle_rhythm(rhythm: Shape) -> dict[str, Any]:
    spans = {name: _milliseconds(rhythm[name]) for name in ("delay", "interval")}
    return {**spans, "most": rhythm["most"], "missed": rhythm["missed"]}


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


class Witness:
    """Follows one case from its start."""

    def __init__(self, shape: Shape, case: ModelCase) -> None:
        self.shape = shape
        self.net = oracle_net(shape)
        self.case = case
        self.marking = oracle.marking([(token.place, dict(token.data)) for token, _ in case.tokens.values()])
        self.read = 1
        self.cancelled: set[int] = set()
        self.called: tuple[str, tuple[int, ...], tuple[int, ...]] | None = None

    def clock(self, at: datetime) -> int:
        """The oracle's time."""
        return round((at - self.case.row.started_at).total_seconds() * 1000)

    def committed(self, again: bool, decided_at: datetime | None = None) -> None:
        """A write was committed: its events must be what the oracle would have done, and lead where it leads. Where
        time matters, `decided_at` is when the owner worked it out."""
        for seq, at, event in self.case.history[self.read :]:
            assert seq == self.read + 1, "history has a gap"
            self.read = seq
            self.marking["clock"] = self.clock(at)
            if isinstance(event, FiringCancelled):
                # What cancels it comes next.
                self.follow(event, None)
                continue
            called, self.called = self.called, None
            self.follow(event, called)
            assert called is None or isinstance(event, TransitionFired | FiringBegun), (
                "what an agent fires did not fire"
            )
        assert self.called is None, "what an agent fires did not fire"
        self.abort_cancelled()
        assert self.case.row.seq == self.read
        self.compare()
        # Who migrates a case gives it up as it is, for somebody else to go on with at once.
        moved = isinstance(self.case.history[-1][2], CaseMigrated) and self.case.due_at is not None
        if not moved:
            self.compare_mail()
        if not again and not moved and not self.case.row.status.terminal:
            if decided_at is not None:
                self.marking["clock"] = self.clock(decided_at)
            assert oracle.choose(self.net, self.marking) is None, "an enabled transition was left lying"
            self.compare_due()

    def compare_due(self) -> None:
        """A case that was given up comes up again when time enables something of it."""
        due = oracle.next_due(self.net, self.marking)
        if self.case.owner is None and due is not None:
            assert self.case.due_at is not None, "a timer was forgotten"
            assert self.clock(self.case.due_at) <= due, "a case comes up too late"

    def abort_cancelled(self) -> None:
        for firing in self.cancelled:
            self.marking = oracle.abort(self.marking, firing)
        self.cancelled.clear()

    def follow(self, event: Any, called: Any) -> None:
        if not isinstance(event, TransitionFired | FiringCancelled):
            # Only a firing that takes their tokens is told of after it has cancelled others.
            self.abort_cancelled()
        if isinstance(event, TransitionFired) and event.firing is None:
            consumed = self.chosen(event.transition, event.consumed, event.read, event.principal, called)
            self.marking = oracle.fire(self.net, self.marking, event.transition, *consumed)
        elif isinstance(event, FiringBegun):
            refresh = self.net["transitions"][event.transition]["refresh"]
            if refresh and event.principal is not None:
                [token] = event.read
                self.marking = oracle.summon(self.net, self.marking, event.transition, token.number, event.firing)
                return
            tokens = (event.read, ()) if refresh else (event.reserved, event.read)
            consumed = self.chosen(event.transition, *tokens, event.principal, called)
            self.marking = oracle.begin(self.net, self.marking, event.transition, *consumed, event.firing)
        elif isinstance(event, TransitionFired) and event.firing in self.marking["refreshes"]:
            self.refreshed(event)
        elif isinstance(event, TransitionFired):
            outputs = None if event.skipped is not None else {"n": event.produced[0].data["n"]}
            self.marking = oracle.complete(self.net, self.marking, event.firing, outputs)
        elif isinstance(event, FiringFailed) and event.firing is not None:
            part = self.shape["transitions"][event.transition]
            again = "refresh" in part and part["refresh"]["interval"] is not None
            assert (event.incident is None) == (part["on_failure"] is not None or again)
            self.marking = oracle.fail(self.net, self.marking, event.firing)
        elif isinstance(event, FiringFailed):
            assert event.error["code"] == "livelock"
            self.marking["blocked"].add((event.transition, self.case.incidents[event.incident].blocks))
        elif isinstance(event, IncidentResolved):
            blocks = self.case.incidents[event.incident].blocks
            self.marking["blocked"].discard((event.transition, blocks))
        elif isinstance(event, FiringCancelled):
            self.cancelled.add(event.firing)
            return
        elif isinstance(event, TokensChanged):
            self.changed(event)
        elif isinstance(event, CaseEnded):
            self.ended(event)
        assert not self.cancelled & {*self.marking["firings"], *self.marking["refreshes"]}
        self.cancelled.clear()

    def changed(self, event: TokensChanged) -> None:
        """Somebody changed tokens by hand: none that a firing holds, and no place holds more than it takes."""
        tokens = self.marking["tokens"]
        held = {number for _, consumed, _ in self.marking["firings"].values() for number in consumed}
        assert held.isdisjoint(ref.number for ref in event.consumed), "what a firing holds was changed"
        before = {ref.number: tokens.pop(ref.number) for ref in event.consumed}
        for ref in event.consumed:
            assert (before[ref.number]["place"], before[ref.number]["version"]) == (ref.place, ref.version)
        for image in event.produced:
            was = before.get(image.number, {"place": None, "version": 0})
            if image.number not in before:
                assert image.number == self.marking["next"]
                self.marking["next"] += 1
            stays = was["place"] == image.place
            tokens[image.number] = {
                "place": image.place,
                "version": was["version"] + 1,
                "data": dict(image.data),
                "later": False,
                "entered": was["entered"] if stays else self.marking["clock"],
                "runs": was["runs"] if stays else {},
            }
        for name in {image.place for image in event.produced}:
            capacity = self.net["places"][name]
            lying = sum(token["place"] == name for token in tokens.values())
            assert capacity is None or lying <= capacity, "a place holds more than it takes"

    def refreshed(self, event: TransitionFired) -> None:
        """An agent is done with the token of a place: it is patched, or the result comes too late."""
        firing = event.firing
        name, number, _ = self.marking["refreshes"][firing]
        over = oracle.superseded(self.marking, firing)
        assert bool(event.superseded) == over
        assert over == (event.produced == ())
        outputs = {"n": event.produced[0].data["n"]} if event.produced else None
        self.marking = oracle.complete(self.net, self.marking, firing, outputs)
        then = self.shape["transitions"][name]["then"]
        if then is not None and not over:
            found = [one for one in oracle.bindings(self.net, self.marking, then) if number in one[0] + one[1]]
            self.called = (then, *found[0]) if found else None

    def chosen(
        self, transition: str, consumed: Any, read: Any, principal: str | None, called: Any
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the engine bound must be what the oracle would bind."""
        tokens = tuple(ref.number for ref in consumed), tuple(ref.number for ref in read)
        if called is not None:
            assert called == (transition, *tokens)
        elif principal is None:
            assert oracle.choose(self.net, self.marking) == (transition, *tokens)
        else:
            if self.shape["transitions"][transition].get("message"):
                # Which of its tokens, the key of the message says.
                assert tokens in oracle.bindings(self.net, self.marking, transition)
                return tokens
            label = self.net["transitions"][transition]["label"]
            choices = [name for name, one in self.net["transitions"].items() if one["label"] == label]
            firsts = [(oracle.bindings(self.net, self.marking, name)[:1], name) for name in choices]
            assert min((found[0][0] + found[0][1], name) for found, name in firsts if found)[1] == transition
            assert oracle.bindings(self.net, self.marking, transition)[0] == tokens
        return tokens

    def ended(self, event: CaseEnded) -> None:
        places = self.shape["places"]
        lying = [places[token["place"]] for token in self.marking["tokens"].values()]
        if event.status == "completed":
            assert all(place["terminal"] for place in lying) and not any(place["failed"] for place in lying)
        elif event.status == "failed":
            assert any(place["failed"] for place in lying)

    def compare(self) -> None:
        """The rows of the tokens against the oracle's marking."""
        held = {number: firing for firing, (_, consumed, _) in self.marking["firings"].items() for number in consumed}
        expected = {
            number: (token["place"], token["version"], token["data"], held.get(number), token["runs"])
            for number, token in self.marking["tokens"].items()
        }
        stored = {
            number: (token.place, token.version, dict(token.data), firing, self.runs_of(token))
            for number, (token, firing) in self.case.tokens.items()
        }
        assert stored == expected
        live = {number for number, row in self.case.firings.items() if row.state.live}
        known = set(self.marking["firings"]) | set(self.marking["refreshes"])
        assert live == known, "a live firing holds nothing, or a dead one does"
        self.compare_holds(live)
        self.compare_children()
        for number, execution in self.case.executions.items():
            assert (execution.status is ExecutionStatus.RUNNING) == (number in live)
        for number, frames in self.case.frames.items():
            terminal = [frame.terminal for frame in frames]
            assert terminal == [False] * (len(frames) - 1) + [True], "a stream ended twice, or not at its end"
            assert number not in live, "a stream ended too early"

    def compare_holds(self, live: set[int]) -> None:
        """Who lives has asked for what it needs, who runs has it, and who has ended has given it back."""
        asked: dict[int, dict[str, int]] = {}
        for (firing, place), amount in self.case.holds.items():
            asked.setdefault(firing, {})[place] = amount
        rows = self.case.firings
        needs = {number: self.shape["transitions"][rows[number].transition]["holds"] for number in live}
        assert asked == {number: need for number, need in needs.items() if need}
        for number in live:
            if rows[number].start > 0 and needs[number]:
                assert number in self.case.granted, "it started before it had what it needs"

    def compare_mail(self) -> None:
        """What the case waits for is what would fire something: by its name, and by the key of the token."""
        if self.case.row.status.terminal:
            assert not self.case.awaited, "a case that is over waits for a message"
            return
        receiving = [name for name, part in self.shape["transitions"].items() if part.get("message")]
        assert {(one.transition, one.name, one.key) for one in self.case.awaited} == {
            (name, name, f'["{self.marking["tokens"][number]["data"]["k"]}"]')
            for name in receiving
            for (number,), _ in oracle.bindings(self.net, self.marking, name)
        }

    def compare_children(self) -> None:
        """Each case that was opened is waited for, or has been told to end, or has ended."""
        waiting = [
            row.awaits["case"]
            for row in self.case.firings.values()
            if row.state is FiringState.SUSPENDED and row.awaits is not None and "case" in row.awaits
        ]
        assert len(waiting) == len(set(waiting))
        for child in self.case.children:
            assert child in self.case.dismissed or child in self.case.told or str(child) in waiting, (
                "a child is forgotten"
            )

    def runs_of(self, token: Token) -> dict[str, tuple[int, int, int | None]]:
        return {name: (run.count, self.clock(run.due), run.firing) for name, run in (token.runs or {}).items()}

    def at_rest(self) -> None:
        """The faults have stopped: the status says what the oracle sees."""
        row = self.case.row
        if row.status.terminal:
            assert not any(firing.state.live for firing in self.case.firings.values())
            return
        if self.cut_off:
            return
        assert oracle.next_due(self.net, self.marking) is None, "a timer is still to come"
        places = self.shape["places"]
        lying = [places[token["place"]] for token in self.marking["tokens"].values()]
        manual = [name for name, part in self.shape["transitions"].items() if part["manual"] or part.get("message")]
        awaited = any(oracle.bindings(self.net, self.marking, name) for name in manual)
        offered = any(
            firing.state in (FiringState.OFFERED, FiringState.SUSPENDED) for firing in self.case.firings.values()
        )
        troubled = any(place["dead_letter"] for place in lying) or any(
            incident.resolved_at is None for incident in self.case.incidents.values()
        )
        if offered or awaited:
            assert row.status is CaseStatus.WAITING
        elif troubled:
            assert row.status is CaseStatus.ATTENTION
        else:
            assert row.status is CaseStatus.STUCK
            assert not all(place["terminal"] for place in lying)

    cut_off = False

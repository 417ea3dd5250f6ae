"""A workflow in words: when each transition fires, what it takes and does, what comes of it, and what if it fails.

A transition of `from_any` is one entry, as authors wrote it, which names the transitions that were made of it. What
was made to undo things is told where it is undone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from circuit.definition.compensation import hidden, undo_of
from circuit.definition.compiler import WAITING
from circuit.definition.portrait import doer
from circuit.definition.workflow import ActionSpec, Workflow
from circuit.net.guard import Rule
from circuit.net.structure import InputArc, Mode, Net, OutputArc, Transition, Trigger
from circuit.net.timing import Rhythm, Timer
from circuit.spend import MICRO

_COMPARED = {
    "field_equals": "is",
    "field_greater_than": "is greater than",
    "field_less_than": "is less than",
    "field_contains": "contains",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One transition in words. `fires` says who or what fires it, `takes` which tokens all at once, `only_if` what must
    hold of them, `does` its action, `gives` where tokens come, `if_it_fails` what then becomes of what it took, `also`
    what else is so. `choices` are the transitions of the net that it became, where those are several."""

    transition: str
    description: str
    fires: str
    takes: tuple[str, ...]
    only_if: tuple[str, ...]
    does: str
    gives: tuple[str, ...]
    if_it_fails: str
    also: tuple[str, ...]
    choices: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The entry as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Account:
    """What a workflow does: in general, and transition by transition."""

    workflow: str
    name: str
    description: str
    cases: tuple[str, ...]
    transitions: tuple[Entry, ...]

    def as_dict(self) -> dict[str, Any]:
        """The account as plain JSON."""
        return asdict(self)


def account_of(workflow: Workflow) -> Account:
    """The workflow in words, its transitions in the order of their names, agents on places last."""
    net = workflow.net
    shown = {
        label: names
        for label, names in net.labels.items()
        if not hidden(label) and not any(net.transitions[name].undoes for name in names)
    }
    entries = [_entry(workflow, label, [net.transitions[name] for name in names]) for label, names in shown.items()]
    entries.sort(key=lambda entry: "@" in entry.transition)
    return Account(workflow.id, workflow.name, workflow.description, tuple(_cases(workflow)), tuple(entries))


def _cases(workflow: Workflow) -> Iterator[str]:
    places = [place for place in workflow.net.places.values() if not hidden(place.name)]
    initial = [place.name for place in places if place.initial]
    if workflow.start_message is not None:
        yield f"A message {workflow.start_message!r} starts a case."
    if initial:
        yield f"A case begins with a token in {_listed(initial)}."
    counts: dict[str, int] = {}
    for token in workflow.initial_tokens:
        counts[token.place] = counts.get(token.place, 0) + 1
    for place, count in counts.items():
        yield f"{_count(count, 'token')} of its own {'lies' if count == 1 else 'lie'} in {place} from the start."
    terminal = [place.name for place in places if place.terminal]
    if workflow.net.complete_when is not None:
        yield f"It is complete when {workflow.net.complete_when.source}."
    elif terminal:
        yield f"It is complete when all its tokens lie in {_listed(terminal, 'or')}."
    for what, names in (
        ("It fails as soon as", [place.name for place in places if place.failed]),
        ("It ends as soon as", [place.name for place in places if place.ends_case]),
        ("A person has to look when", [place.name for place in places if place.dead_letter]),
    ):
        if names:
            yield f"{what} a token comes to {_listed(names, 'or')}."
    for place in places:
        if place.roles:
            yield f"What people do with tokens of {place.name} is for the role {_listed(sorted(place.roles), 'or')}."
        if place.capacity is not None:
            yield f"{place.name} takes {_count(place.capacity, 'token')} at most; what would bring more waits."
    for name, resource in workflow.resources.items():
        again = resource.interval_seconds
        paced = f", each free again {_span(again)} after it was taken" if again is not None else ""
        yield f"All cases share {resource.capacity} of {name}{paced}."
    if workflow.screening:
        yield f"What its agents are told is screened: {_screened(workflow.screening)}."
    for name, agent in workflow.agents.items():
        if said := agent.document.get("screening"):
            yield f"What {name} is told is screened: {_screened(said)}."
    limits = workflow.budget
    amounts = [f"{limits.calls} calls"] if limits.calls is not None else []
    amounts += [f"{limits.tokens} tokens"] if limits.tokens is not None else []
    amounts += [f"${limits.microdollars / MICRO:g}"] if limits.microdollars is not None else []
    if amounts:
        yield f"Each case may spend {_listed(amounts)} on models."


def _screened(said: Mapping[str, str]) -> str:
    """What is done about what is found, action by action."""
    words = {"allow": "are let through", "warn": "are made harmless and told", "refuse": "refuse the execution"}
    kinds = {action: [kind.replace("_", " ") for kind, done in said.items() if done == action] for action in words}
    return "; ".join(f"{_listed(found)} {words[action]}" for action, found in kinds.items() if found)


def _entry(workflow: Workflow, label: str, choices: Sequence[Transition]) -> Entry:
    """All that was made of one transition of the file differs in the arc that was chosen only."""
    net, one = workflow.net, choices[0]
    action = workflow.actions.get(one.name)
    written: Mapping[str, Any] = workflow.document["transitions"].get(label) or {}
    return Entry(
        label,
        str(written.get("description") or ""),
        _fires(workflow, one),
        _takes(choices),
        tuple(_only_if(one)),
        _does(workflow, one, action),
        _gives(one),
        _failure(one, action),
        tuple(_also(workflow, net, one, action, written)),
        tuple(choice.name for choice in choices) if len(choices) > 1 else (),
    )


def _fires(workflow: Workflow, one: Transition) -> str:
    match one.trigger:
        case Trigger.MANUAL:
            roles = sorted(one.manual.roles) if one.manual is not None else []
            who = f"a person with the role {_listed(roles, 'or')}" if roles else "a person"
            form = ", who fills in a form" if one.manual is not None and one.manual.form is not None else ""
            return f"when {who} fires it{form}"
        case Trigger.MESSAGE if one.reception is not None:
            paths = [path.text for path in one.reception.correlate]
            whose = f" whose key is the token's {_listed(paths)}" if paths else ""
            return f"when a message {one.reception.name!r} comes{whose}"
        case Trigger.AGENT:
            agents = [name for name, other in workflow.net.transitions.items() if other.then == one.name]
            return f"when {_listed(agents, 'or')} is done with a token"
        case _:
            return _by_itself(one)


def _by_itself(one: Transition) -> str:
    timing = one.timing
    if isinstance(timing, Timer):
        cut = "; it also takes tokens that a firing holds, and cancels that firing" if timing.interrupt else ""
        if timing.cron is not None:
            return f"at the next time of {timing.cron.text!r} after its tokens came{cut}"
        if timing.at is not None:
            return f"at {timing.at}{cut}"
        return f"{_span(timing.after or 0)} after its tokens came{cut}"
    if isinstance(timing, Rhythm):
        first = f"{_span(timing.delay)} after a token came" if timing.delay else "as soon as a token comes"
        most = f", {_count(timing.most, 'time')} at most" if timing.most is not None else ""
        if timing.cron is not None:
            return f"at the times of {timing.cron.text!r} while a token lies there{most}"
        if timing.interval is not None:
            return f"{first}, and every {_span(timing.interval)} while it lies there{most}"
        return f"{first}, once"
    return "by itself, as soon as it can"


def _takes(choices: Sequence[Transition]) -> tuple[str, ...]:
    one = choices[0]
    if len(choices) == 1:
        return tuple(_arc(arc) for arc in one.inputs if arc.mode not in (Mode.INHIBIT, Mode.RESET))
    common = [arc for arc in one.inputs if all(arc in other.inputs for other in choices)]
    apart = [next(arc for arc in other.inputs if arc not in common) for other in choices]
    alternatives = f"any one of: {', '.join(_arc(arc) for arc in apart)} (each fires it on its own)"
    return (*(_arc(arc) for arc in common if arc.mode not in (Mode.INHIBIT, Mode.RESET)), alternatives)


def _arc(arc: InputArc) -> str:
    which = f" such that {arc.where.source}" if arc.where is not None else ""
    which += f" with the same {arc.correlate} as the others" if arc.correlate is not None else ""
    match arc.mode:
        case Mode.DRAIN:
            said = f"all tokens of {arc.place}" + (f", {arc.weight} at least" if arc.weight > 1 else "")
        case Mode.READ:
            said = f"{_tokens(arc.weight, arc.place)}, which stays there"
        case Mode.REFRESH:
            said = f"a token of {arc.place}, which stays there and is changed"
        case _ if arc.gather is not None:
            said = f"from {arc.place} the token of each element that {arc.gather} made"
        case _:
            said = f"the newest token of {arc.place}" if arc.newest else _tokens(arc.weight, arc.place)
    return said + which


def _only_if(one: Transition) -> Iterator[str]:
    if one.guard is not None:
        yield from map(_rule, one.guard.rules)
        yield from (condition.source for condition in one.guard.conditions)
    for arc in one.inhibits:
        few = "no token lies" if arc.weight == 1 else f"fewer than {arc.weight} tokens lie"
        such = f" such that {arc.where.source}" if arc.where is not None else ""
        key = f" with the same {arc.correlate}" if arc.correlate is not None else ""
        yield f"{few} in {arc.place}{such}{key}"


def _rule(rule: Rule) -> str:
    parts = [_rule(part) for part in rule.parts]
    if rule.field is None:
        said = f"not ({parts[0]})" if rule.kind == "not" else f" {rule.kind} ".join(f"({part})" for part in parts)
    elif rule.kind == "field_exists":
        said = f"there is {rule.field}"
    else:
        said = f"{rule.field} {_COMPARED[rule.kind]} {rule.value!r}"
    about = ": ".join(filter(None, (rule.id, rule.description)))
    return f"{said} [{about}]" if about else said


def _does(workflow: Workflow, one: Transition, action: ActionSpec | None) -> str:
    if action is None:
        return ""
    said = doer(action)
    if roles := action.config.get("roles"):
        said += f" for the role {_listed(sorted(roles), 'or')}"
    if "agent_id" in action.config:
        provider = action.provider(workflow.agents)
        agent = workflow.agents.get(action.config["agent_id"])
        tools = [str(tool.get("name") or tool["kind"]) for tool in (agent.document.get("tools") or ())] if agent else []
        said += f", {provider.type}:{provider.model}" + (f", with the tools {_listed(tools)}" if tools else "")
    tries = f"{action.retry.max_attempts} tries" if action.retry.max_attempts > 1 else "one try"
    # What waits for somebody, or for something, has no end of its own.
    limit: float | None = action.config.get("wait_seconds") if action.kind in WAITING else action.timeout_seconds
    return f"{said}; {tries}" if limit is None else f"{said}; {tries} of {_span(limit)} at most"


def _gives(one: Transition) -> tuple[str, ...]:
    if one.refresh:
        return ("the token, with what came of it",)
    found: list[str] = []
    for arc in one.makes:
        place = arc.place.removeprefix(f"{one.label}~to~")
        if not hidden(place):
            found.append(_made(arc, place))
    return tuple(found)


def _made(arc: OutputArc, place: str) -> str:
    if arc.each is not None:
        most = f", {arc.most} at most" if arc.most is not None else ""
        return f"a token to {place} for each of {arc.each.source}{most}"
    return f"{_count(arc.weight, 'token') if arc.weight > 1 else 'a token'} to {place}"


def _failure(one: Transition, action: ActionSpec | None) -> str:
    if action is None:
        return ""
    if not action.required:
        return "it goes on without the result"
    if one.on_failure is not None:
        return f"what it took goes to {one.on_failure}"
    return "what it took is given back, and an incident waits for a person"


def _also(
    workflow: Workflow, net: Net, one: Transition, action: ActionSpec | None, written: Mapping[str, Any]
) -> Iterator[str]:
    others = [other for other in net.transitions.values() if other.name in net.ranks and other.label != one.label]
    if one.name in net.ranks and one.priority and any(other.priority != one.priority for other in others):
        yield f"priority {one.priority}: of several that can fire, the higher one does"
    for arc in one.resets:
        such = f" such that {arc.where.source}" if arc.where is not None else ""
        yield f"empties {arc.place}{such}"
    if one.cancels:
        yield f"cancels what runs of {_listed(sorted(one.cancels))}"
    if action is not None and action.holds:
        yield f"holds {_listed([f'{amount} of {name}' for name, amount in action.holds.items()])} while it runs"
    if one.then is not None:
        yield f"then fires {net.transitions[one.then].label}"
    if "compensation" in written:
        yield f"can be undone, by {doer(workflow.actions[undo_of(one.label)])}"
    if "compensates" in written:
        names = written["compensates"]
        steps = (
            "all steps that can be undone" if names == "all" else _listed([names] if isinstance(names, str) else names)
        )
        yield f"first undoes {steps}, the newest first"


def _tokens(count: int, place: str) -> str:
    return f"a token of {place}" if count == 1 else f"{count} tokens of {place}"


def _span(seconds: float) -> str:
    """In the greatest unit of which it is a whole number."""
    units = (("days", 86_400), ("h", 3_600), ("min", 60))
    found = [f"{seconds / length:g} {unit}" for unit, length in units if seconds and seconds % length == 0]
    return found[0] if found else f"{seconds:g} s"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _listed(names: Sequence[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"

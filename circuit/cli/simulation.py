"""`circuit simulate`: many cases of a workflow in virtual time. No model is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import fmean, quantiles
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from circuit.cli.terminal import Terminal, clean, one_line
from circuit.cli.token import TOKEN_LIMIT, TokenParts, parse_object, read_text, token_parts
from circuit.cli.workflows import JsonOption, read_workflow
from circuit.errors import InvalidRequest

if TYPE_CHECKING:
    from circuit.definition.workflow import Workflow
    from circuit.net.mapping import OutputEntry
    from circuit.net.structure import Transition
    from circuit.net.timeline import Ended

_BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
_AGENT_SECONDS = 10.0
_PERSON_SECONDS = 3_600.0
_ROUTES = 10
_FAULTS = 5
_ASSUMED = "one call a run, four bytes a token, attempts that fail cost nothing"
_SHAPE = 2.0
"""Of the gamma distribution of times: few are much shorter than the mean, some are much longer."""


def simulate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A workflow file.")],
    cases: Annotated[int, typer.Option("--cases", min=1, max=1_000_000, help="How many cases.")] = 1_000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same cases.")] = 1,
    token: Annotated[str | None, typer.Option("--token", metavar="JSON", help="The token of each case.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="The same from a file.")
    ] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set data.PATH.")] = None,
    answers: Annotated[
        str,
        typer.Option(
            "--answers", help="What agents answer: random (fits the schema), scripted, or a file of recorded ones."
        ),
    ] = "random",
    seconds: Annotated[
        list[str] | None, typer.Option("--seconds", metavar="NAME=MEAN", help="How long a transition or agent takes.")
    ] = None,
    costs: Annotated[
        list[str] | None, typer.Option("--cost", metavar="AGENT=AMOUNT", help="What a run of an agent costs.")
    ] = None,
    failures: Annotated[
        float, typer.Option("--failures", min=0.0, max=1.0, help="The share of agent attempts that fail.")
    ] = 0.0,
    svg_file: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw the net with its heat.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Run many cases of a workflow in virtual time. How long, how dear, by which routes. Asks no model.

    \b
    Example: circuit simulate workflows/document_review.yaml --cases 1000 --seed 1 --svg heat.svg
    """
    terminal = Terminal(json=as_json)
    workflow = read_workflow(file, published=True, offline=True)
    given = token_parts(token, token_file, assignments or ())
    run = _Run(
        workflow,
        seed,
        _answers(workflow, answers),
        _amounts(seconds, "--seconds"),
        failures,
        given,
        _amounts(costs, "--cost"),
    )
    ended = [run.case(number) for number in range(cases)]
    result = _summary(run, ended)
    if svg_file is not None:
        from circuit.definition.portrait import picture_of
        from circuit.net.svg import svg

        shown = {name: times for name, times in result["fired"].items() if times}
        picture = replace(picture_of(workflow, fired=shown), heat=result["fired"])
        svg_file.write_text(svg(picture), encoding="utf-8")
    if as_json:
        terminal.result({"file": str(file), "seed": seed, "answers": answers} | result)
    else:
        _show(terminal, file, result)
    return 0


Answers = Callable[[str, Random], Mapping[str, Any]]
"""From an agent's id to one of its answers."""


@dataclass(slots=True)
class _Run:
    workflow: Workflow
    seed: int
    answers: Answers
    means: Mapping[str, float]
    failures: float
    token: TokenParts | None
    costs: Mapping[str, float]
    spent: list[float] = field(default_factory=list[float])
    """What the agents cost, case by case."""
    unpriced: set[str] = field(default_factory=set[str])

    def case(self, number: int) -> Ended:
        """One case; all chance in it comes from the seed and its number."""
        self.spent.append(0.0)
        from circuit.net.timeline import Timeline

        source = Random(f"{self.seed}/{number}")
        from circuit.definition.portrait import agents_of

        agents = agents_of(self.workflow)
        doers = {name: agents.get(name, action.kind) for name, action in self.workflow.actions.items()}

        def act(transition: Transition, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
            if not transition.acting:
                form = transition.manual.form if transition.manual is not None else None
                said = _sampled(form.schema, source, f"the form of {transition.name}") if form is not None else {}
                return self._filled(transition, {"form": said, "message": {}}, source)
            agent = doers[transition.name]
            builtin = {"agent_id": agent, "execution_id": "simulation", "model": "simulation", "usage": {}, "text": ""}
            answer = self.answers(agent, source)
            self._pay(transition.name, agent, inputs, answer)
            given = {**builtin, "timestamp": _BEGUN.isoformat(), **answer}
            return given if agent in self.workflow.agents else self._filled(transition, given, source)

        def takes(transition: Transition) -> tuple[float, bool]:
            if not transition.acting:
                return source.gammavariate(_SHAPE, self._mean(transition.name, "", _PERSON_SECONDS) / _SHAPE), False
            retry = self.workflow.actions[transition.name].retry
            mean = self._mean(transition.name, doers[transition.name], _AGENT_SECONDS)
            total = 0.0
            for attempt in range(retry.max_attempts):
                total += source.gammavariate(_SHAPE, mean / _SHAPE)
                if source.random() >= self.failures:
                    return total, False
                total += retry.backoff_seconds * 2**attempt
            return total, True

        optional = frozenset(name for name, action in self.workflow.actions.items() if not action.required)
        timeline = Timeline(self.workflow.net, _BEGUN, act, takes, optional)
        for one in self.workflow.initial_tokens:
            timeline.put(one.place, one.data, one.metadata)
        first = self.workflow.net.initial_place
        if first is not None:
            parts = self.token or TokenParts(_made_up(self.workflow, first.name, source), {})
            timeline.put(first.name, parts.data, parts.metadata)
        return timeline.run()

    def _pay(self, transition: str, agent: str, inputs: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """A run costs what was said of its agent, or about what its prompt and its answer do by the price table."""
        from circuit.definition.tariff import usual_cost
        from circuit.providers.tariff import PriceTable

        if agent not in self.workflow.agents:
            return
        cost = self.costs.get(agent)
        if cost is None:
            cost = usual_cost(self.workflow, transition, inputs, answer, PriceTable())
        if cost is None:
            self.unpriced.add(agent)
        self.spent[-1] += cost or 0.0

    def _filled(self, transition: Transition, outputs: dict[str, Any], source: Random) -> Mapping[str, Any]:
        """The outputs with what a message or an action that is no agent would have given, made up where the target
        says what fits there: nobody knows what they give."""
        from circuit.expressions.path import MISSING, assign
        from circuit.providers.sample import NoSample, sample

        filled: Mapping[str, Any] = outputs
        for entry in transition.output_mapping.entries if transition.output_mapping is not None else ():
            if entry.source.get(filled) is not MISSING:
                continue
            value: Any = "made up"
            schema = None if entry.metadata or len(entry.path.segments) > 1 else self._property(transition, entry)
            if schema is not None:
                try:
                    value = sample(schema, str(source.random()))
                except NoSample:
                    value = None
            filled = assign(filled, entry.source, value)
        return filled

    def _property(self, transition: Transition, entry: OutputEntry) -> Mapping[str, Any] | None:
        """What the colour of a target says of the key that an entry of the mapping writes."""
        for place in [entry.place] if entry.place is not None else [arc.place for arc in transition.makes]:
            colour = self.workflow.net.places[place].colour
            found: Any = colour.schema.get("properties", {}).get(entry.path.segments[0]) if colour is not None else None
            if isinstance(found, dict):
                return cast("dict[str, Any]", found)
        return None

    def _mean(self, transition: str, agent: str, default: float) -> float:
        return max(self.means.get(transition, self.means.get(agent, default)), 1e-9)


def _made_up(workflow: Workflow, place: str, source: Random) -> dict[str, Any]:
    """Data that fits the colour of the place, where it has one."""
    colour = workflow.net.places[place].colour
    if colour is None:
        return {}
    return _sampled(colour.schema, source, f"the colour of {place}")


def _sampled(schema: Mapping[str, Any], source: Random, what: str) -> dict[str, Any]:
    from circuit.providers.sample import NoSample, sample

    try:
        value = sample(schema, str(source.random()))
    except NoSample as error:
        raise InvalidRequest(f"Nothing could be made up for {what}: {error}.") from None
    return value if isinstance(value, dict) else {}


def _answers(workflow: Workflow, how: str) -> Answers:
    if how == "random":
        return lambda agent, source: _random_answer(workflow, agent, source)
    if how == "scripted":
        recorded = {name: _scripted(agent.provider.options) for name, agent in workflow.agents.items()}
        turns = Counter[str]()

        def in_turn(agent: str, source: Random) -> Mapping[str, Any]:
            found = recorded.get(agent)
            if not found:
                return _random_answer(workflow, agent, source)
            turns[agent] += 1
            return found[(turns[agent] - 1) % len(found)]

        return in_turn
    text = read_text(Path(how), TOKEN_LIMIT, "Answers")
    kept: dict[str, list[Mapping[str, Any]]] = {}
    for agent, entries in parse_object(text, "The file of answers").items():
        if (
            agent not in workflow.agents
            or not isinstance(entries, list)
            or not all(isinstance(e, dict) for e in entries)
        ):
            raise InvalidRequest(f"The file of answers must hold a list of objects for each agent; see {agent!r}.")
        kept[agent] = entries

    def drawn(agent: str, source: Random) -> Mapping[str, Any]:
        return source.choice(kept[agent]) if kept.get(agent) else _random_answer(workflow, agent, source)

    return drawn


def _random_answer(workflow: Workflow, agent: str, source: Random) -> Mapping[str, Any]:
    definition = workflow.agents.get(agent)
    if definition is None or definition.output_schema is None:
        return {}
    return _sampled(definition.output_schema, source, f"the output of agent {agent}")


def _scripted(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The structured answers of a scripted provider."""
    found: list[Mapping[str, Any]] = []
    for entry in options.get("responses") or ():
        answer = entry.get("response", entry) if isinstance(entry, dict) and "error" not in entry else None
        if isinstance(answer, dict):
            found.append(answer)
    return found


def _amounts(values: Sequence[str] | None, option: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for value in values or ():
        name, _, amount = value.rpartition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            raise InvalidRequest(f"{option} is NAME=NUMBER; {value!r} is not.") from None
        if not name or not 0 <= found[name] < 1e12:
            raise InvalidRequest(f"{option} is NAME=NUMBER with a number from 0; {value!r} is not.")
    return found


def _summary(run: _Run, ended: Sequence[Ended]) -> dict[str, Any]:
    from circuit.definition.portrait import agents_of
    from circuit.providers.tariff import PriceTable

    workflow = run.workflow
    agents = agents_of(workflow)
    unknown = [name for name in run.costs if name not in workflow.agents]
    if unknown:
        raise InvalidRequest(f"--cost names {unknown[0]!r}, which is no agent of the workflow.")
    fired = Counter[str]()
    for case in ended:
        fired.update(case.fired)
    runs = [float(sum(count for name, count in case.fired.items() if name in agents)) for case in ended]
    routes = Counter(case.route for case in ended)
    faults = Counter(fault for case in ended for fault in set(case.faults)).most_common(_FAULTS)
    failures = Counter(failure for case in ended for failure in set(case.failures)).most_common(_FAULTS)
    return {
        "cases": len(ended),
        "statuses": dict(Counter(case.status for case in ended).most_common()),
        **({"faults": [{"fault": fault, "cases": count} for fault, count in faults]} if faults else {}),
        **({"failures": [{"failure": failure, "cases": count} for failure, count in failures]} if failures else {}),
        "seconds": _spread([case.seconds for case in ended]),
        "agent_runs": _spread(runs),
        **({"cost": _spread(run.spent)} if run.costs or any(run.spent) else {}),
        **({"cost_assumed": f"{_ASSUMED}; {PriceTable().source}"} if any(run.spent) and not run.costs else {}),
        **({"unpriced": sorted(run.unpriced)} if run.unpriced else {}),
        "routes": [
            {"route": list(route), "cases": count, "share": round(count / len(ended), 4)}
            for route, count in routes.most_common(_ROUTES)
        ],
        "distinct_routes": len(routes),
        "fired": {name: fired[name] for name in workflow.net.transitions},
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    """The distribution of the values in a few figures."""
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    figures = {"mean": fmean(values), "min": min(values), "p50": cuts[49], "p90": cuts[89], "p99": cuts[98]}
    return {name: round(value, 6) for name, value in (figures | {"max": max(values)}).items()}


def _show(terminal: Terminal, file: Path, result: Mapping[str, Any]) -> None:
    statuses = ", ".join(f"{count} {status}" for status, count in result["statuses"].items())
    terminal.line(clean(f"{file}: {result['cases']} cases: {statuses}"))
    for one in result.get("faults", ()):
        terminal.line(clean(one_line(f"  an incident in {one['cases']} of them: {one['fault']}", 300)))
    for one in result.get("failures", ()):
        terminal.line(clean(one_line(f"  a failure in {one['cases']} of them: {one['failure']}", 300)))
    names = {"seconds": "seconds", "agent_runs": "agent runs", "cost": "cost"}
    rows = [
        [label, *(f"{value:,.6g}" for value in result[key].values())] for key, label in names.items() if key in result
    ]
    terminal.table(["", *result["seconds"]], rows)
    if "cost_assumed" in result:
        terminal.line(clean(f"cost in US dollars: {result['cost_assumed']}"))
    if "unpriced" in result:
        names = ", ".join(result["unpriced"])
        terminal.line(
            clean(f"no price is known of what {names} cost, and none is counted: --cost AGENT=AMOUNT says it")
        )
    terminal.line()
    more = result["distinct_routes"] - len(result["routes"])
    for route in result["routes"]:
        steps = " → ".join(route["route"]) or "(nothing fires)"
        terminal.line(clean(f"  {route['share']:>6.1%}  {one_line(steps, 160)}"))
    if more > 0:
        terminal.line(f"          and {more} more routes")

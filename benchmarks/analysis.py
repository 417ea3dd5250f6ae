"""`python -m benchmarks.analysis` (or `make bench-analysis`): proofs per minute and states per second, on one core.

*Nets*: a thousand nets as business processes have them, of about 50 to 300 nodes, nested of sequences, choices,
parallel branches and loops; every other one has an arc more than its author meant. Each is decided for soundness;
those without the arc are sound by construction, and a wrong or missing verdict ends the benchmark. *States*: all
markings of a safe net of 30 places (ten processes of three steps), in plain Python and in machine code (the extra
`fast`). Time is that of this process's core, so that what else the machine does counts for little. The reference is
the target: a thousand nets a minute, 300,000 states a second; the ratio is how many times that is reached.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.results import Row
from circuit.net.analysis import compiled
from circuit.net.analysis.exploration import explore
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.place_net import PlaceNet, Step, arcs
from circuit.net.analysis.soundness import soundness

RESULTS = Path(__file__).parent / "results" / "latest.json"

NETS = 1_000
SMALLEST, LARGEST = 50, 300
NETS_A_MINUTE = 1_000.0
STATES_A_SECOND = 300_000.0


class _Process:
    """Grows one net: every block leads from a place to a place."""

    def __init__(self, source: Random) -> None:
        self.source = source
        self.places = 2
        self.steps: list[tuple[list[int], list[int]]] = []

    def place(self) -> int:
        self.places += 1
        return self.places - 1

    def block(self, first: int, last: int, size: int) -> None:
        """About `size` nodes between two places."""
        if size < 6:
            self.steps.append(([first], [last]))
            return
        kind = self.source.choices(["sequence", "choice", "parallel", "loop"], [5, 2, 2, 1])[0]
        if kind == "sequence":
            middle, share = self.place(), self.source.randint(size // 4, size - size // 4)
            self.block(first, middle, share)
            self.block(middle, last, size - share)
        elif kind == "choice":
            for _ in range(branches := self.source.randint(2, 4)):
                self.block(first, last, size // branches)
        elif kind == "parallel":
            branches = [(self.place(), self.place()) for _ in range(self.source.randint(2, 4))]
            self.steps += [([first], [begin for begin, _ in branches]), ([end for _, end in branches], [last])]
            for begin, end in branches:
                self.block(begin, end, size // len(branches))
        else:
            begin, end = self.place(), self.place()
            self.steps += [([first], [begin]), ([end], [begin]), ([end], [last])]
            self.block(begin, end, size - 5)


def process_net(seed: int, *, spoilt: bool) -> PlaceNet:
    """A net of a process, sound unless it is `spoilt` by an arc more."""
    source = Random(seed)
    process = _Process(source)
    process.block(0, 1, source.randint(SMALLEST, LARGEST))
    if spoilt:
        chosen = source.choice(process.steps)
        source.choice([chosen[0], chosen[1]]).append(source.randrange(process.places))
    steps = tuple(
        Step(f"t{number}", arcs((place, 1) for place in before), arcs((place, 1) for place in after))
        for number, (before, after) in enumerate(process.steps)
    )
    places = tuple(f"p{number}" for number in range(process.places))
    left = {place for step in steps for place, _ in step.consumes}
    return PlaceNet(
        f"process {seed}",
        places,
        steps,
        (1, *([0] * (process.places - 1))),
        resting=frozenset(range(process.places)) - left,
    )


def safe_net() -> PlaceNet:
    """Ten processes of three places each, that have nothing to do with each other: 59,049 markings."""
    places = tuple(f"p{number}" for number in range(30))
    steps = tuple(
        Step(f"t{number}", ((number, 1),), ((number // 3 * 3 + (number + 1) % 3, 1),)) for number in range(30)
    )
    return PlaceNet("ten rings", places, steps, tuple(int(number % 3 == 0) for number in range(30)))


def measure(rounds: int) -> list[Row]:
    """The rows of the proofs."""
    limits = Limits(time.monotonic)
    nets = [process_net(seed, spoilt=seed % 2 == 1) for seed in range(NETS)]
    started = time.process_time()
    for seed, net in enumerate(nets):
        verdict = soundness(net, limits)
        if verdict.unknown or (seed % 2 == 0 and not verdict.proven):
            raise SystemExit(f"{net.name}: {verdict}")
    rows = [_row("analysis_nets_per_minute", "nets/min", NETS / (time.process_time() - started) * 60, NETS_A_MINUTE)]
    rows.append(_row("exploration_states_per_second", "states/s", _rate(limits, rounds, fast=False), STATES_A_SECOND))
    if compiled.available():
        explore(safe_net(), limits.meter())  # so that the compiler has run
        rate = _rate(limits, rounds, fast=True)
        rows.append(_row("exploration_compiled_states_per_second", "states/s", rate, STATES_A_SECOND))
    return rows


def _rate(limits: Limits, rounds: int, *, fast: bool) -> float:
    found: list[float] = []
    for _ in range(rounds):
        started = time.process_time()
        graph = explore(safe_net(), limits.meter(), fast=fast)
        found.append(len(graph) / (time.process_time() - started))
    return median(found)


def _row(name: str, unit: str, value: float, reference: float) -> Row:
    return {
        "name": name,
        "value": round(value, 1),
        "unit": unit,
        "reference": reference,
        "ratio": round(value / reference, 4),
    }


def main() -> None:
    """Measure, print the rows, and put them among the results of the other benchmarks."""
    rows = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    for row in rows:
        print(f"{row['name']:48} {row['value']:>12,.0f} {row['unit']:10} {row['ratio']:>7.2f} times the target")
    measured = {row["name"] for row in rows}
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [row for row in before if row["name"] not in measured]
    RESULTS.write_text(json.dumps(kept + rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

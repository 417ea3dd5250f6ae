"""The control-flow patterns in `workflows/patterns`: each allows exactly the runs that its pattern allows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise, permutations
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from circuit.definition import load_workflow
from circuit.definition.proof import DECISIVE, prove
from circuit.net.analysis.limits import Limits
from tests.workflows.traces import Forms, traces

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.stem: path for path in sorted((ROOT / "workflows" / "patterns").glob("*.yaml"))}
PAGE = ROOT / "docs" / "explanation" / "patterns.md"
WAYS: Forms = {"decide": [{"ways": []}, {"ways": ["b"]}, {"ways": ["c"]}, {"ways": ["b", "c"]}]}
PARTS = {"parts": [1, 2]}


@dataclass(frozen=True)
class Expected:
    runs: set[str]
    data: dict[str, Any] = field(default_factory=dict)
    forms: Forms = field(default_factory=dict)
    most: int = 12
    messages: int = 0


def runs(
    *told: str, data: dict[str, Any] | None = None, forms: Forms | None = None, most: int = 12, messages: int = 0
) -> Expected:
    return Expected(set(told), data or {}, forms or {}, most, messages)


def orders(steps: str, allowed: Callable[[list[str]], bool], *more: str, **given: Any) -> Expected:
    """Every order of these steps of which each beginning is allowed; or of `more` steps."""
    found: set[str] = set()
    for text in (steps, *more):
        for order in set(permutations(text.split())):
            if all(allowed(list(order[: length + 1])) for length in range(len(order))):
                found.add(" ".join(order))
    return runs(*found, **given)


def after(step: str, *before: str, at_least: int | None = None) -> Callable[[list[str]], bool]:
    """Whether `step` comes only when so many of the others have come."""
    need = len(before) if at_least is None else at_least
    return lambda begun: step not in begun or sum(one in before for one in begun[: begun.index(step)]) >= need


def rounds(begun: list[str], names: str, first: int) -> bool:
    """Whether `d` was done no more often than rounds have begun: in a round, `first` of the names let it be done, and
    the next one begins when all have come."""
    counts = [begun.count(name) for name in names]
    over = min(counts)
    begins = sum(count > over for count in counts) >= first
    return begun.count("d") <= over + begins


def together(begun: list[str]) -> bool:
    """Whether no two of b, c and e are going on at once."""
    inside = 0
    for step in begun:
        inside += -1 if step.endswith("done") else 1
        if not 0 <= inside <= 1:
            return False
    return True


def in_turn(begun: list[str]) -> bool:
    """The same, where what ends is named: it ends what began last."""
    pairs = list(pairwise(begun))
    return together(begun) and all(one.endswith("done") or other == f"{one}_done" for one, other in pairs)


EXPECTED = {
    "01_sequence": runs("a b"),
    "02_parallel_split": runs("a b c", "a c b"),
    "03_synchronization": runs("b c d", "c b d"),
    "04_exclusive_choice": runs("decide b", "decide c", forms={"decide": [{"way": "b"}, {"way": "c"}]}),
    "05_simple_merge": runs("b d", "c d"),
    "06_multi_choice": runs("decide", "decide b", "decide c", "decide b c", "decide c b", forms=WAYS),
    "07_structured_synchronizing_merge": runs(
        "decide d", "decide b d", "decide c d", "decide b c d", "decide c b d", forms=WAYS
    ),
    "08_multi_merge": orders("b c d d", lambda begun: begun.count("d") <= begun.count("b") + begun.count("c")),
    "09_structured_discriminator": orders("b c d", after("d", "b", "c", at_least=1)),
    "10_arbitrary_cycles": runs(
        *(
            f"in_{way} {' '.join(steps)} out_{end}".replace("  ", " ")
            for way, steps, end in (
                ("p", "", "p"),
                ("p", "b", "q"),
                ("p", "bc", "p"),
                ("p", "bcb", "q"),
                ("p", "bcbc", "p"),
                ("q", "", "q"),
                ("q", "c", "p"),
                ("q", "cb", "q"),
                ("q", "cbc", "p"),
                ("q", "cbcb", "q"),
            )
        )
    ),
    "11_implicit_termination": runs("b c", "c b"),
    "12_instances_without_synchronization": orders("d work work", lambda _: True, data=PARTS),
    "13_instances_known_at_design_time": runs("work work work d"),
    "14_instances_known_at_run_time": runs(
        "decide d",
        "decide work d",
        "decide work work work d",
        forms={"decide": [{"parts": []}, {"parts": [1]}, {"parts": [1, 2, 3]}]},
    ),
    "15_instances_not_known_before": orders(
        "work close d",
        lambda begun: (
            begun.count("work") <= 1 + begun.count("add")
            and ("close" not in begun or "add" not in begun[begun.index("close") :])
            and ("d" not in begun or ("close" in begun and begun.count("work") == 1 + begun.count("add")))
        ),
        "add work work close d",
        "add add work work work close d",
    ),
    "16_deferred_choice": runs("b", "c"),
    "17_interleaved_parallel_routing": orders(
        "b b_done c c_done e e_done", lambda begun: in_turn(begun) and after("c", "b_done")(begun)
    ),
    "18_milestone": runs("a b c", "a c"),
    "19_cancel_activity": runs("work", "stop"),
    "20_cancel_case": runs("b c", "c b", "stop", "b stop", "c stop"),
    "21_structured_loop": runs("b good", "b again b good", "b again b again b good"),
    "22_recursion": runs("call", data={"depth": 2}),
    "23_transient_trigger": runs(
        "a signal d",
        "signal a signal d",
        "a signal signal d",
        "a give_up",
        "signal a give_up",
        "signal signal a give_up",
        messages=2,
    ),
    "24_persistent_trigger": runs(
        "a signal d", "signal a d", "signal signal a d", "signal a signal d", "a signal signal d", messages=2
    ),
    "25_cancel_region": orders(
        "e b c",
        lambda begun: (
            after("c", "b")(begun) and ("stop" not in begun or not {"b", "c"} & set(begun[begun.index("stop") :]))
        ),
        "e stop",
        "e b stop",
    ),
    "26_cancel_instances": runs("work work d", "stop", "work stop", data=PARTS),
    "27_complete_instances": runs("work work d", "enough d", "work enough d", data=PARTS),
    "28_blocking_discriminator": orders("b b c c d d", lambda begun: rounds(begun, "bc", 1)),
    "29_cancelling_discriminator": runs("b d", "c d"),
    "30_structured_partial_join": orders("b c e d", after("d", "b", "c", "e", at_least=2)),
    "31_blocking_partial_join": orders("b b c c e e d d", lambda begun: rounds(begun, "bce", 2)),
    "32_cancelling_partial_join": runs("b c d", "c b d", "b e d", "e b d", "c e d", "e c d"),
    "33_generalised_and_join": orders(
        "b b c c d d", lambda begun: begun.count("d") <= min(begun.count("b"), begun.count("c"))
    ),
    "34_static_partial_join_of_instances": runs("work work d work", "work work work d"),
    "35_cancelling_partial_join_of_instances": runs("work work d"),
    "36_dynamic_partial_join_of_instances": runs(
        "work work d", "add work work d", "work add work d", data={"enough": 2}
    ),
    "37_local_synchronizing_merge": runs(
        "decide d", "decide b d", "decide c d", "decide b c d", "decide c b d", forms=WAYS
    ),
    "38_general_synchronizing_merge": orders(
        "no_c b d",
        lambda begun: (
            after("c", "want_c")(begun)
            and after("again", "c")(begun)
            and after("good", "c")(begun)
            and begun.count("again") + begun.count("good") <= begun.count("c") <= 1 + begun.count("again")
            and after("d", "b")(begun)
            and after("d", "no_c", "good", at_least=1)(begun)
        ),
        "want_c b c good d",
        "want_c b c again c good d",
    ),
    "39_critical_section": orders("b b_done c c_done", in_turn),
    "40_interleaved_routing": orders("b c e done done done", together),
    "41_thread_merge": runs("b b d"),
    "42_thread_split": runs("a b b"),
    "43_explicit_termination": runs("b", "c"),
}


def test_every_pattern_that_ships_is_tried() -> None:
    assert set(EXPECTED) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_pattern_allows_exactly_its_runs(name: str) -> None:
    expected = EXPECTED[name]
    workflow = load_workflow(FILES[name].read_text(), name)
    found = traces(workflow, expected.data, expected.forms, expected.most, expected.messages)
    assert found == expected.runs


@pytest.mark.parametrize("name", FILES)
def test_a_pattern_is_sound_as_far_as_that_is_decided(name: str) -> None:
    proof = prove(load_workflow(FILES[name].read_text(), name), Limits(monotonic, 20_000, seconds=5.0), DECISIVE)
    assert not [verdict.reason for verdict in proof.verdicts.values() if verdict.violated]


def test_the_page_tells_of_all_43_patterns() -> None:
    page = PAGE.read_text()
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", page, re.M)] == list(range(1, 44))
    linked = re.findall(r"workflows/patterns/(\w+)\.yaml", page)
    assert sorted(linked) == sorted(FILES), "each file is linked once"

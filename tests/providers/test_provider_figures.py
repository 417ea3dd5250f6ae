"""What calls of models come to, added up."""

from __future__ import annotations

from circuit.providers.calls import LONGEST_MODEL, MOST_MODELS, OTHERS, Calls


def test_models_beyond_a_number_are_counted_together() -> None:
    calls = Calls()
    for number in range(MOST_MODELS + 5):
        calls.of("custom", f"m{number}").ended(1.0, None)
    calls.of("openai", "x" * 1000).ended(1.0, None)
    calls.of("custom", "m0").ended(1.0, None)
    counts = {name: sum(tally.outcomes.values()) for name, tally in calls.all().items()}
    assert len(counts) == MOST_MODELS + 2
    assert (counts["custom", "m0"], counts["custom", OTHERS], counts["openai", OTHERS]) == (2, 5, 1)
    assert all(len(model) <= LONGEST_MODEL for _, model in counts)

"""Recorded exchanges with real servers: cut anywhere, they give what the official SDK hears."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from replay import heard_by_circuit, heard_by_sdk

FOLDER = Path(
    os.environ.get("CIRCUIT_TEST_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data")
).joinpath("provider-streams")


def recordings() -> list[Any]:
    """The streamed chat completions among the recordings, as parameters of a test."""
    found: list[Any] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        text = path.read_text()
        if "/chat/completions" not in text:
            continue
        for number, exchange in enumerate(yaml.load(text, yaml.CSafeLoader)["interactions"]):
            body = exchange["response"].get("body", {}).get("string")
            if "/chat/completions" in exchange["request"]["uri"] and isinstance(body, str) and "data:" in body:
                found.append(pytest.param(body.encode(), id=f"{path.stem}-{number}"))
    return found or [
        pytest.param(
            b"",
            id="none",
            marks=pytest.mark.skip(reason=f"no recordings in {FOLDER}: set CIRCUIT_TEST_DATA to the test data"),
        )
    ]


@pytest.mark.parametrize("body", recordings())
async def test_a_recording_cut_anywhere_is_heard_as_the_sdk_hears_it(body: bytes) -> None:
    expected = await heard_by_sdk([body])
    whole = heard_by_circuit([body])
    # Where a server gives no finish reason, the SDK says none, and Circuit says `stop` because the stream has ended.
    assert whole.failed == expected.failed
    assert (whole.text, whole.reasoning, whole.usage) == (expected.text, expected.reasoning, expected.usage)
    assert whole.reason == (expected.reason or "stop") or expected.failed
    source = random.Random(len(body))
    for _ in range(20):
        bounds = sorted({0, len(body), *(source.randrange(len(body)) for _ in range(source.randint(1, 40)))})
        assert heard_by_circuit(body[a:b] for a, b in pairwise(bounds)) == whole

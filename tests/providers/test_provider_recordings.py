"""Recorded exchanges with real servers: cut anywhere, they give what the official SDK hears."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from provider_shapes import protocol_of
from replay import heard_by_circuit, heard_by_sdk

FOLDER = Path(
    os.environ.get("CIRCUIT_TEST_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data")
).joinpath("provider-streams")
SPOKEN = ("/chat/completions", "/responses", "/v1/messages", ":streamGenerateContent", "/api/chat")


def recordings() -> list[Any]:
    """The streamed answers among the recordings, as parameters of a test."""
    found: list[Any] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for number, exchange in enumerate(yaml.load(path.read_text(), yaml.CSafeLoader)["interactions"]):
            if "response" not in exchange:
                continue
            body = exchange["response"].get("body", {}).get("string")
            address = exchange["request"]["uri"].partition("?")[0]
            if isinstance(body, str) and "data:" in body and any(address.endswith(end) for end in SPOKEN):
                found.append(pytest.param(body.encode(), protocol_of(address), id=f"{path.stem}-{number}"))
    return found or [
        pytest.param(
            b"",
            "chat",
            id="none",
            marks=pytest.mark.skip(reason=f"no recordings in {FOLDER}: set CIRCUIT_TEST_DATA to the test data"),
        )
    ]


@pytest.mark.parametrize(("body", "protocol"), recordings())
async def test_a_recording_cut_anywhere_is_heard_as_the_sdk_hears_it(body: bytes, protocol: str) -> None:
    expected = await heard_by_sdk([body], protocol)
    whole = heard_by_circuit([body], protocol)
    # Where a server gives no finish reason, the SDK says none, and Circuit says `stop` because the stream has ended.
    assert whole.failed == expected.failed
    assert (whole.text, whole.calls, whole.usage) == (expected.text, expected.calls, expected.usage)
    assert whole.reasoning == expected.reasoning
    assert whole.reason == (expected.reason or "stop") or expected.failed
    source = random.Random(len(body))
    for _ in range(20):
        bounds = sorted({0, len(body), *(source.randrange(len(body)) for _ in range(source.randint(1, 40)))})
        assert heard_by_circuit((body[a:b] for a, b in pairwise(bounds)), protocol) == whole

"""The benchmarks at their smallest: that they run, and not what they say."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from postgres import Server

from benchmarks import agents
from benchmarks.audience import Audience
from circuit.app import assembly


@pytest.mark.parametrize(("side", "protocol"), [("circuit", "graphql"), ("raw", "sse")])
async def test_a_stream_reaches_its_readers(side: str, protocol: str) -> None:
    async with Audience(side, protocol, 2) as audience:
        await audience.turn(3)
        assert await audience.finish() > 0
    assert len(audience.turns) == 1


async def test_agents_on_a_model_at_a_pace(
    postgres_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is put back when the test is over.
    monkeypatch.setattr(assembly, "usable", assembly.usable)
    options = argparse.Namespace(requests=4, tokens=8, batch=4, step=0.001, starts=4, rounds=1)
    cost, beside = await agents.measure(options, tmp_path, postgres_server.url("").rstrip("/"))
    [told] = cost["details"]["rounds"]
    assert cost["value"] == told["circuit"] and told["cases_a_second"] > 0 and told["mean_batch"] > 0
    assert beside["value"] > 0 and beside["reference"] > 0

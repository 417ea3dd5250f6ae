"""Who is measured: how each is installed, in which scenarios it takes part, and with how many runs.

A slow contestant gets fewer runs: its rate does not depend on how many there are, and a round should take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contestant:
    """`packages` are what pip installs into an environment of its own (none: the project's own), `node` what npm does.
    `scenarios` says how many runs a round has of each."""

    name: str
    script: str
    scenarios: Mapping[str, int]
    packages: tuple[str, ...] = ()
    node: tuple[str, ...] = ()
    stored: bool = True


CONTESTANTS = (
    Contestant(
        "circuit",
        "circuit_peer",
        {"chain": 500, "guarded": 300, "immediate": 500, "fork": 200, "alone": 50, "alone-immediate": 50},
    ),
    Contestant("raw writer", "raw_peer", {"chain": 500}),
    Contestant("dbos", "dbos_peer", {"chain": 100, "fork": 100, "alone": 20}, ("dbos==3.4.0",)),
    Contestant(
        "langgraph",
        "langgraph_peer",
        {"chain": 100, "fork": 100, "alone": 20},
        ("langgraph==1.2.24", "langgraph-checkpoint-postgres==3.2.0", "psycopg[binary,pool]==3.3.9"),
    ),
    Contestant("procrastinate", "procrastinate_peer", {"chain": 100}, ("procrastinate==3.10.0",)),
    Contestant(
        "pgqueuer", "pgqueuer_peer", {"chain": 300, "alone": 20}, ("pgqueuer[asyncpg]==1.6.0", "uvloop==0.23.0")
    ),
    Contestant(
        "restate",
        "restate_peer",
        {"chain": 200, "fork": 200, "alone": 20},
        ("restate-sdk[serde]==1.2.0", "hypercorn==0.18.0", "httpx==0.28.1"),
        ("@restatedev/restate-server@1.7.12",),
        stored=False,
    ),
    Contestant("spiffworkflow", "spiff_peer", {"chain": 1_000, "alone": 100}, ("spiffworkflow==3.2.0",), stored=False),
    Contestant("snakes", "snakes_peer", {"chain": 1_000, "alone": 100}, ("snakes==0.9.33",), stored=False),
)

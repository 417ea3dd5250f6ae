"""How the command is run in tests, and what it is run on: what the fixtures and the tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
PROCESS_SECONDS = 120

SCRIPTED = """\
workflow: {workflow}
places:
  submitted: {{initial: true}}
  done: {{terminal: true}}
agents:
  writer:
    llm_provider: {{type: scripted, model: script, responses: {responses}, delay_seconds: {delay}, chunk_size: 4}}
transitions:
  write:
    from_places: [submitted]
    to_place: done
    agent_execution: {{agent_id: writer, output_mapping: {{data.text: text}}, required: true}}
"""


def scripted_workflow(
    folder: Path, *, responses: str = "[Once upon a time]", delay: float = 0.0, name: str = "story"
) -> Path:
    """A workflow of one scripted agent, in a file of its own."""
    file = folder / f"{name}.yaml"
    file.write_text(SCRIPTED.format(workflow=name, responses=responses, delay=delay))
    return file


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process without any setting of Circuit or key of a provider, and `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CIRCUIT_", "OPENAI_")) and name not in ("MAX_CONCURRENT_EXECUTIONS", "NO_COLOR")
    }
    return {**kept, **extra}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value."""
        return orjson.loads(self.out)


Command = Callable[..., Outcome]


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Ends what runs in this thread after so many seconds: a command that waits for ever fails its test."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"the command did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

"""Agents on models inside, through the whole engine: what a crash, a wrong model and a cancellation come to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from circuit.app import Circuit
from circuit.providers.registry import SUPPORTED
from circuit.providers.vllm.process import Launch

HOST = (sys.executable, str(Path(__file__).parents[1] / "providers" / "vllm_host.py"))
WORKFLOW = """
workflow: {name}
places: {{begin: {{initial: true}}, end: {{terminal: true}}}}
agents:
  writer:
    llm_provider: {{type: vllm, model: {model}, options: {options}}}
transitions:
  write:
    from_places: begin
    to_place: end
    agent_execution:
      agent_id: writer
      output_mapping: {{data.text: text}}
      retry_config: {{max_attempts: 2, backoff_seconds: 0.01}}
"""


@pytest.fixture
async def circuit(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Circuit]:
    """A Circuit whose worker takes cases of models inside, whose processes say what they are told to."""
    monkeypatch.setattr("circuit.app.assembly.usable", lambda: SUPPORTED)
    async with Circuit.open(database_url) as opened:
        opened.registry._launch = Launch(os.environ, HOST)
        yield opened


async def run(circuit: Circuit, name: str, options: dict[str, Any], model: str = "tiny") -> Any:
    """A case of a workflow with this model, when nothing moves in it any more."""
    text = WORKFLOW.format(name=name, model=model, options=json.dumps(options))
    published = await circuit.load(text)
    return await circuit.wait(await circuit.start(published.id, {}))


async def test_a_crash_in_the_middle_of_an_answer_is_tried_again_and_others_do_not_notice(
    circuit: Circuit, tmp_path: Path
) -> None:
    reply = {"text": "an answer that comes in several pieces", "die": "process", "once": str(tmp_path / "died")}
    view = await run(circuit, "crashing", {"replies": [reply]})
    assert view.status == "completed"
    assert view.tokens[0].data["text"] == reply["text"]
    told = [event.as_dict() for event in view.history]
    [failed] = [event["error"] for event in told if event.get("error")]
    assert (failed["code"], failed["retryable"]) == ("model_crashed", True)
    assert circuit.registry.models.views()[0].crashes == 1


@pytest.mark.parametrize(
    ("options", "model", "code"),
    [
        ({}, "/no/such/folder", "model_not_found"),
        ({"start": {"fault": ["model_options", "no engine argument 'x'"]}}, "tiny", "model_options"),
        ({"start": {"fault": ["start", "see above"], "say": "CUDA out of memory"}}, "tiny", "model_out_of_memory"),
        ({"replies": [{"fault": ["model_unsupported", "not a multimodal model"]}]}, "tiny", "model_unsupported"),
        ({"replies": [{"fault": [400, "maximum context length is 9 tokens"]}]}, "tiny", "context_too_long"),
    ],
)
async def test_what_no_other_attempt_would_mend_is_an_incident_with_its_code(
    circuit: Circuit, options: dict[str, Any], model: str, code: str
) -> None:
    view = await run(circuit, "failing", options, model)
    [incident] = view.incidents
    assert incident.code == code
    assert code in [event.as_dict().get("error", {}).get("code") for event in view.history]

"""What a provider wants back of an answer (signatures, encrypted reasoning) goes back, in another process and later."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from chat_server import ChatServer
from provider_shapes import SIGNATURE

from circuit import Circuit
from circuit.settings import Settings

WORKFLOW = """
workflow: state-{name}
places: {{asked: {{initial: true}}, open: {{}}, told: {{terminal: true}}}}
agents:
  clerk:
    llm_provider: {provider}
    llm_config: {{reasoning_effort: medium}}
    prompts: {{user_template: "{{said}}"}}
    conversation: case
    tools: [fs.write_file]
    policies: [{{require_approval: fs.write_file}}]
transitions:
  answer:
    from_places: asked
    to_place: open
    agent_execution: {{agent_id: clerk, input_mapping: {{said: data.said}}}}
  again:
    from_places: open
    to_place: asked
    trigger: {{type: manual, form: {{type: object, properties: {{said: {{type: string}}}}}}}}
    output_mapping: {{data.said: form.said}}
  part: {{from_places: open, to_place: told, trigger: {{type: manual}}}}
"""
PROVIDERS = {
    "responses": '{type: openai, api: responses, model: o3, base_url: "${MODEL}", api_key: "${KEY}"}',
    "anthropic": '{type: anthropic, model: claude-sonnet-4-5, base_url: "${MODEL}", api_key: "${KEY}"}',
    "google": '{type: google, model: gemini-2.5-pro, base_url: "${MODEL}", api_key: "${KEY}"}',
}


def signed(name: str, body: dict[str, Any]) -> list[Any]:
    """The parts of a request that carry the state of its protocol."""
    if name == "responses":
        return [one["encrypted_content"] for one in body["input"] if one.get("type") == "reasoning"]
    if name == "anthropic":
        blocks = [block for one in body["messages"] for block in one["content"]]
        return [block["signature"] for block in blocks if block["type"] == "thinking"]
    parts = [part for one in body["contents"] for part in one["parts"]]
    return [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]


async def test_it_goes_back_with_its_part_after_an_approval_and_in_the_next_firing(
    database_url: str, tmp_path: Path
) -> None:
    call = {"name": "fs_write_file", "arguments": {"path": "a.txt", "content": "yes"}}
    names = list(PROVIDERS)
    asks = [{"when": f"Write {name}.", "calls": [call], "reasoning": "Let me see."} for name in names]
    # The newest text first: what was said before stays in the request.
    replies = [{"when": "And now", "text": "Nothing."}, {"when": "wrote 3 bytes", "text": "Done."}, *asks]
    async with ChatServer(replies) as server:
        environment = {"MODEL": server.url, "KEY": "k"}
        settings = Settings(home=tmp_path, database_url=database_url, environment=environment)
        cases: dict[str, str] = {}
        async with Circuit.open(settings=settings) as circuit:
            for name in names:
                workflow = await circuit.load(WORKFLOW.format(name=name, provider=PROVIDERS[name]))
                cases[name] = await circuit.start(workflow.id, {"said": f"Write {name}."})
            await asyncio.gather(*(circuit.wait(case) for case in cases.values()))
        async with Circuit.open(settings=settings) as circuit:
            for case in cases.values():
                await circuit.signal(case, 1, {"approved": True})
            await asyncio.gather(*(circuit.wait(case) for case in cases.values()))
            for case in cases.values():
                await circuit.fire(case, "again", {"said": "And now?"})
            await asyncio.gather(*(circuit.wait(case) for case in cases.values()))
    for name in names:
        asked = [one.body for one in server.requests if f"Write {name}." in json.dumps(one.body)]
        assert [signed(name, body) for body in asked] == [[], [SIGNATURE], [SIGNATURE]], name

"""Which models there are, over GraphQL and for chat clients: those that agents name, and those that providers serve."""

from __future__ import annotations

from pathlib import Path

from chat_server import ChatServer
from driven import driven

from circuit.security.principal import LOCAL
from circuit.settings import Settings

LOAD = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }"
WORKFLOW = """
workflow: asks
places: {asked: {initial: true}, done: {terminal: true}}
agents:
  writer: {llm_provider: {type: openai, model: gpt-4.1}, fallback: [{type: scripted, model: script}]}
transitions: {ask: {from_places: asked, to_place: done, agent_execution: {agent_id: writer}}}
"""
PROVIDERS = """{ providers { type configured lacks models(first: 3) { id named servers contextTokens }
  unanswered { server code message retryable } } }"""
MODELS = """query ($provider: String, $search: String! = "", $first: Int! = 50, $after: String! = "") {
  models(provider: $provider, search: $search, first: $first, after: $after) { id provider name named } }"""
TOKEN, KEY = "t" * 40, "sk-nobody-may-see-this-0123456789"


async def test_models_are_those_that_agents_name_and_providers_serve(database_url: str, tmp_path: Path) -> None:
    listed = {"status": 200, "body": {"data": [{"id": "gpt-4.1"}, {"id": "tiny", "max_model_len": 512}]}}
    async with ChatServer([listed]) as openai, ChatServer([{"status": 500, "body": f"no, {KEY}"}]) as ollama:
        variables = {
            "CIRCUIT_DATABASE_URL": database_url, "CIRCUIT_HOME": str(tmp_path), "AGENT_ACCESS_TOKEN": TOKEN,
            "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": openai.url, "OLLAMA_BASE_URL": ollama.root,
            "OLLAMA_API_KEY": KEY,
        }  # fmt: skip
        async with driven(database_url, settings=Settings.from_environment(variables)) as running:
            server = running.authorized(TOKEN)
            await server.ok(LOAD, yaml=WORKFLOW)
            answer = await server.post(PROVIDERS)
            assert KEY not in str(answer)
            found = {one["type"]: one for one in answer["data"]["providers"]}
            assert found["openai"] == {
                "type": "openai", "configured": True, "lacks": None, "unanswered": [],
                "models": [
                    {"id": "openai:gpt-4.1", "named": True, "servers": [openai.root], "contextTokens": 1_047_576},
                    {"id": "openai:tiny", "named": False, "servers": [openai.root], "contextTokens": 512},
                ],
            }  # fmt: skip
            assert found["scripted"]["models"][0]["id"] == "scripted:script"
            [fault] = found["ollama"]["unanswered"]
            assert (fault["server"], fault["code"], fault["retryable"]) == (ollama.root, "unavailable", True)
            assert "ANTHROPIC_API_KEY" in found["anthropic"]["lacks"] and found["anthropic"]["models"] == []

            ids = [one["id"] for one in await server.ok(MODELS)]
            assert ids == ["openai:gpt-4.1", "openai:tiny", "scripted:script"]
            assert await server.ok(MODELS, first=1, after=ids[0]) == [
                {"id": "openai:tiny", "provider": "openai", "name": "tiny", "named": False}
            ]
            assert [one["id"] for one in await server.ok(MODELS, search="TINY")] == ["openai:tiny"]
            assert [one["id"] for one in await server.ok(MODELS, provider="scripted")] == ["scripted:script"]
            assert await server.code(MODELS, provider="odd") == "invalid_request"
            assert await server.code(MODELS, first=0) == "invalid_request"

            chat = (await server.client.get(f"{server.url}/v1/models")).json()
            assert {one["id"]: one["owned_by"] for one in chat["data"]} == {
                "agent:writer": "circuit", "openai:gpt-4.1": "openai", "openai:tiny": "openai",
                "workflow:asks": "circuit",
            }  # fmt: skip
            assert (await server.client.get(f"{server.url}/v1/models/openai:tiny")).json()["object"] == "model"
            assert (await server.client.get(f"{server.url}/v1/models/openai:none")).status_code == 404
            assert [one.path for one in (*openai.requests, *ollama.requests)] == ["/v1/models", "/api/tags"]

            nobody = await running.circuit.engine.keys.create("none", ["clerk"], LOCAL)
            other = running.authorized(nobody.text)
            assert [await other.code(query) for query in (PROVIDERS, MODELS)] == ["forbidden"] * 2
            await server.client.aclose()
            await other.client.aclose()

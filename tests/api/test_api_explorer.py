"""The page on which GraphQL is explored: complete in itself, and at work in a real browser."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from urllib.parse import urlencode

import browser
import httpx
import pytest
from driven import driven
from served import Served, Serving
from stage import Stage

from circuit.api.explorer import page
from circuit.settings import Settings

ASSETS = Path(page.__file__).parent / "assets"
TOKEN = "t" * 40
QUERY = "{ serverStatus { version ready } }"
SUBSCRIPTION = 'subscription { workflowEvents(workflowId: "none") { cursor } }'


def test_the_files_are_those_that_their_authors_published() -> None:
    sums = dict(reversed(line.split("  ")) for line in (ASSETS / "SHA256SUMS").read_text().splitlines())
    assert set(sums) < set(page.FILES)
    for name, digest in sums.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest, name
    assert {path.name for path in ASSETS.iterdir()} == {*page.FILES, "index.html", "SHA256SUMS", "LICENSES.md"}


async def test_the_page_is_complete_in_itself_and_shown_here_only(
    server: Served, reading: Stage, serving: Serving
) -> None:
    async with httpx.AsyncClient(headers={"accept": "text/html"}) as client:
        for path in ("/explorer", "/graphql"):
            shown = await client.get(f"{server.url}{path}")
            assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "http" not in shown.text
            policy = shown.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "script-src 'self'" in policy
        for name, kind in page.FILES.items():
            file = await client.get(f"{server.url}/explorer/{name}")
            assert (file.status_code, file.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
            assert name in shown.text
        for name in ("index.html", "SHA256SUMS", "..%2fpage.py", "../page.py", "%00"):
            assert (await client.get(f"{server.url}/explorer/{name}")).status_code == 404, name
        async with serving(reading, development=False) as closed:
            for path in sorted(page.PATHS):
                assert (await client.get(f"{closed.url}{path}")).status_code == 404, path


async def test_a_browser_explores_the_schema_and_asks_nobody_else(database_url: str, tmp_path: Path) -> None:
    program = browser.found()
    if program is None:
        pytest.skip("needs a browser: install chromium")
    variables = {"CIRCUIT_DATABASE_URL": database_url, "CIRCUIT_HOME": str(tmp_path), "AGENT_ACCESS_TOKEN": TOKEN}
    said = 'document.querySelector(".result-window")?.textContent'
    async with (
        driven(database_url, settings=Settings.from_environment(variables)) as server,
        browser.browsing(program) as shown,
    ):
        page_of = f"{server.url}/explorer"
        await shown.go(f"{page_of}?{urlencode({'query': QUERY})}")
        # Whoever names nobody learns nothing; with a credential among the headers there is an answer, and the schema.
        await shown.until(f'{said}?.includes("unauthenticated")')
        await run(shown)
        await shown.until(f'{said}?.includes("\\"ready\\": true")')
        await shown.run("document.querySelector('[aria-label=\"Re-fetch GraphQL schema\"]').click()")
        await shown.run("document.querySelector('[aria-label=\"Show Documentation Explorer\"]').click()")
        await shown.until('document.querySelector(".graphiql-doc-explorer")?.textContent.includes("Mutation")')
        if folder := os.environ.get("CIRCUIT_PICTURES"):
            await asyncio.to_thread((Path(folder) / "explorer.png").write_bytes, await shown.picture())

        await shown.go(f"{page_of}?{urlencode({'query': SUBSCRIPTION})}")
        await run(shown)
        await shown.until(f'{said}?.includes("not_found")')
        asked = {url.partition("/explorer")[0].removesuffix("/graphql") for url in shown.requests}
    local = server.url.removeprefix("http")
    assert {one for one in asked if not one.startswith("data:")} == {f"http{local}", f"ws{local}"}
    # What the browser complains of: the refusal at first, and nothing that its policy forbade.
    assert [one for one in shown.complaints if "401" not in one] == []


async def run(shown: browser.Page) -> None:
    """Run what stands in the editor of queries, with a credential."""
    await shown.until("document.querySelectorAll('.graphiql-editor .CodeMirror').length === 3")
    await shown.run(
        "document.querySelectorAll('.graphiql-editor .CodeMirror')[2].CodeMirror"
        f".setValue(JSON.stringify({{authorization: 'Bearer {TOKEN}'}}))"
    )
    await shown.run("document.querySelector('.graphiql-execute-button').click()")

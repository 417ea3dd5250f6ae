"""`--model openai:NAME` against a server on loopback that speaks the protocol: the same workflow on a real model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.commanding import Command, scripted_workflow

KEY = "sk-test-0123456789"


class Endpoint(ThreadingHTTPServer):
    """Answers chat completions with `words`, or with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.words = ["A ", "real ", "answer."]
        self.status = 200
        self.broken = False
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Answer(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.path, self.headers["authorization"], body))
        if self.server.status != 200:
            self.send_response(self.server.status)
            self.end_headers()
            self.wfile.write(orjson.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}))
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for word in self.server.words:
            self._send({"model": "real-1", "choices": [{"index": 0, "delta": {"content": word}}]})
        if self.server.broken:
            return
        self._send({"model": "real-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + orjson.dumps(chunk) + b"\n\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Keep quiet."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_real_model_takes_the_place_of_the_script(circuit: Command, endpoint: Endpoint, tmp_path: Path) -> None:
    outcome = circuit(
        "run",
        scripted_workflow(tmp_path),
        "--model",
        "openai:gpt-4.1-mini",
        OPENAI_BASE_URL=endpoint.url,
        OPENAI_API_KEY=KEY,
    )
    assert outcome.code == 0, outcome.err
    assert "scripted" not in outcome.out
    assert "write | A real answer." in outcome.out
    ((path, key, request),) = endpoint.requests
    assert path == "/v1/chat/completions"
    assert key == f"Bearer {KEY}"
    assert (request["model"], request["stream"]) == ("gpt-4.1-mini", True)
    assert KEY not in outcome.out + outcome.err


def test_a_model_that_is_tried_is_heard_while_it_speaks(bare: Command, endpoint: Endpoint) -> None:
    where = {"OPENAI_BASE_URL": endpoint.url, "OPENAI_API_KEY": KEY}
    endpoint.words = ["One\x1b[2J ", "two."]
    tried = bare("models", "try", "openai:gpt-4.1-mini", "count", **where)
    assert (tried.code, "first piece after" in tried.err) == (0, True)
    assert tried.out.endswith("two.\n") and "\x1b" not in tried.out
    # What came before the end of a stream that breaks off was shown.
    endpoint.broken = True
    broken = bare("models", "try", "openai:gpt-4.1-mini", "count", **where)
    assert (broken.code, broken.out) == (1, tried.out)
    assert "stream" in broken.err


def test_a_refused_key_is_named_and_not_shown(circuit: Command, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.status = 401
    outcome = circuit(
        "run",
        scripted_workflow(tmp_path),
        *("--model", "writer=openai:gpt-4.1-mini", "--json"),
        OPENAI_BASE_URL=endpoint.url,
        OPENAI_API_KEY=KEY,
    )
    assert outcome.code == 1
    case = outcome.json
    assert case["status"] == "attention"
    failed = next(event for event in case["history"] if event["kind"] == "firing_failed")
    assert failed["error"]["code"] == "authentication"
    assert KEY not in outcome.out + outcome.err
    endpoint.status = 200
    again = circuit("retry", case["case_id"], "--json")
    assert again.code == 0, again.err
    assert again.json["status"] == "completed"
    assert circuit("show", case["case_id"], "--json").json["marking"] == {"done": 1}

"""`/v1`: what chat clients ask becomes a case, and what comes of the case becomes their answer.

A model is an agent (`agent:ID`), a workflow (`workflow:ID`) or a plain model (`openai:gpt-4.1-mini`). The case goes on
without its client where it runs a workflow, or where the request came with an `Idempotency-Key`, with which the client
may come back for the same answer; else it is cancelled when its client goes away.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from circuit.api.authentication import PRINCIPAL, address, asking
from circuit.api.openai import answers
from circuit.api.openai.answers import Shape
from circuit.api.openai.form import Wish, chat_wish, completion_wish
from circuit.api.openai.listener import Listener
from circuit.api.openai.models import ChatModels
from circuit.api.openai.progress import Answered, Begun, Called, Failed, Piece, Said, attended, consulted, ran
from circuit.api.problems import JSONAnswer, Problems
from circuit.api.readers import LEAVING_SECONDS, Readers
from circuit.api.services import Services
from circuit.definition.model_choice import parse_model_override
from circuit.engine.commands import TokenInput
from circuit.engine.consultations import Consultation
from circuit.errors import CircuitError, InvalidRequest, NotFound, NoWorker, Restarting
from circuit.ids import CaseKey
from circuit.security.principal import Principal

logger = logging.getLogger(__name__)

LONGEST_ANSWER_SECONDS = 600.0
"""How long an answer that is not streamed is waited for."""
HEARTBEAT_SECONDS = 15.0
"""After so long without a word a stream says that it still waits; the first of them opens it."""
PATIENCE_SECONDS = 5.0
"""After so long without a word it is looked whether any worker can take the case, and after as long again it fails."""
RETRY_SECONDS = 5.0
_UNTAKEN = (NoWorker.code, Restarting.code)
"""When a client may ask again where none could."""
_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A case that a client waits for. `abandon` says that it ends with its client."""

    key: CaseKey
    wish: Wish
    shape: Shape
    pieces: AsyncGenerator[Piece, None]
    abandon: bool
    workflow: bool


class ChatEndpoint:
    """Answers chat completions, older completions, and which models there are."""

    def __init__(
        self, services: Services, problems: Problems, readers: Readers, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        assert services.consultations is not None
        self.readers = readers
        self._services = services
        self._problems = problems
        self._consultations = services.consultations
        self._models = ChatModels(services.queries, services.consultations, services.catalogue)
        self._heartbeat_seconds = heartbeat_seconds

    async def chat(self, request: Request) -> Response:
        return await self._guarded(request, lambda: self._complete(request, chat=True))

    async def completions(self, request: Request) -> Response:
        return await self._guarded(request, lambda: self._complete(request, chat=False))

    async def models(self, request: Request) -> Response:
        async def listed() -> Response:
            return JSONAnswer(await self._models.all(asking(request.scope)))

        return await self._guarded(request, listed)

    async def model(self, request: Request) -> Response:
        async def one() -> Response:
            return JSONAnswer(await self._models.one(request.path_params["model"], asking(request.scope)))

        return await self._guarded(request, one)

    async def _guarded(self, request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
        try:
            return await answer()
        except CircuitError as error:
            scope = request.scope
            await self._problems.noted(error, scope.get(PRINCIPAL), scope["path"], address(scope))
            return failure(answers.problem_of(error), error.retry_after)

    async def _complete(self, request: Request, *, chat: bool) -> Response:
        principal = asking(request.scope)
        read = chat_wish if chat else completion_wish
        wish = read(await request.body(), self._services.default_model)
        asked = await self._begin(wish, principal, request.headers.get("idempotency-key"), chat=chat)
        return Waiting(self, asked, principal)

    async def _begin(self, wish: Wish, principal: Principal, key: str | None, *, chat: bool) -> Asked:
        """Start the case. Raises what starting one does."""
        kind, _, name = wish.model.partition(":")
        case = await (
            self._start_workflow(name, wish, principal, key)
            if kind == "workflow"
            else self._consultations.ask(
                await self._consultation(kind, name, wish, principal),
                principal=principal,
                key=key,
                subjects=wish.subjects,
            )
        )
        functions = [one["name"] for one in wish.changes.get("functions", ())]
        streams = self._services.streams
        pieces = ran(streams, case) if kind == "workflow" else consulted(streams, case, functions, aloud=wish.stream)
        pieces = attended(pieces, partial(self._services.queries.missing, case), PATIENCE_SECONDS)
        created = int(self._services.clock.now().timestamp())
        shape = Shape(str(case), wish.model, created, chat=chat, older=wish.older)
        return Asked(case, wish, shape, pieces, kind != "workflow" and key is None, kind == "workflow")

    async def _consultation(self, kind: str, name: str, wish: Wish, principal: Principal) -> Consultation:
        metadata = {"chat": dict(wish.metadata)} if wish.metadata else {}
        if kind != "agent":
            _, model = _named_model(wish.model)
            return Consultation(wish.messages, None, model, wish.template, wish.changes, metadata)
        agent = await self._consultations.agent(principal.tenant, name)
        if agent is None:
            raise NotFound(f"there is no agent {name[:100]!r}; loading a workflow publishes its agents")
        changes = dict(wish.changes)
        if "output_schema" in changes and agent.document.get("output_schema") is not None:
            raise InvalidRequest(
                f"agent {name} answers by its own output_schema: leave response_format out",
                details={"param": "response_format"},
            )
        own = (agent.document.get("llm_config") or {}).get("max_tokens")
        config = changes.get("llm_config") or {}
        if own is not None and config.get("max_tokens", own) > own:
            changes["llm_config"] = {**config, "max_tokens": own}  # its author's bound stays one
        return Consultation(wish.messages, name, None, wish.template, changes, metadata)

    async def _start_workflow(self, name: str, wish: Wish, principal: Principal, key: str | None) -> CaseKey:
        refused = [one for one in ("functions", "output_schema", "capabilities") if one in wish.changes]
        if refused or wish.template is not None:
            raise InvalidRequest(
                "a workflow takes no tools, response_format, capabilities or template: its agents have their own"
            )
        metadata = {"chat": dict(wish.metadata)} if wish.metadata else {}
        token = TokenInput(_token_data(wish.messages), metadata)
        return await self._services.commands.start_case(
            name, token, principal=principal, key=key, subjects=wish.subjects
        )

    # -- answering --------------------------------------------------------------------------------------------------

    async def answer(self, asked: Asked, piece: Answered) -> Mapping[str, Any]:
        """The answer as a consultation's, also where a workflow gave it."""
        if not asked.workflow:
            return piece.answer
        text = piece.answer if isinstance(piece.answer, str) else orjson.dumps(piece.answer).decode()
        view = await self._services.queries.case(asked.key)
        usage: dict[str, int] = {}
        for execution in view.executions if view is not None else ():
            for name, count in (execution.usage or {}).items():
                if isinstance(count, int):
                    usage[name] = usage.get(name, 0) + count
        return {"message": {"role": "assistant", "content": text}, "finish": "stop", "usage": usage}

    async def gone(self, asked: Asked, principal: Principal) -> None:
        """The client went away, or was sent away."""
        if asked.abandon:
            try:
                await self._consultations.abandon(asked.key, principal=principal)
            except CircuitError as error:
                logger.warning("case %s goes on without its client: %s", asked.key, error)

    @property
    def heartbeat_seconds(self) -> float:
        return self._heartbeat_seconds


class Waiting(Response):
    """The response to a client that waits: an answer when it is whole, or a stream of it."""

    def __init__(self, endpoint: ChatEndpoint, asked: Asked, principal: Principal) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._asked = asked
        self._principal = principal
        self._named = {"x-circuit-case-id": str(asked.key)}
        self._untaken = False
        """Whether the client was told to ask again: no worker takes the case, or the server stops."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        over = False
        try:
            async with Listener(self._asked.pieces, receive) as listener:
                self._endpoint.readers.enter(listener, LEAVING_SECONDS)
                try:
                    if self._asked.wish.stream:
                        await self._stream(listener, scope, receive, send)
                    else:
                        await (await self._whole(listener))(scope, receive, send)
                finally:
                    self._endpoint.readers.leave(listener)
                over = not (listener.gone or self._untaken)
        except OSError:  # the client is gone
            pass
        if not over:
            await self._endpoint.gone(self._asked, self._principal)

    async def _whole(self, listener: Listener) -> Response:
        while (piece := await listener.next(LONGEST_ANSWER_SECONDS)) is not None:
            if isinstance(piece, Begun):
                self._named["x-circuit-execution-id"] = piece.execution_id
            elif isinstance(piece, Answered):
                answer = await self._endpoint.answer(self._asked, piece)
                return JSONAnswer(self._asked.shape.whole(answer), headers=self._named)
            elif isinstance(piece, Failed):
                return self._failure(piece)
        message = f"there is no answer after {LONGEST_ANSWER_SECONDS:g} s; case {self._asked.key} goes on"
        return failure({"code": "timeout", "message": message, "retryable": False}, headers=self._named)

    async def _stream(self, listener: Listener, scope: Scope, receive: Receive, send: Send) -> None:
        """An error before the first word is a response of its own; one after it is an event of the stream."""
        seconds = self._endpoint.heartbeat_seconds
        piece = await listener.next(seconds)
        if isinstance(piece, Begun):
            self._named["x-circuit-execution-id"] = piece.execution_id
            piece = await listener.next(seconds)
        if isinstance(piece, Failed):
            await self._failure(piece)(scope, receive, send)
            return
        if listener.gone:
            return
        head = Response(headers={**_HEADERS, **self._named}).raw_headers
        headers = [(name, value) for name, value in head if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        part = self._asked.shape.opening()
        while not listener.gone:
            part += await self._part(piece)
            if part:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            if isinstance(piece, Answered | Failed):
                self._note(piece)
                break
            part = b""
            piece = await listener.next(seconds)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _failure(self, piece: Failed) -> Response:
        self._note(piece)
        return failure(piece.error, RETRY_SECONDS if self._untaken else None, self._named)

    def _note(self, piece: Answered | Failed) -> None:
        self._untaken = isinstance(piece, Failed) and piece.error["code"] in _UNTAKEN

    async def _part(self, piece: Piece | None) -> bytes:
        shape = self._asked.shape
        if isinstance(piece, Said):
            return shape.said(piece)
        if isinstance(piece, Called):
            return shape.called(piece)
        if isinstance(piece, Failed):
            return answers.error_event(piece.error)
        if isinstance(piece, Answered):
            answer = await self._endpoint.answer(self._asked, piece)
            text = shape.said(Said(answer["message"]["content"])) if self._asked.workflow else b""
            return text + shape.closing(answer, usage=self._asked.wish.include_usage)
        return b": waiting\n\n" if piece is None else b""


def failure(
    error: Mapping[str, Any], retry_after: float | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The response for an error; it tells clients that repeat by themselves whether that is of use."""
    told = {**(headers or {}), "x-should-retry": "true" if error.get("retryable") else "false"}
    if retry_after:
        told["retry-after"] = str(max(1, round(retry_after)))
    return JSONAnswer(answers.error_body(error), answers.status_of(error), told)


def _named_model(text: str) -> tuple[str, dict[str, Any]]:
    try:
        return parse_model_override(text)
    except InvalidRequest as error:
        raise NotFound(
            f"there is no model {text[:100]!r}: name an agent (agent:ID), a workflow (workflow:ID) or TYPE:MODEL."
            f" {error.message}",
            details={"param": "model"},
        ) from None


def _token_data(messages: Any) -> dict[str, Any]:
    """What a workflow gets of a conversation: the last message of the user, as the JSON object that it holds or as
    `content`."""
    said = next((one.get("content") for one in reversed(messages) if one.get("role") == "user"), None)
    if isinstance(said, list):
        parts = [part.get("text") for part in said if isinstance(part, dict)]
        said = "".join(part for part in parts if isinstance(part, str))
    if not said:
        raise InvalidRequest("there is no message of the user", details={"param": "messages"})
    try:
        value = orjson.loads(said)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"content": said}

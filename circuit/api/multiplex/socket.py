"""One WebSocket with many subscriptions.

Each subscription is a task that reads at its own pace and sends when it is its turn; what waits for a client that reads
slowly is one batch of each, and everything else lies in the rings and the log, as for readers of a single stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial

from starlette.types import Receive, Scope, Send

from circuit.api.authentication import PRINCIPAL, address, bearer, introduced
from circuit.api.line import message, pass_on, socket_line
from circuit.api.multiplex.message import (
    LONGEST_MESSAGE,
    Init,
    Ping,
    Said,
    Subscribe,
    Unsubscribe,
    before_frame,
    failure,
    said,
    told,
)
from circuit.api.problems import INTERNAL_CODE, INTERNAL_MESSAGE, Problems
from circuit.api.readers import Readers
from circuit.api.services import Services
from circuit.api.websocket import RESTARTING, text
from circuit.engine.views import EventView
from circuit.errors import (
    CircuitError,
    Conflict,
    InvalidCursor,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    TooManyRequests,
    Unauthenticated,
)
from circuit.events import Frame
from circuit.ids import CaseKey, parse_case_id
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.streams.reader import Line
from circuit.streams.workflow import Mark
from circuit.surface import surface

MOST_SUBSCRIPTIONS = 1_000
"""Subscriptions that one WebSocket may have."""
OPENING_AT_ONCE = 8
"""How many of them look into the log for their beginning at the same time."""
INIT_SECONDS = 10.0

logger = logging.getLogger(__name__)


class MultiplexEndpoint:
    """The endpoint, as a plain ASGI application."""

    def __init__(self, services: Services, readers: Readers, problems: Problems) -> None:
        self._services = services
        self._readers = readers
        self._problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # the client's wish to connect
        with contextlib.suppress(OSError):  # the client is gone
            await send({"type": "websocket.accept"})
            admit = partial(introduced, self._services.gate, self._problems, scope)

            async def noted(error: CircuitError, principal: Principal | None, what: str = "") -> None:
                await self._problems.noted(error, principal, f"{scope['path']}{what}", address(scope))

            socket = Socket(self._services, self._readers, scope.get(PRINCIPAL), admit, noted, receive, send)
            self._readers.enter(socket)
            try:
                code, reason = await socket.run()
            finally:
                self._readers.leave(socket)
            if code:
                await send({"type": "websocket.close", "code": code, "reason": reason})


class Socket:
    """The subscriptions of one client."""

    def __init__(
        self,
        services: Services,
        readers: Readers,
        principal: Principal | None,
        admit: Callable[[str | None], Awaitable[Principal]],
        noted: Callable[..., Awaitable[None]],
        receive: Receive,
        send: Send,
    ) -> None:
        self._services = services
        self._readers = readers
        self._principal = principal
        self._admit = admit
        self._noted = noted
        self._receive = receive
        self._send = send
        # Whoever waits longest sends next: no subscription keeps the others from it.
        self._turn = asyncio.Lock()
        self._opening = asyncio.Semaphore(OPENING_AT_ONCE)
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End the connection: the server stops."""
        self._stopping.set()

    async def run(self) -> tuple[int, str]:
        """Until the client goes (then the code is 0) or has to: the code and the reason of the close."""
        listening = asyncio.create_task(self._listen())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return listening.result() if listening.done() else (RESTARTING, "restarting")
        finally:
            tasks: list[asyncio.Task[object]] = [listening, stopping, *self._subscriptions.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- what the client says ---------------------------------------------------------------------------------------

    async def _listen(self) -> tuple[int, str]:
        try:
            if self._principal is None:
                await self._introduced()
            while (message := await self._receive())["type"] != "websocket.disconnect":
                content = message.get("text")
                if content is None:
                    await self._tell(failure(InvalidRequest("a message is text, and this frame is binary")))
                elif len(content) > LONGEST_MESSAGE:
                    raise PayloadTooLarge(f"a message has at most {LONGEST_MESSAGE} characters")
                else:
                    await self._hear(*said(content))
        except CircuitError as error:
            await self._tell(failure(error))
            return surface(error.code).websocket, error.code
        return 0, ""

    async def _introduced(self) -> None:
        """Wait for the message that says who asks. Raises `Unauthenticated`."""
        content: str | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INIT_SECONDS):
                content = (await self._receive()).get("text")
        message = said(content)[0] if content is not None and len(content) <= LONGEST_MESSAGE else None
        if not isinstance(message, Init):
            error = Unauthenticated('say who asks first: {"type": "init", "authorization": "Bearer ..."}')
            await self._noted(error, None)
            raise error
        self._principal = await self._admit(bearer(message.authorization))
        await self._tell(told("ready"))

    async def _hear(self, message: Said | None, subscription: str | None, fault: InvalidRequest | None) -> None:
        if isinstance(message, Subscribe):
            await self._subscribe(message)
        elif isinstance(message, Unsubscribe):
            task = self._subscriptions.pop(message.id, None)
            if task is None:
                missing = NotFound(f"there is no subscription {message.id!r}: it has ended, or never began")
                await self._tell(failure(missing, message.id))
            else:
                task.cancel()
                await asyncio.wait([task])
                await self._tell(told("complete", message.id))
        elif isinstance(message, Ping):
            await self._tell(told("pong"))
        else:
            await self._tell(failure(fault or Conflict("who asks is known already"), subscription))

    async def _subscribe(self, wanted: Subscribe) -> None:
        if wanted.id in self._subscriptions:
            # Without the id: what it names goes on.
            doubled = Conflict(f"there is a subscription {wanted.id!r} already: end it first, or take another id")
            await self._tell(failure(doubled))
        elif len(self._subscriptions) >= MOST_SUBSCRIPTIONS:
            many = TooManyRequests(f"one connection has at most {MOST_SUBSCRIPTIONS} subscriptions")
            await self._noted(many, self._principal)
            await self._tell(failure(many, wanted.id))
        else:
            self._subscriptions[wanted.id] = asyncio.create_task(self._run(wanted))

    # -- what it is told --------------------------------------------------------------------------------------------

    async def _tell(self, message: str) -> None:
        async with self._turn:
            await self._send({"type": "websocket.send", "text": message})

    async def _run(self, wanted: Subscribe) -> None:
        """One subscription from its beginning to its end."""
        kind: Callable[[Subscribe, Principal], Awaitable[None]] = (
            self._execution
            if wanted.execution is not None
            else self._case
            if wanted.case is not None
            else self._workflow
        )
        last = told("complete", wanted.id)
        try:
            assert self._principal is not None
            await kind(wanted, self._principal)
        except CircuitError as error:
            await self._noted(error, self._principal, f" {wanted.execution or wanted.case or wanted.workflow}")
            last = failure(error, wanted.id)
        except OSError:  # the client is gone
            return
        except Exception:
            logger.exception("a subscription of /stream failed")
            last = told("error", wanted.id, error={"code": INTERNAL_CODE, "message": INTERNAL_MESSAGE})
        # Before the client hears of the end: it may take the id again at once.
        self._subscriptions.pop(wanted.id, None)
        if not self._stopping.is_set():  # then it has not ended: the client comes back
            with contextlib.suppress(OSError):
                await self._tell(last)

    async def _execution(self, wanted: Subscribe, principal: Principal) -> None:
        after = _text(wanted.after)
        async with self._opening:
            reader = await self._readers.open(wanted.execution or "", after, principal)
        try:
            await self._tell(told("subscribed", wanted.id))
            before = before_frame(wanted.id)
            line = self._line(before.encode())
            if line is not None:
                reader.send_through(line)

            async def send_one(frame: Frame) -> None:
                await self._tell(f"{before}{frame.wire(text)}}}")

            while not reader.over:
                await pass_on(await reader.read(), line, send_one)
        finally:
            self._readers.close(reader)

    def _line(self, before: bytes) -> Line | None:
        """The line of a subscription, which lets those send first who wait for their turn."""
        line, turn = socket_line(self._send, lambda frame: message(b"%b%b}" % (before, frame.body))), self._turn
        return None if line is None else lambda frames: 0 if turn.locked() else line(frames)

    async def _case(self, wanted: Subscribe, principal: Principal) -> None:
        principal.require(Permission.READ)
        case = parse_case_id(wanted.case or "")
        if case is None:
            raise NotFound(f"there is no case {(wanted.case or '')[:100]!r}")
        after = wanted.after if wanted.after is not None else 0
        if not isinstance(after, int) or not 0 <= after < 2**31:
            raise InvalidCursor("after is the number of an event of this case, from 0 on")
        key = CaseKey(principal.tenant, case)
        async with self._opening:
            await self._services.streams.require(key)
        await self._tell(told("subscribed", wanted.id))
        async with aclosing(self._services.streams.follow(key, after)) as events:
            async for seq, at, event in events:
                shown = {"case_id": str(case), **EventView(key, seq, at, event).as_dict()}
                await self._tell(told("next", wanted.id, event=shown))

    async def _workflow(self, wanted: Subscribe, principal: Principal) -> None:
        principal.require(Permission.READ)
        after = _text(wanted.after)
        mark = None if after is None else Mark.parse(after)
        async with self._opening:
            follower = await self._services.streams.open_workflow(principal.tenant, wanted.workflow or "", mark)
        try:
            await self._tell(told("subscribed", wanted.id))
            async with aclosing(follower.events()) as events:
                async for (case, seq, at, event, _), reached in events:
                    view = EventView(CaseKey(principal.tenant, case), seq, at, event)
                    shown = {"case_id": str(case), **view.as_dict()}
                    await self._tell(told("next", wanted.id, event=shown, mark=str(reached)))
        finally:
            follower.close()


def _text(after: str | int | None) -> str | None:
    if isinstance(after, int):
        raise InvalidCursor(f"{after} is no cursor; give one that an event of this stream carried")
    return after

"""`circuit chat`: a conversation with an agent in the terminal, kept where there is a database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from circuit.cli.agents import AgentArgument, chosen
from circuit.cli.conversations import print_list, print_message
from circuit.cli.session import interruptible, run_session
from circuit.cli.terminal import Terminal, one_line
from circuit.cli.trial import ActionsOption, ModelOption, staged, typed
from circuit.errors import CircuitError, InvalidRequest, StorageError
from circuit.settings import Settings, with_actions

if TYPE_CHECKING:
    from circuit.agents.run import AgentResult
    from circuit.app import Circuit
    from circuit.providers.messages import Message

_SHOWN = 4
"""How many of the last messages are shown again where a conversation is continued."""


def chat(
    source: Annotated[
        str | None, typer.Argument(metavar="[FILE|ID]", help="A workflow file, or the id of a published agent.")
    ] = None,
    agent: AgentArgument = None,
    model: ModelOption = None,
    actions: ActionsOption = None,
    go_on: Annotated[str | None, typer.Option("--continue", metavar="ID", help="Go on with this conversation.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the conversations, and talk to nobody.")] = False,
    no_store: Annotated[bool, typer.Option("--no-store", help="Keep nothing of the conversation.")] = False,
) -> int:
    """Talk to an agent in the terminal. Its tools are shown as it calls them. End with an empty line or Ctrl-D; Ctrl-C
    interrupts an answer.

    The conversation is kept where there is a database. One that a case or another agent has goes on as a copy.

    \b
    Example: circuit chat workflows/hello.yaml --model ollama:qwen3
    Example: circuit chat workflows/hello.yaml --continue 0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11
    """
    terminal = Terminal()
    settings = with_actions(Settings.from_environment(), actions)
    if listed:
        if go_on is not None or no_store:
            raise InvalidRequest("--list goes with no --continue and no --no-store.")
        name = None if source is None else chosen(source, agent, terminal).agent.id
        return run_session(lambda: _list(settings, name, terminal), settings)
    if source is None:
        raise InvalidRequest("circuit chat needs a workflow FILE, or the ID of a published agent.")
    if go_on is not None and no_store:
        raise InvalidRequest("--continue goes with no --no-store: what is said is added to the conversation.")
    found = chosen(source, agent, terminal)

    async def body() -> int:
        from circuit.agents.prompt import build_messages, prompt_values
        from circuit.providers.messages import Message, Role

        async with AsyncExitStack() as stack:
            circuit = None
            if not no_store:
                circuit = await stack.enter_async_context(_database(settings, terminal, go_on is not None))
            stage = await stack.enter_async_context(staged(settings, found, model, terminal))
            memory: _Memory = _Passing()
            if circuit is not None:
                memory = await _Kept.open(circuit, found.agent.id, go_on, terminal)
            named = prompt_values(inputs={}, tokens=(), workflow_id="", history_count=0)
            systems = tuple(one for one in build_messages(stage.texts, named) if one.role == Role.SYSTEM)
            while True:
                said = await typed()
                if not said.strip():
                    break
                asked = Message.text(Role.USER, said.rstrip("\n"))
                try:
                    recalled = await memory.recall()
                    messages = (*systems, *recalled, asked)
                    result = await _answered(stage.run(messages, schema=False, recalled=len(recalled)))
                    if result is None:
                        terminal.note("interrupted: nothing of this answer is kept")
                        continue
                    await memory.keep(asked, result)
                except CircuitError as error:
                    # One answer failed; the conversation goes on from before it.
                    terminal.note(one_line(f"{error.code}: {error.message}"))
            if isinstance(memory, _Kept) and memory.id is not None:
                whom = one_line(source if agent is None else f"{source} {agent}")
                terminal.note(f"go on with: circuit chat {whom} --continue {memory.id}")
        return 0

    return run_session(body, settings)


async def _answered(run: Coroutine[Any, Any, AgentResult]) -> AgentResult | None:
    """The answer, or None where somebody pressed Ctrl-C meanwhile: the conversation goes on from before it."""
    answering = asyncio.create_task(run)
    try:
        with interruptible(answering):
            return await answering
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return None


class _Memory(Protocol):
    """What was said before, as the agent is told of it."""

    async def recall(self) -> tuple[Message, ...]: ...

    async def keep(self, asked: Message, result: AgentResult) -> None: ...


class _Passing:
    """Remembers as long as the command runs."""

    def __init__(self) -> None:
        self._said: tuple[Message, ...] = ()

    async def recall(self) -> tuple[Message, ...]:
        return self._said

    async def keep(self, asked: Message, result: AgentResult) -> None:
        from circuit.agents.session import recap

        if result.recap is not None:
            self._said = (recap(result.recap.text), *self._said[result.recap.recalled :])
        self._said = (*self._said, asked, *result.said)


class _Kept:
    """A conversation in the database, which begins with the first answer. `id` is None before it."""

    def __init__(self, circuit: Circuit, agent_id: str, conversation: str | None, length: int) -> None:
        self.id = conversation
        self._circuit = circuit
        self._agent_id = agent_id
        self._length = length
        self._upto: tuple[int, ...] = ()

    @classmethod
    async def open(cls, circuit: Circuit, agent_id: str, conversation: str | None, terminal: Terminal) -> _Kept:
        """The conversation of this id, as far as this agent may add to it, or a new one. Raises `NotFound`."""
        if conversation is None:
            return cls(circuit, agent_id, None, 0)
        found = await circuit.conversations.find(circuit.principal, conversation)
        if found.case_id is not None or found.agent_id != agent_id:
            whose = f"case {found.case_id}'s" if found.case_id is not None else f"{found.agent_id}'s"
            found = await circuit.conversations.fork(circuit.principal, found.id, agent_id=agent_id)
            terminal.note(one_line(f"the conversation is {whose}: {agent_id} goes on with a copy, {found.id}"))
        after = max(found.messages - _SHOWN, 0)
        for said in await circuit.conversations.messages(circuit.principal, found.id, after=after):
            print_message(said, terminal)
        return cls(circuit, agent_id, found.id, found.messages)

    async def recall(self) -> tuple[Message, ...]:
        from circuit.actions.conversation import told

        if self.id is None:
            return ()
        memory = self._circuit.conversations.memory(self._circuit.principal, self.id)
        recalled = await memory.recall(self._length)
        self._upto = tuple(number for number, _ in recalled)
        return tuple(told(said) for _, said in recalled)

    async def keep(self, asked: Message, result: AgentResult) -> None:
        from circuit.actions.conversation import added

        said = added((asked,), result, self._agent_id, self._upto)
        conversations, principal = self._circuit.conversations, self._circuit.principal
        if self.id is None:
            self.id = (await conversations.begin(principal, self._agent_id, said)).id
        else:
            await conversations.add(principal, self.id, self._length, said)
        self._length += len(said)


@asynccontextmanager
async def _database(settings: Settings, terminal: Terminal, needed: bool) -> AsyncGenerator[Circuit | None]:
    """Circuit over the database, or None where there is none and it is not needed: it is said why. None is made."""
    from circuit.app import Circuit
    from circuit.app.home import is_new

    async with AsyncExitStack() as stack:
        try:
            if settings.database_url is None and is_new(settings.home):
                raise StorageError(f"there is no database in {settings.home} yet")
            opening = Circuit.open(settings=settings, worker=False, progress=terminal.note)
            circuit = await stack.enter_async_context(opening)
        except StorageError as error:
            if needed:
                raise
            terminal.note(one_line(f"nothing of this conversation is kept: {error.message}"))
            circuit = None
        yield circuit


async def _list(settings: Settings, agent_id: str | None, terminal: Terminal) -> int:
    async with _database(settings, terminal, True) as circuit:
        assert circuit is not None
        print_list(await circuit.conversations.list(circuit.principal, agent_id=agent_id), terminal)
    return 0

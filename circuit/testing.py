"""Runs a workflow in a test: to where nothing moves, with answers from the test and a clock that the test moves.

async with circuit.testing.running("review.yaml", answers={"reviewer": {"verdict": "approve"}}) as run:
    await run.settle()
    assert run.places() == {"approved": 1}
    await run.advance(hours=2)

It is the engine's own owner, actions and streams, without the database: every rule of nets, firings, retries, waits and
time is the one that production has, a day passes in a millisecond, and no server starts. What only a database can show
(a lost process, two workers, a commit that fails) is not shown here: open `circuit.Circuit` on one for that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from circuit.actions.agent import KIND as AGENT
from circuit.actions.agent import AgentAction
from circuit.actions.function import KIND as FUNCTION
from circuit.actions.function import FunctionAction
from circuit.actions.functions import Source, collect
from circuit.actions.human import KIND as HUMAN
from circuit.actions.human import TASK, HumanAction
from circuit.actions.result import as_json
from circuit.definition import load_workflow
from circuit.definition.workflow import Workflow
from circuit.engine.action import Action, ActionCall, ActionContext, ActionOutput
from circuit.engine.execution import Cutoff, Ended, Screened, Surroundings, execute
from circuit.engine.firings import Start
from circuit.engine.opening import TokenInput, opening_tokens
from circuit.engine.owner import Owner, Step
from circuit.errors import InvalidRequest
from circuit.events import CaseEvent, CaseStarted, FiringBegun, StreamType, TokenImage
from circuit.fragments import beside
from circuit.ids import CaseKey, uuid7
from circuit.net.marking import Token
from circuit.net.reception import message_key
from circuit.providers.registry import ProviderRegistry
from circuit.security.principal import EVERY_ROLE, Principal
from circuit.security.redactor import Redactor
from circuit.storage.records import CaseRow, CaseState, CaseStatus, CommandRow, CommandState, LogWrite
from circuit.streams.broker import Broker
from circuit.streams.publisher import Publisher

Answer = Any | Callable[[Mapping[str, Any]], Any] | BaseException
"""What an action gives: its outputs, a function of its inputs that gives them, or an error that it raises."""

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
MOST_STEPS = 100_000
_THREADS = 16


class StoppedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return self._at.timestamp()

    def move(self, to: datetime) -> None:
        self._at = max(self._at, to)


class Answering:
    """An action whose outputs a test says, in turn; the last answer is given again and again."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = list(answers)
        self.calls: list[ActionCall] = []

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        answer = self._answers[min(len(self.calls), len(self._answers) - 1)]
        self.calls.append(call)
        value = answer(call.inputs) if callable(answer) and not isinstance(answer, type) else answer
        if isinstance(value, BaseException):
            raise value
        output = as_json(f"the answer for {call.transition}", value)
        named: Mapping[str, Any] = output if isinstance(output, dict) else {}
        built_in = {"execution_id": call.execution_id, "timestamp": context.now().isoformat(), "output": output}
        return ActionOutput({**named, **built_in}, output if isinstance(output, str) else "", output)


class Performing:
    """Gives each call to the answers of its transition, where the test has some, else to the action of its kind."""

    def __init__(self, kinds: Mapping[str, Action], answering: Mapping[str, Answering]) -> None:
        self._kinds = kinds
        self._answering = answering

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        action = self._answering.get(call.transition) or self._kinds.get(call.kind)
        if action is None:
            raise InvalidRequest(
                f"transition {call.transition} is an action of the kind {call.kind}, which is not done in a test: give"
                f" its outputs, as in answers={{{call.transition!r}: {{...}}}}"
            )
        return await action.perform(call, context)


class Run:
    """One case in a test. What it says of itself is true between two calls of `settle`, `advance` and the commands."""

    def __init__(self, workflow: Workflow, state: CaseState, action: Action, clock: StoppedClock) -> None:
        self.workflow = workflow
        self.case_id = str(state.key)
        self.events: list[CaseEvent] = []
        self._clock = clock
        redactor = Redactor()
        self._owner = Owner(workflow, state, redaction=redactor.at("events", workflow.redaction))
        self._running: dict[asyncio.Task[Ended], tuple[int, Cutoff]] = {}
        self._said: dict[int, list[str]] = {}
        self._found: list[Screened] = []
        self._commands = 0
        broker = Broker()
        publisher = Publisher(self._log, broker, clock.now, lambda _: None)
        kinds = {spec.kind: action for spec in workflow.actions.values()}
        self._around = Surroundings(
            kinds, publisher, self._log, clock.now, redactor=redactor, screened=self._found.append
        )

    # What there is to be seen

    @property
    def now(self) -> datetime:
        """The instant that the run is at."""
        return self._clock.now()

    @property
    def status(self) -> str:
        """The status of the case."""
        return self._owner.memory.row.status.value

    def places(self) -> dict[str, int]:
        """How many tokens lie where; places without any are left out."""
        return dict(Counter(token.place for token in self.tokens()))

    def tokens(self, place: str | None = None) -> list[Token]:
        """The tokens of the case (or of one place), in the order of their numbers."""
        found = self._owner.memory.marking.all()
        return sorted((token for token in found if place in (None, token.place)), key=lambda token: token.number)

    def fired(self, transition: str) -> int:
        """How often a transition has completed."""
        return self._owner.memory.fired[transition]

    def incidents(self) -> list[str]:
        """The open incidents, each as `TRANSITION: CODE: MESSAGE`."""
        found = self._owner.memory.incidents.values()
        return [f"{one.transition}: {one.code}: {one.message}" for one in found]

    def waits(self) -> dict[str, Mapping[str, Any]]:
        """What is waited for (`kind`, `payload`, `roles`, `form`), by transition: tasks for people, mostly."""
        live = self._owner.memory.firings.values()
        return {one.row.transition: one.row.awaits for one in live if one.row.awaits is not None and not one.running}

    def said(self, transition: str) -> str:
        """What the latest execution of a transition has said as content."""
        begun = [event for event in self.events if isinstance(event, FiringBegun) and event.transition == transition]
        return "".join(self._said.get(begun[-1].firing, ())) if begun else ""

    # What moves it

    async def settle(self) -> None:
        """Go on until nothing moves at this instant."""
        for _ in range(MOST_STEPS):
            if not self._running:
                if not self._due():
                    return
                await self._apply(self._owner.wake(self.now))
                continue
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            while self._found:
                one = self._found.pop(0)
                step = self._owner.screened(one.firing, one.start, one.step, one.decision, one.event, self.now)
                await self._apply(step)
            for task in done:
                number, _ = self._running.pop(task)
                if not task.cancelled() and number in self._owner.memory.firings:
                    await self._end(task.result())
        raise AssertionError(f"the case did not settle within {MOST_STEPS} steps: {self.places()}")

    async def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let time pass: everything that is due on the way happens at its instant."""
        until = self.now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        await self.settle()
        while (due := self._next_due()) is not None and due <= until:
            self._clock.move(due)
            await self._apply(self._owner.wake(due))
            await self.settle()
        self._clock.move(until)
        await self.settle()

    async def fire(
        self,
        transition: str,
        form: Mapping[str, Any] | None = None,
        *,
        by: str = "test",
        roles: Iterable[str] = (EVERY_ROLE,),
    ) -> None:
        """Fire a manual transition, and settle. Raises `AssertionError` with the reason where the case refuses."""
        await self._ask("fire", {"transition": transition, "form": dict(form or {})}, by, roles)

    async def complete(
        self, transition: str, form: Mapping[str, Any], *, by: str = "test", roles: Iterable[str] = (EVERY_ROLE,)
    ) -> None:
        """Complete the task of a transition, and settle. Raises `AssertionError` where the case refuses."""
        sent = {"firing": self._waiting(transition), "key": TASK, "payload": dict(form)}
        await self._ask("signal", sent, by, roles)

    async def signal(self, transition: str, payload: Any = None, *, key: str | None = None, by: str = "test") -> None:
        """Send what a transition waits for, and settle. Raises `AssertionError` where the case refuses."""
        sent = {"firing": self._waiting(transition), "key": key, "payload": payload}
        await self._ask("signal", sent, by, (EVERY_ROLE,))

    async def send(
        self, name: str, data: Mapping[str, Any] | None = None, *, key: Sequence[str | int] = (), by: str = "test"
    ) -> None:
        """Send the case a message with its `key`, and settle. Raises `AssertionError` where it does not wait for it."""
        spelt = message_key(list(key))
        identity = uuid7(0, self._commands)
        sent = {"message": str(identity), "name": name, "key": spelt, "data": dict(data or {})}
        await self._ask("message", sent, by, (EVERY_ROLE,))

    async def retry(self) -> None:
        """Let what open incidents block be tried again, and settle."""
        await self._ask("retry", {}, "test", (EVERY_ROLE,))

    async def cancel(self) -> None:
        """End the case as it is."""
        await self._ask("cancel", {}, "test", (EVERY_ROLE,))

    async def close(self) -> None:
        """End what still runs."""
        for task, (_, cutoff) in self._running.items():
            cutoff.end()
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()

    # How

    async def _ask(self, kind: str, payload: Mapping[str, Any], by: str, roles: Iterable[str]) -> None:
        await self.settle()
        self._commands += 1
        principal = Principal(by, self._owner.memory.key.tenant, frozenset(roles))
        command = CommandRow(uuid7(0, self._commands), kind, payload, principal.as_dict())
        step = self._owner.command(command, self.now)
        await self._apply(step)
        settled = step.write.commands_settled if step.write is not None else []
        for result in settled:
            if result.state is CommandState.REFUSED:
                raise AssertionError(f"{kind} was refused: {result.result['error']['message']}")
        await self.settle()

    def _waiting(self, transition: str) -> int:
        for number, live in self._owner.memory.firings.items():
            if live.row.transition == transition:
                return number
        raise AssertionError(f"transition {transition} waits for nothing; {', '.join(self.waits()) or 'nothing'} does")

    async def _end(self, ended: Ended) -> None:
        owner, now = self._owner, self.now
        if ended.suspended is not None:
            step = owner.suspended(ended.firing, ended.start, ended.suspended, ended.recorded, ended.sequence, now)
        elif ended.output is not None:
            step = owner.completed(ended.firing, ended.start, ended.output, ended.sequence, now)
        else:
            assert ended.error is not None
            step = owner.failed(ended.firing, ended.start, ended.error, ended.sequence, now, ended.recorded)
        await self._apply(step)

    async def _apply(self, step: Step) -> None:
        while True:
            if step.write is not None:
                self.events += [event for _, event in step.write.events]
            for number in step.cancels:
                for task, (firing, cutoff) in self._running.items():
                    if firing == number:
                        cutoff.end()
                        task.cancel()
            for start in step.starts:
                self._start(start)
            if not step.again:
                return
            await asyncio.sleep(0)
            step = self._owner.wake(self.now)

    def _start(self, start: Start) -> None:
        cutoff = Cutoff()
        self._said[start.call.firing] = []
        task = asyncio.create_task(execute(start, self._around, cutoff), name=start.call.execution_id)
        self._running[task] = (start.call.firing, cutoff)

    async def _log(self, write: LogWrite) -> None:
        for row in write.frames:
            if row.frame.type is StreamType.CONTENT_CHUNK:
                self._said.setdefault(row.firing, []).append(orjson.loads(row.frame.body)["content"])

    def _next_due(self) -> datetime | None:
        return None if self._owner.memory.row.status.terminal else self._owner.due_at(self.now)

    def _due(self) -> bool:
        due = self._next_due()
        return due is not None and due <= self.now


@asynccontextmanager
async def running(
    workflow: Workflow | Path | str,
    data: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    answers: Mapping[str, Answer | list[Answer]] | None = None,
    actions: Sequence[Source] = (),
    environment: Mapping[str, str] | None = None,
    at: datetime = BEGINNING,
) -> AsyncGenerator[Run]:
    """A case of `workflow` (a path, the YAML text, or a loaded one) with this token, not yet moved.

    `answers` are by agent (its answers as the scripted provider takes them: text, or an object for a structured one) or
    by transition (the outputs of its action, whatever its kind). A list is given in turn. An agent without answers is
    given made-up ones that fit its `output_schema`. `actions` are functions that the workflow calls, as
    `Circuit.open` takes them. Raises `DefinitionError`, `TokenRefused`, and `InvalidRequest` for an answer of nobody.
    """
    loaded = workflow if isinstance(workflow, Workflow) else await asyncio.to_thread(_loaded, workflow)
    given = dict(answers or {})
    strangers = sorted(given.keys() - loaded.agents.keys() - loaded.actions.keys())
    if strangers:
        raise InvalidRequest(
            f"there are answers for {', '.join(strangers)}; workflow {loaded.id} has the agents"
            f" {', '.join(loaded.agents) or '(none)'} and the actions {', '.join(loaded.actions) or '(none)'}"
        )
    scripted = {
        name: {
            "type": "scripted",
            "model": "scripted",
            "options": {"responses": _listed(given[name])} if name in given else {},
        }
        for name in loaded.agents
    }
    answering = {name: Answering(_listed(value)) for name, value in given.items() if name in loaded.actions}
    registry = ProviderRegistry(environment or {})
    kinds: dict[str, Action] = {
        AGENT: AgentAction(registry),
        FUNCTION: FunctionAction(collect(actions), _THREADS, registry),
        HUMAN: HumanAction(),
    }
    clock = StoppedClock(at)
    state = _opened(loaded, TokenInput(dict(data or {}), dict(metadata or {})), scripted, at)
    run = Run(loaded, state, Performing(kinds, answering), clock)
    images = tuple(TokenImage(one.number, one.version, one.place, one.data, one.metadata) for one, _ in state.tokens)
    run.events.append(CaseStarted(loaded.id, loaded.hash, images, "test"))
    await run._apply(run._owner.wake(at))  # pyright: ignore[reportPrivateUsage]
    try:
        yield run
    finally:
        await run.close()
        await registry.aclose()


def _opened(workflow: Workflow, token: TokenInput, models: Mapping[str, Any], at: datetime) -> CaseState:
    """A new case, as its owner reads it."""
    tokens = opening_tokens(workflow, token if workflow.net.initial_place is not None else None, at)
    key = CaseKey(1, uuid7(int(at.timestamp() * 1000), 1))
    parameters = {"models": dict(models)} if models else {}
    row = CaseRow(workflow.id, workflow.hash, CaseStatus.RUNNING, 1, len(tokens) + 1, 1, 1, at, parameters=parameters)
    return CaseState(key, row, [(one, None) for one in tokens], [], [], [], [], {}, {})


def _listed(answer: Answer | list[Answer]) -> list[Answer]:
    return list(answer) if isinstance(answer, list) else [answer]


def _loaded(source: Path | str) -> Workflow:
    if isinstance(source, str) and "\n" in source:
        return load_workflow(source, "<text>")
    try:
        return load_workflow(Path(source).read_text(encoding="utf-8"), str(source), read=beside(Path(source)))
    except OSError as error:
        raise InvalidRequest(f"the workflow file {str(source)!r} cannot be read: {error.strerror}") from error

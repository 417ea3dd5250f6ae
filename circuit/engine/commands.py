"""What somebody may ask of Circuit: publish a workflow, start a case, fire a manual transition, send a signal,
retry, cancel.

Starting a case writes its first rows, for a new case has no owner. Everything else becomes a row that the case's owner
applies; the caller waits for the result, up to a time, and has the command's id after that. What can be refused
without the owner is refused at once; the owner judges again, for the case may have moved on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from circuit.definition.consultation import is_consultation
from circuit.definition.workflow import Workflow
from circuit.engine.asking import (
    LONGEST_KEY,
    check_fire,
    check_idempotency_key,
    check_subjects,
    fingerprint,
    meant,
    start_parameters,
    starts_agents,
    stored_object,
)
from circuit.engine.children import check_calls
from circuit.engine.chronicle import chronicle
from circuit.engine.conversations import take_along
from circuit.engine.grants import check_agents
from circuit.engine.hints import Hints
from circuit.engine.intake import Intake
from circuit.engine.modification import Modification
from circuit.engine.opening import TokenInput as TokenInput
from circuit.engine.opening import open_case, traced
from circuit.engine.petitions import DEFAULT_WAIT_SECONDS as DEFAULT_WAIT_SECONDS
from circuit.engine.petitions import CommandOutcome as CommandOutcome
from circuit.engine.petitions import OutcomeState as OutcomeState
from circuit.engine.petitions import Petitions
from circuit.engine.provenance import FeedbackView, check_feedback
from circuit.engine.rates import StartRates
from circuit.engine.versions import VersionKey, Versions
from circuit.errors import Conflict, InvalidRequest, NotFound
from circuit.ids import CaseKey, IdSource
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import commands, feedback, ledger, listing, streams, workflows
from circuit.storage.database import Database
from circuit.storage.records import CaseRow

LONGEST_REASON = 1_000


@dataclass(frozen=True, slots=True)
class Published:
    """A published version. `new` is False where the very same version was published before."""

    workflow_id: str
    hash: str
    new: bool

    def as_dict(self) -> dict[str, Any]:
        return {"workflow": self.workflow_id, "hash": self.hash, "new": self.new}


class Commands:
    """The door through which everything is asked. Each method acts in the tenant of its principal or key."""

    def __init__(
        self,
        database: Database,
        versions: Versions,
        ids: IdSource,
        now: Callable[[], datetime],
        hints: Hints,
        starts: StartRates | None = None,
    ) -> None:
        self._database = database
        petitions = Petitions(database, ids, hints, self._counted)
        self.ask = petitions.ask
        self.outcome = petitions.outcome
        self._versions = versions
        self._ids = ids
        self._now = now
        self._hints = hints
        self._starts = starts
        self._intake = Intake(database)

    async def publish(self, workflow: Workflow, principal: Principal) -> Published:
        """Make `workflow` the current version of its id. Publishing the same version again changes nothing.

        Raises `Forbidden`, and `InvalidRequest` where it calls a workflow that there is not, or that does not take what
        it is given."""
        principal.require(Permission.EDIT)
        async with self._database.transaction(principal.tenant) as connection:
            await check_calls(connection, principal.tenant, workflow)
            await check_agents(connection, principal.tenant, workflow)
            new = await workflows.publish(connection, principal.tenant, workflow, principal.subject)
            await ledger.note(connection, principal, "workflow.publish", workflow.id, hash=workflow.hash)
        return Published(workflow.id, workflow.hash, new)

    async def retire(self, workflow_id: str, principal: Principal, *, retired: bool = True) -> bool:
        """Let no new cases of a workflow begin (those that run go on), or with `retired=False` let them begin again.
        Returns whether that changed anything. Raises `NotFound`, `Forbidden`."""
        principal.require(Permission.EDIT)
        async with self._database.transaction(principal.tenant) as connection:
            changed = await workflows.retire(connection, principal.tenant, workflow_id, retired=retired)
            if changed:
                action = "workflow.retire" if retired else "workflow.unretire"
                await ledger.note(connection, principal, action, workflow_id)
        if changed is None:
            raise await self._no_workflow(principal.tenant, workflow_id)
        return changed

    async def start_case(
        self,
        workflow_id: str,
        token: TokenInput | None,
        *,
        principal: Principal,
        parameters: Mapping[str, Any] | None = None,
        conversations: Mapping[str, str] | None = None,
        key: str | None = None,
        subjects: Collection[str] = (),
    ) -> CaseKey:
        """Start a case of the current version of a workflow; with an idempotency `key`, at most once: the same request
        again is answered with the same case, and another one with `Conflict`.

        `parameters` may hold `models`: `{agent id or "*": {"type", "model", "options"?}}`. `conversations` are those
        that agents go on with, by agent id: they are forked for the case, whole. `subjects` are those whom it is about,
        beside those that its workflow finds in its tokens. Raises `NotFound`,
        `Conflict` for a workflow that is retired, `TokenRefused` with every fault of the token, `PayloadTooLarge`,
        `InvalidRequest`, `Forbidden`.
        """
        principal.require(Permission.RUN)
        check_idempotency_key(key)
        wanted = start_parameters(parameters)
        request = fingerprint(
            key,
            {
                "workflow": workflow_id,
                "token": None if token is None else [token.data, token.metadata],
                "parameters": wanted,
                "conversations": conversations or {},
                "subjects": list(subjects),
            },
        )
        current = await self._intake.pointer(principal.tenant, workflow_id)
        if current is not None and current.retired_at is not None and key is not None:
            # Asked again: the answer is what it was.
            async with self._database.transaction(principal.tenant) as connection:
                before = await commands.started_with(connection, principal.tenant, key, request)
            if before is not None:
                return before
        if current is None:
            raise await self._no_workflow(principal.tenant, workflow_id)
        if current.retired_at is not None:
            raise Conflict(
                f"workflow {workflow_id} is retired: its cases go on, and no new ones begin;"
                " `circuit unretire` lets them begin again"
            )
        workflow = await self._version(VersionKey(principal.tenant, workflow_id, current.hash))
        return await self.begin(
            workflow,
            token,
            principal=principal,
            parameters=wanted,
            conversations=conversations,
            key=key,
            request=request,
            subjects=subjects,
        )

    async def begin(
        self,
        workflow: Workflow,
        token: TokenInput | None,
        *,
        principal: Principal,
        parameters: Mapping[str, Any],
        conversations: Mapping[str, str] | None = None,
        key: str | None = None,
        request: str | None = None,
        subjects: Collection[str] = (),
    ) -> CaseKey:
        """Start a case of this very version, which is stored, with parameters that were looked at. `request` is the
        hash of what was asked for, by which one that comes again with its key is known. Raises as `start_case` does."""
        principal.require(Permission.RUN)
        check_idempotency_key(key)
        wanted = stored_object(dict(parameters), "the parameters")
        check_subjects(subjects)
        limited = self._starts if workflow.agents else None
        case = CaseKey(principal.tenant, self._ids.uuid())
        new = open_case(workflow, token, case, self._now(), principal.subject, wanted, subjects)
        new = traced(new, self._hints.caller())
        entry = ledger.entry(principal, "case.start", case, workflow=workflow.id)
        if key is None and not conversations:
            if limited is not None:
                await limited.check(principal)
            await self._intake.put(new, entry)
            started = case
        else:
            async with self._database.transaction(principal.tenant) as connection:
                started = await commands.write_case(connection, new, key, request)
                # With a key it was not known yet whether this starts anything.
                if started == case:
                    if limited is not None:
                        await limited.check(principal, connection)
                    await take_along(connection, case, workflow, conversations or {}, principal)
                    await ledger.write(connection, [entry])
        if started == case:
            chronicle(case, [(new.row.started_at, new.event)])
        self._hints.work()
        return started

    async def fire(
        self,
        key: CaseKey,
        transition: str,
        form: Mapping[str, Any] | None = None,
        *,
        principal: Principal,
        idempotency_key: str | None = None,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
    ) -> CommandOutcome:
        """Fire a manual transition with its form. Raises `NotFound`, `Conflict` for a case that has ended,
        `InvalidRequest` for a transition that is not there or not manual or a form that does not fit, `Forbidden`."""
        filled = stored_object(dict(form or {}), "the form")
        payload = {"transition": transition, "form": filled}

        async def check(row: CaseRow) -> None:
            workflow = await self._workflow_of(key, row)
            check_fire(workflow, transition, filled, principal)

        return await self.ask(key, "fire", payload, principal, idempotency_key, wait_seconds, check)

    async def signal(
        self,
        key: CaseKey,
        firing: int,
        payload: Any = None,
        *,
        wait: str | None = None,
        principal: Principal,
        idempotency_key: str | None = None,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
    ) -> CommandOutcome:
        """Send a firing what it waits for: its wait of the key `wait`, or without one whatever it waits for. A firing
        that does not wait yet gets it as soon as it does. Raises `NotFound`, `Conflict`, `InvalidRequest`, and
        `Forbidden`, where it waits for somebody of another role."""
        if wait is not None and len(wait) > LONGEST_KEY:
            raise InvalidRequest(f"the key of a wait has at most {LONGEST_KEY} characters")
        sent = stored_object({"firing": firing, "key": wait, "payload": payload}, "the signal")

        async def check(row: CaseRow) -> None:
            async with self._database.transaction(key.tenant) as connection:
                found = await listing.firing(connection, key, firing)
            asked = (found.awaits or {}).get("roles") or () if found is not None else ()
            principal.require_task(asked, f"what {key}.{firing} waits for")

        # Whoever may run cases may signal; whether he holds the role that is asked for is for the owner to say.
        asks = None if principal.can(Permission.RUN) else check
        return await self.ask(key, "signal", sent, principal, idempotency_key, wait_seconds, asks)

    async def retry(
        self,
        key: CaseKey,
        incident: int | None = None,
        *,
        principal: Principal,
        idempotency_key: str | None = None,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
    ) -> CommandOutcome:
        """Let what an incident (or every open one) keeps from firing try again. Raises `NotFound`, `Conflict`."""
        payload = {} if incident is None else {"incident": incident}
        return await self.ask(key, "retry", payload, principal, idempotency_key, wait_seconds)

    async def resolve(
        self,
        key: CaseKey,
        incident: int,
        changes: Mapping[str, Any],
        token: int | None = None,
        *,
        principal: Principal,
        idempotency_key: str | None = None,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
    ) -> CommandOutcome:
        """Change the data of the tokens that an incident is about (or of one of them), and let it be tried again.

        `changes` are values by dotted path (`data.NAME`, `metadata.NAME`); the colour of the place judges the result.
        Raises `NotFound`, `Conflict`, `InvalidRequest`.
        """
        if not changes:
            raise InvalidRequest("nothing is set: name at least one path, or retry the incident as it is")
        payload: dict[str, Any] = {"incident": incident, "set": stored_object(dict(changes), "what is set")}
        if token is not None:
            payload["token"] = token
        return await self.ask(key, "resolve", payload, principal, idempotency_key, wait_seconds)

    async def put_back(
        self,
        key: CaseKey,
        token: int | None = None,
        place: str | None = None,
        *,
        principal: Principal,
        idempotency_key: str | None = None,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
    ) -> CommandOutcome:
        """Put tokens from dead-letter places (or one of them) back to where they were taken from, or into `place`.
        Raises `NotFound`, `Conflict`."""
        payload = {name: value for name, value in (("token", token), ("place", place)) if value is not None}
        return await self.ask(key, "put_back", payload, principal, idempotency_key, wait_seconds)

    async def modify(
        self,
        key: CaseKey,
        wanted: Modification,
        *,
        principal: Principal,
        idempotency_key: str | None = None,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
    ) -> CommandOutcome:
        """Put, take, move and change tokens of a live case, all of it or nothing. Raises `NotFound`, `Conflict`,
        `InvalidRequest`, `PayloadTooLarge`."""
        return await self.ask(key, "modify", wanted.as_payload(), principal, idempotency_key, wait_seconds)

    async def cancel(
        self,
        key: CaseKey,
        reason: str = "",
        *,
        principal: Principal,
        idempotency_key: str | None = None,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
    ) -> CommandOutcome:
        """End a case as cancelled; what runs of it is cancelled. Raises `NotFound`, `Conflict`."""
        if len(reason) > LONGEST_REASON:
            raise InvalidRequest(f"the reason has {len(reason)} characters; at most {LONGEST_REASON} are kept")
        payload = stored_object({"reason": reason}, "the reason")
        return await self.ask(key, "cancel", payload, principal, idempotency_key, wait_seconds)

    async def abandon(self, key: CaseKey, *, principal: Principal) -> CommandOutcome:
        """End a consultation for whose answer nobody waits any more: whoever may ask may do that. Returns before it has
        ended. Raises `NotFound`, `Conflict`, `Forbidden`."""
        payload = {"reason": "whoever asked went away"}

        async def check(row: CaseRow) -> None:
            principal.require(Permission.RUN if is_consultation(row.workflow_id) else Permission.OPERATE)

        return await self.ask(key, "cancel", payload, principal, None, 0, check)

    async def give_feedback(
        self,
        key: CaseKey,
        firing: int,
        *,
        principal: Principal,
        score: float | None = None,
        comment: str = "",
        idempotency_key: str | None = None,
    ) -> FeedbackView:
        """Say what an execution was worth; with an idempotency key, once. It asks nothing of the case, so it is written
        at once, also after the end. Raises `NotFound`, `InvalidRequest`, `Forbidden`."""
        principal.require(Permission.RUN)
        check_idempotency_key(idempotency_key)
        check_feedback(score, comment)
        async with self._database.transaction(principal.tenant) as connection:
            if key.tenant != principal.tenant or await streams.execution(connection, key, firing) is None:
                raise NotFound(f"there is no execution {key}.{firing}")
            row = await feedback.insert(
                connection,
                key,
                firing,
                self._ids.uuid(),
                score=score,
                comment=comment,
                subject=principal.subject,
                idempotency_key=idempotency_key,
            )
            await ledger.note(connection, principal, "execution.feedback", f"{key}.{firing}")
        return FeedbackView.of(row)

    # -- workflows --------------------------------------------------------------------------------------------------

    async def _counted(self, key: CaseKey, row: CaseRow, kind: str, payload: Mapping[str, Any]) -> StartRates | None:
        """Against which rate a command counts, if it does."""
        if self._starts is None or not starts_agents(await self._workflow_of(key, row), kind, payload):
            return None
        return self._starts

    async def _workflow_of(self, key: CaseKey, row: CaseRow) -> Workflow:
        return await self._version(VersionKey(key.tenant, row.workflow_id, row.workflow_hash))

    async def _version(self, version: VersionKey) -> Workflow:
        if self._versions.known(version):
            return self._versions.get(version)
        return self._versions.compiled(version, await self._intake.document(*version))

    async def _no_workflow(self, tenant: int, workflow_id: str) -> NotFound:
        async with self._database.transaction(tenant) as connection:
            known = [listed.workflow_id for listed in await workflows.list_current(connection, tenant)]
        return NotFound(
            f"there is no workflow {workflow_id!r}{meant(workflow_id, known)}; publish it with `circuit load`"
        )

"""The tables, all in the schema `circuit`. `docs/reference/tables.md` explains each column; the migrations make them.

**Who writes.** Only the worker that owns a case (`case.owner`) changes its marking (`token`), its `firing`s, its
`journal`, its `execution`s and its `history`, and all of one step in one commit. Whoever else wants something of a
case inserts a row into `command` and one into `ready`. Starting a case is the exception: a new case has no owner, so
whoever starts it writes its `case`, `token`, first `history` and `ready` rows itself.

**Who owns.** Each start of a worker is a row in `worker`. Every batch of writes takes that row `FOR SHARE` and counts
only if it is not `fenced`. `worker_lease` holds the expiry apart from it, so that renewing a lease never waits for a
batch. A case without an owner that has work has a row in `ready`.

**Keys.** All data of a case leads with `(tenant_id, case_id)` and then an integer that counts inside the case, so
that distribution by tenant stays open. A case id is a UUIDv7: it sorts by birth, and the big tables are partitioned
by week of birth (`circuit.storage.partitions`). No foreign key leaves a big table: one costs as much as the write.

**What changes.** `case`, `token`, `firing` and `worker_lease` rows change often: no index holds what changes there
and their pages are half filled, so that updates stay heap-only. All else is inserted, and at most settled once.

**Row security.** The role `circuit_engine` sees every tenant; the role `circuit_tenant` sees the one that the setting
`circuit.tenant` of its transaction names, and nothing without it.
"""

from __future__ import annotations

from circuit.storage.tables.agents import agent_grant, cached_answer, conversation, message
from circuit.storage.tables.budgets import budget, charge
from circuit.storage.tables.cases import (
    artefact,
    artefact_use,
    bucket,
    case,
    case_key,
    command,
    execution,
    firing,
    history,
    incident,
    journal,
    ready,
    stream_event,
    token,
)
from circuit.storage.tables.definitions import (
    agent,
    agent_version,
    compatibility,
    prompt_version,
    publication,
    tenant,
    workflow,
    workflow_version,
)
from circuit.storage.tables.limits import (
    concurrency_limit,
    provider_ration,
    request_rate,
    start_rate,
    worker_share,
    wrong_credential,
)
from circuit.storage.tables.messages import awaited_message, sent_message
from circuit.storage.tables.names import (
    ENGINE_ROLE,
    FENCED,
    GUARD_LOST,
    SCHEMA,
    TENANT_ROLE,
    TENANT_SETTING,
    TERMINAL,
    Document,
    Instant,
    Verbatim,
    metadata,
)
from circuit.storage.tables.operation import (
    api_key,
    archive_week,
    audit_log,
    feedback,
    hold,
    outbox,
    outbox_consumer,
    resource,
    stream_compaction,
    worker,
    worker_lease,
    worker_request,
)
from circuit.storage.tables.subjects import case_subject

PARTITIONED = tuple(
    table.name for table in metadata.tables.values() if table.dialect_options["postgresql"].get("partition_by")
)
"""The tables that are partitioned by week of birth."""

__all__ = [
    "ENGINE_ROLE",
    "FENCED",
    "GUARD_LOST",
    "PARTITIONED",
    "SCHEMA",
    "TENANT_ROLE",
    "TENANT_SETTING",
    "TERMINAL",
    "Document",
    "Instant",
    "Verbatim",
    "agent",
    "agent_grant",
    "agent_version",
    "api_key",
    "archive_week",
    "artefact",
    "artefact_use",
    "audit_log",
    "awaited_message",
    "bucket",
    "budget",
    "cached_answer",
    "case",
    "case_key",
    "case_subject",
    "charge",
    "command",
    "compatibility",
    "concurrency_limit",
    "conversation",
    "execution",
    "feedback",
    "firing",
    "history",
    "hold",
    "incident",
    "journal",
    "message",
    "metadata",
    "outbox",
    "outbox_consumer",
    "prompt_version",
    "provider_ration",
    "publication",
    "ready",
    "request_rate",
    "resource",
    "sent_message",
    "start_rate",
    "stream_compaction",
    "stream_event",
    "tenant",
    "token",
    "worker",
    "worker_lease",
    "worker_request",
    "worker_share",
    "workflow",
    "workflow_version",
    "wrong_credential",
]

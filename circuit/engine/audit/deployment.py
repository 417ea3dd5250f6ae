"""I3 and I10, beyond single cases: the workers and their leases, rows of cases that are not there, dead rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from circuit.engine.audit.fault import RECLAIM, Fault
from circuit.ids import CaseKey
from circuit.storage import audit, budgets, kinship, resources
from circuit.storage.archive import ArchiveRow
from circuit.storage.driver import Connection
from circuit.storage.rows import plain

GRACE_SECONDS = 60.0
"""How long after its lease a dead worker may keep its cases while others live: a lease of 15 s and two sweeps."""


MOST_FAULTS = 1_000
"""How many faulty holds are named."""


async def check(conn: Connection) -> tuple[list[Fault], list[str]]:
    """What is wrong with the workers' rows, and what is worth knowing."""
    faults: list[Fault] = []
    notes: list[str] = []
    found = await audit.workers(conn)
    helpers = [row for row in found if row["alive"] and not row["fenced"] and row["age_seconds"] > GRACE_SECONDS]
    for row in found:
        worker = str(plain(row["id"]))
        if row["fenced"] and row["leased"]:
            faults.append(_of_worker("I10", "worker_lease", worker, "its worker is fenced: the lease is never removed"))
        if not row["fenced"] and not row["leased"]:
            faults.append(_of_worker("I3", "worker", worker, "it lives and has no lease", RECLAIM))
        over = row["lease_over_seconds"] or 0.0
        if row["fenced"] or over <= 0 or not row["cases"]:
            continue
        told = f"worker {worker} is dead for {over:.0f} s and has {row['cases']} cases"
        if helpers and over > GRACE_SECONDS:
            faults.append(_of_worker("I3", "worker", worker, f"{told}; others live and did not take over", RECLAIM))
        else:
            notes.append(f"{told}; the next worker that starts takes them over")
    for worker in await audit.stray_leases(conn):
        told = "there is no such worker"
        faults.append(_of_worker("I10", "worker_lease", str(worker), told))
    faults += await _holds(conn)
    faults += await _kin(conn)
    faults += await _budgets(conn, len(helpers) > 0)
    for row in await audit.dead_rows(conn):
        told = f"{row['dead']} dead rows for {row['live']} living ones"
        notes.append(f"I10: table {row['table']}: {told}; see whether autovacuum runs")
    return faults, notes


async def _holds(conn: Connection) -> list[Fault]:
    """I7: what is free of a shared place is its capacity less what living firings hold."""
    faults: list[Fault] = []
    for row in await resources.stray(conn, MOST_FAULTS):
        key = {name: row[name] for name in ("tenant_id", "workflow_id", "place", "case_id", "firing")}
        told = "its firing does not live: what it holds is never given back"
        faults.append(Fault("I7", "hold", key, told, "delete the row"))
    for row in await resources.overdrawn(conn, MOST_FAULTS):
        key = {name: row[name] for name in ("tenant_id", "workflow_id", "place")}
        told = f"{row['amount']} of it are granted, and there are {row['capacity']}"
        faults.append(Fault("I7", "resource", key, told, "wait until firings end, and report it as a fault of Circuit"))
    return faults


async def _kin(conn: Connection) -> list[Fault]:
    """I3 and I6: who waits for a case hears of its end, and a case does not outlive who waits for it."""
    faults: list[Fault] = []
    for row in await kinship.untold(conn, MOST_FAULTS):
        key = {"tenant_id": row["tenant_id"], "case_id": str(row["case_id"]), "number": row["firing"]}
        told = f"it waits for case {row['child']}, which has ended, and nothing will tell it"
        faults.append(Fault("I3", "firing", key, told, "cancel the case, or report it as a fault of Circuit"))
    for row in await kinship.orphaned(conn, MOST_FAULTS):
        key = {"tenant_id": row["tenant_id"], "case_id": str(row["case_id"])}
        told = f"execution {row['parent_case']}.{row['parent_firing']}, which opened it, does not wait for it any more"
        faults.append(Fault("I6", "case", key, told, f"circuit cancel {row['case_id']}"))
    return faults


async def _budgets(conn: Connection, helped: bool) -> list[Fault]:
    """I7 and I9: what a lost worker left open is settled, and no budget is passed."""
    faults: list[Fault] = []
    for row in await budgets.stray(conn, GRACE_SECONDS, MOST_FAULTS) if helped else ():
        key = {name: row[name] for name in ("tenant_id", "case_id", "firing", "start", "number")}
        faults.append(Fault("I7", "charge", key, "its worker is over, and nobody has settled it", RECLAIM))
    for row in await budgets.overdrawn(conn, MOST_FAULTS):
        key = {name: row[name] for name in ("tenant_id", "scope", "subject")}
        told = f"more is spent and held of it than there is: {row['passed']}"
        faults.append(Fault("I9", "budget", key, told, "raise it, and report it as a fault of Circuit"))
    return faults


def strays(page: audit.Page, leaving: Sequence[ArchiveRow]) -> Iterator[Fault]:
    """Rows of cases that are not there, between the bounds of a page; not those that the archive is about to drop."""
    for table, key, rows in page.strays:
        if not any(week.state == "written" and week.lower <= key.case < week.upper for week in leaving):
            yield _stray(table, key, rows)


def _stray(table: str, key: CaseKey, rows: int) -> Fault:
    return Fault(
        "I10",
        table,
        {"tenant_id": key.tenant, "case_id": str(key.case)},
        f"{rows} row{'' if rows == 1 else 's'} of a case that is not there: nothing will ever remove them",
        "restore the case from a backup, or delete these rows",
    )


def _of_worker(invariant: str, table: str, worker: str, message: str, remedy: str = "") -> Fault:
    column = "id" if table == "worker" else "worker_id"
    return Fault(invariant, table, {column: worker}, message, remedy or "delete the row")

"""I3: what a case refers to is there, is what its hash says, and is kept for the case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from circuit.engine.audit.fault import LOST, Fault, of_case
from circuit.storage import artefacts, payloads
from circuit.storage.audit import StoredCase

KEEP = "add the row to artefact_use, and report it as a fault of Circuit"


def check(case: StoredCase) -> Iterator[Fault]:
    """What is wrong with the artefacts of a case, as far as they are referred to outside of its history."""
    for row in case.rows["artefact_use"]:
        name: str = row["hash"]
        if not row["there"]:
            yield of_case("I3", case.key, "artefact", "the case refers to it, and it is not there", LOST, hash=name)
        elif not row["right"]:
            yield of_case("I3", case.key, "artefact", "its content is not what its hash says", LOST, hash=name)
    for table in ("token", "firing"):
        for row in case.rows[table]:
            yield from unkept(case, table, artefacts.hashes(row), number=row["number"])
    for row in case.rows["referring"]:
        named = [one[0] for one in payloads.references(orjson.loads(row["value"]))]
        yield from unkept(case, row["of"], named, number=row["number"], part=row["part"])


def unkept(case: StoredCase, table: str, named: Iterable[str], **key: int | str) -> Iterator[Fault]:
    """References of a row for which nothing keeps what they refer to."""
    used = {row["hash"] for row in case.rows["artefact_use"]}
    for name in named:
        if name not in used:
            told = f"it refers to the artefact {name[:12]}, which is not kept for the case"
            yield of_case("I3", case.key, table, told, KEEP, **key)

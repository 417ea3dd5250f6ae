"""Erases cases from the files of an archived week. It blocks: call it in a thread.

A week is written anew beside itself, under another name, and read again; then the database is told the new name, and
what lay there before goes (`forget_others`). So there is no moment at which the week is half written.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from circuit.engine.archive.folder import WeekWriter, lines_of
from circuit.engine.tombstone import erased_row
from circuit.ids import CaseKey
from circuit.storage.artefacts import whole_rows


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A week without what was erased: where it lies now, its manifest, which of the cases it holds, and how many rows
    changed in each table."""

    place: Path
    manifest: Mapping[str, Any]
    held: frozenset[CaseKey]
    changed: Counter[str]


def rewrite(place: Path, manifest: Mapping[str, Any], cases: Collection[CaseKey], *, dry_run: bool) -> Rewritten:
    """Erase these cases from the week at `place`; with `dry_run`, or where nothing of them is left, only count. Raises
    `ArchiveDamaged`, `OSError`."""
    wanted = {(key.tenant, str(key.case)) for key in cases}
    changed, held = Counter[str](), set[CaseKey]()
    for part in _parts(manifest):
        for case in _cases(place / part["file"]):
            if case.key in wanted:
                held.add(CaseKey(case.key[0], UUID(case.key[1])))
                changed += _erased(case)[1]
    if dry_run or not changed:
        return Rewritten(place, manifest, frozenset(held), changed)
    name = _next_name(place, manifest)
    writer = WeekWriter(place.parent, name)
    writer.begin()
    try:
        for part in manifest["parts"]:
            _copy(writer, place / part["file"], wanted, whole=part["first"] is not None)
        about = {key: manifest[key] for key in manifest if key not in ("format", "cases", "rows", "parts")}
        written = writer.finish({**about, "erasures": _erasures(manifest) + 1})
        return Rewritten(place.parent / name, written, frozenset(held), changed)
    except BaseException:
        writer.abandon()
        raise


def forget_others(place: Path, manifest: Mapping[str, Any]) -> None:
    """Remove what lies beside a week of its earlier selves."""
    name = _name(manifest)
    for other in (place.parent / name, place.parent / f"{name}.partial", *place.parent.glob(f"{name}-erased-*")):
        if other != place and other.is_dir():
            shutil.rmtree(other)


@dataclass(frozen=True, slots=True)
class _Case:
    """A case in a file: its rows with their tables and their texts, its own first."""

    key: tuple[int, str]
    rows: list[tuple[str, dict[str, Any], str]]


def _copy(writer: WeekWriter, path: Path, wanted: Collection[tuple[int, str]], *, whole: bool) -> None:
    if not whole:
        for line, text in lines_of(path):
            writer.add_row(path.name.removesuffix(".jsonl.gz"), line["table"], text)
        return
    for case in _cases(path):
        lines = _erased(case)[0] if case.key in wanted else [(table, text) for table, _, text in case.rows]
        others: dict[str, list[str]] = {}
        for table, text in lines[1:]:
            others.setdefault(table, []).append(text)
        writer.add_case(CaseKey(case.key[0], UUID(case.key[1])), lines[0][1], others)


def _cases(path: Path) -> Iterator[_Case]:
    """The cases of a file, one at a time."""
    case: _Case | None = None
    for line, text in lines_of(path):
        table, row = line["table"], line["row"]
        if table == "case":
            if case is not None:
                yield case
            case = _Case((row["tenant_id"], row["case_id"]), [])
        assert case is not None, f"{path} does not begin with a case"
        case.rows.append((table, row, text))
    if case is not None:
        yield case


def _erased(case: _Case) -> tuple[list[tuple[str, str]], Counter[str]]:
    """The lines of a case without what it held, and how many rows that changes. Its artefacts go."""
    contents = {row["hash"]: row["content"] for table, row, _ in case.rows if table == "artefact"}
    lines: list[tuple[str, str]] = []
    changed = Counter[str]()
    for table, row, text in case.rows:
        if table.startswith("artefact"):
            changed["artefact"] += table == "artefact"
            continue
        [whole] = whole_rows([row], contents)
        changes = erased_row(table, whole, row)
        changed[table] += bool(changes)
        lines.append((table, orjson.dumps({**row, **changes}).decode() if changes else text))
    return lines, +changed


def _parts(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part for part in manifest["parts"] if part["first"] is not None]


def _erasures(manifest: Mapping[str, Any]) -> int:
    return int(manifest.get("erasures", 0))


def _name(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['week']}-{manifest['round']}"


def _next_name(place: Path, manifest: Mapping[str, Any]) -> str:
    return f"{_name(manifest)}-erased-{_erasures(manifest) + 1}"

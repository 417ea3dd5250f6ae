"""The files of archived weeks: JSON lines, compressed, with a manifest that holds their hashes.

    FOLDER/2026w40-1/manifest.json      the week, how many rows of each table, the parts and their hashes
    FOLDER/2026w40-1/part-0001.jsonl.gz {"table": "case", "row": {...}} and all other rows of each case after it
    FOLDER/2026w40-1/keys.jsonl.gz      the idempotency keys of the cases' starts
    FOLDER/2026w40-1/versions.jsonl.gz  the workflow versions that the cases ran on

A week is written beside its place and renamed when it is whole and on the disk. All of it blocks: call it in a thread.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from circuit.errors import ArchiveDamaged
from circuit.ids import CaseKey

FORMAT = 1
PART_BYTES = 64 * 1024 * 1024
"""How much a part holds before it is compressed; a case is never divided."""
LEVEL = 6


@dataclass(slots=True)
class Part:
    """One file while it is written."""

    name: str
    file: gzip.GzipFile
    lines: int = 0
    bytes: int = 0
    cases: int = 0
    first: tuple[int, str] | None = None
    last: tuple[int, str] | None = None


@dataclass(slots=True)
class WeekWriter:
    """Writes one week. `add_case` and `add_row` append, `finish` gives the manifest; without it nothing remains."""

    folder: Path
    name: str
    rows: Counter[str] = field(default_factory=Counter[str])
    cases: int = 0
    _parts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _part: Part | None = None

    @property
    def _beside(self) -> Path:
        return self.folder / f"{self.name}.partial"

    def begin(self) -> None:
        """Make the place; what an earlier try left there goes. Raises `OSError` where nothing can be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._beside, ignore_errors=True)
        self._beside.mkdir()

    def add_case(self, key: CaseKey, row: str, others: Mapping[str, list[str]]) -> None:
        """A case: its row, and its rows of other tables. All cases come before what is `add_row`ed."""
        part = self._part
        if part is None or part.bytes >= PART_BYTES:
            number = len(self._parts) + (1 if part is None else 2)
            part = self._open(f"part-{number:04}.jsonl.gz")
        self._line(part, "case", row)
        for table, found in others.items():
            for line in found:
                self._line(part, table, line)
        part.cases += 1
        part.first = part.first or (key.tenant, str(key.case))
        part.last = (key.tenant, str(key.case))
        self.cases += 1

    def add_row(self, file: str, table: str, row: str) -> None:
        """A row that belongs to no single case, into a file of its own."""
        part = self._part
        if part is None or part.name != f"{file}.jsonl.gz":
            part = self._open(f"{file}.jsonl.gz")
        self._line(part, table, row)

    def finish(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Close the parts, write the manifest, read everything again, and put the week in its place."""
        self._close()
        manifest = {
            "format": FORMAT,
            **about,
            "cases": self.cases,
            "rows": dict(sorted(self.rows.items())),
            "parts": self._parts,
        }
        path = self._beside / "manifest.json"
        path.write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        _to_disk(path)
        verify(self._beside, manifest)
        place = self.folder / self.name
        shutil.rmtree(place, ignore_errors=True)
        self._beside.rename(place)
        _to_disk(self.folder)
        return manifest

    def abandon(self) -> None:
        """Remove what was written."""
        if self._part is not None:
            self._part.file.close()
        shutil.rmtree(self._beside, ignore_errors=True)

    def _open(self, name: str) -> Part:
        self._close()
        self._part = Part(name, gzip.GzipFile(self._beside / name, "wb", LEVEL))
        return self._part

    def _close(self) -> None:
        part = self._part
        if part is None:
            return
        part.file.close()
        path = self._beside / part.name
        _to_disk(path)
        self._parts.append(
            {
                "file": part.name,
                "sha256": digest(path),
                "bytes": path.stat().st_size,
                "lines": part.lines,
                "cases": part.cases,
                "first": part.first,
                "last": part.last,
            }
        )
        self._part = None

    def _line(self, part: Part, table: str, row: str) -> None:
        line = f'{{"table":"{table}","row":{row}}}\n'.encode()
        part.file.write(line)
        part.lines += 1
        part.bytes += len(line)
        # The names of tables are of a class of their own, which the encoder does not take for text.
        self.rows[str(table)] += 1


def verify(place: Path, manifest: Mapping[str, Any]) -> None:
    """Read a week and compare it with its manifest. Raises `ArchiveDamaged`."""
    rows: Counter[str] = Counter()
    for part in manifest["parts"]:
        path = place / part["file"]
        try:
            if digest(path) != part["sha256"]:
                raise ArchiveDamaged(
                    f"{path} is not what its manifest says: its hash differs; restore it from a backup"
                )
            lines = 0
            for line in _lines(path):
                lines += 1
                rows[line["table"]] += 1
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ArchiveDamaged(f"{path} cannot be read: {error}; restore it from a backup") from error
        if lines != part["lines"]:
            raise ArchiveDamaged(f"{path} has {lines} lines, its manifest says {part['lines']}")
    if dict(rows) != manifest["rows"]:
        raise ArchiveDamaged(f"{place} has other rows than its manifest says")


def read_manifest(place: Path) -> dict[str, Any]:
    """The manifest of an archived week. Raises `ArchiveDamaged`."""
    try:
        return orjson.loads((place / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ArchiveDamaged(f"{place} has no manifest that can be read: {error}") from error


def find_case(place: Path, manifest: Mapping[str, Any], key: CaseKey) -> dict[str, list[dict[str, Any]]] | None:
    """The rows of one case by table, or None if the week does not hold it. Raises `ArchiveDamaged`."""
    wanted = [key.tenant, str(key.case)]
    for part in manifest["parts"]:
        if part["first"] is None or not list(part["first"]) <= wanted <= list(part["last"]):
            continue
        found: dict[str, list[dict[str, Any]]] = {}
        try:
            # All rows of a case follow its own.
            here = False
            for line in _lines(place / part["file"]):
                row = line["row"]
                if line["table"] == "case":
                    if found:
                        break
                    here = [row["tenant_id"], row["case_id"]] == wanted
                if here:
                    found.setdefault(line["table"], []).append(row)
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ArchiveDamaged(f"{place / part['file']} cannot be read: {error}") from error
        if found:
            return found
    return None


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def lines_of(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The lines of a file, each with the text of its row. Raises `ArchiveDamaged`."""
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                read = orjson.loads(line)
                head = f'{{"table":"{read["table"]}","row":'
                yield read, line.decode()[len(head) :].rstrip("\n")[:-1]
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ArchiveDamaged(f"{path} cannot be read: {error}; restore it from a backup") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") as file:
        for line in file:
            yield orjson.loads(line)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""What a writer puts aside as artefacts, and what it knows to be there.

A worker of a release that knows no artefacts would take a reference for data. So a case needs, from the very commit
that holds its first reference on, a worker with the feature `FEATURE`: the commit brings it into another bucket. A case
without large payloads stays as it is, for every worker. Which bucket that is says the database, which also says that
there is none as long as a worker lives that heeds no buckets; then everything stays where it was.

A batch is worked out against a `Batch`: what it `put`s, which case `uses` what, and which cases it `raises`. When it is
committed the shelf remembers it, so that what a case refers to already is not sent a second time: nothing takes that
away while the case lives.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import orjson

from circuit.ids import CaseKey
from circuit.storage import payloads
from circuit.storage.driver import Connection
from circuit.storage.payloads import LIMIT, MARK, PLAIN, Artefact, Shape

FEATURE = "artefacts"
"""By what workers say that they know of artefacts, and cases that they need such a one."""
MOST_KNOWN = 50_000
ASK_AGAIN_SECONDS = 30.0
"""After so long the database is asked again whether there are workers that know nothing of artefacts."""

Known = TypeVar("Known", bound=Hashable)

_RAISED = "SELECT i.bucket, circuit.bucket_with(i.bucket, $2) AS raised FROM unnest($1::int2[]) AS i(bucket)"
_OF_CASES = """
SELECT c.tenant_id, c.case_id, c.bucket FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)
JOIN circuit."case" c ON c.tenant_id = i.tenant_id AND c.case_id = i.case_id
"""


class Recent(Generic[Known]):
    """The last `MOST_KNOWN` things that were added."""

    def __init__(self) -> None:
        self._known: dict[Known, None] = {}

    def __contains__(self, one: Known) -> bool:
        return one in self._known

    def add(self, many: Iterable[Known]) -> None:
        for one in many:
            self._known.pop(one, None)
            self._known[one] = None
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]


class Shelf:
    """What one writer knows."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._closed_until = float("-inf")
        self.raised: dict[int, int] = {}
        """Buckets, each with the one of cases that need the same and the feature."""
        self.buckets: dict[CaseKey, int] = {}
        """Of cases that a log is about."""
        self.cases: Recent[CaseKey] = Recent()
        """Those that this writer has raised."""
        self.uses: Recent[tuple[CaseKey, str]] = Recent()
        self.idle = True
        """No case was ever raised."""

    @property
    def open(self) -> bool:
        return self._clock() >= self._closed_until

    def batch(self) -> Batch:
        return Batch(self)

    async def learn(self, connection: Connection, batch: Batch) -> None:
        """Ask for what `batch` lacks. Raises what the driver does."""
        if batch.strangers:
            keys = list(batch.strangers)
            found = await connection.fetch(_OF_CASES, [key.tenant for key in keys], [key.case for key in keys])
            self.buckets |= {CaseKey(row["tenant_id"], row["case_id"]): row["bucket"] for row in found}
            # Of a case that is gone nothing is written.
            self.buckets |= {key: 0 for key in keys if key not in self.buckets}
            batch.buckets |= {self.buckets[key] for key in keys}
        for row in await connection.fetch(_RAISED, sorted(batch.buckets - self.raised.keys()), FEATURE):
            if row["raised"] is None:
                self._closed_until = self._clock() + ASK_AGAIN_SECONDS
            else:
                self.raised[row["bucket"]] = row["raised"]

    def keep(self, batch: Batch) -> None:
        """A batch is committed."""
        if batch.uses or batch.raises:
            self.uses.add(batch.uses)
            self.cases.add(batch.raises)
            self.idle = self.idle and not batch.raises
        for key in batch.asked:
            self.cases.add([key])
            self.buckets.pop(key, None)


class Batch:
    """What one batch does. Where it `lacks` something it is worked out again after `learn`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._open = shelf.open
        self.put: dict[tuple[int, str], Artefact] = {}
        self.uses: dict[tuple[CaseKey, str], None] = {}
        self.raises: dict[CaseKey, int] = {}
        """The bucket that each of these cases comes into."""
        self.buckets: set[int] = set()
        self.strangers: set[CaseKey] = set()
        self.asked: list[CaseKey] = []
        """The cases whose own buckets counted."""

    @property
    def lacks(self) -> bool:
        return bool(self.buckets or self.strangers)

    def text(self, key: CaseKey, bucket: int | None, value: Any, shape: Shape = PLAIN) -> str:
        """A payload of a case as its row holds it. Without a `bucket` the case's own counts."""
        encoded = orjson.dumps(value)
        # As `payloads.plain` has it, without a call: this is the hot path.
        if len(encoded) > LIMIT or (type(value) is dict and MARK in value):
            return self._aside(key, bucket, value, encoded, shape)
        return encoded.decode()

    def event(self, key: CaseKey, bucket: int | None, encoded: bytes) -> str:
        """The body of an event."""
        if len(encoded) <= LIMIT:
            return encoded.decode()
        return self._aside(key, bucket, orjson.loads(encoded), encoded, payloads.EVENT)

    def present(self, bucket: int) -> int | None:
        """The bucket of a case, as its owner knows it; None, where the row of the case may know better."""
        return bucket if self._shelf.idle else None

    def need(self, key: CaseKey, bucket: int) -> None:
        """The case goes into a new bucket, `bucket`, with this batch, and may have referred to artefacts before."""
        self._raise(key, bucket, known=False)

    def _aside(self, key: CaseKey, bucket: int | None, value: Any, encoded: bytes, shape: Shape) -> str:
        cut = payloads.cut(value, encoded, shape)
        if cut.stored is value or not self._raise(key, bucket):
            return encoded.decode()
        for artefact in cut.artefacts:
            used = (key, artefact.hash)
            if used not in self._shelf.uses:
                self.put[key.tenant, artefact.hash] = artefact
                self.uses[used] = None
        return orjson.dumps(cut.stored).decode()

    def _raise(self, key: CaseKey, bucket: int | None, *, known: bool = True) -> bool:
        """Whether references may be written for a case; where this is the first one, the case is raised."""
        if not self._open:
            return False
        if key in self.raises or (known and key in self._shelf.cases):
            return True
        if bucket is None:
            bucket = self._shelf.buckets.get(key)
            if bucket is None:
                self.strangers.add(key)
                return False
            self.asked.append(key)
        raised = self._shelf.raised.get(bucket)
        if raised is None:
            self.buckets.add(bucket)
            return False
        if raised != bucket or not known:
            self.raises[key] = raised
        return True

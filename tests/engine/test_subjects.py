"""What is personal: found by its subject, exported, erased; and the histories still replay."""

from __future__ import annotations

import asyncio
import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_archive import NOW, OldIds, age, make_partitions

from circuit.app import Circuit
from circuit.engine.archive.policy import Policy
from circuit.engine.audit.inspection import inspect_at
from circuit.engine.ledger import Sought
from circuit.engine.tombstone import ERASED, PERSONAL, erased_row, is_erased, tombstone
from circuit.errors import Conflict, Forbidden, InvalidRequest, NotFound
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL, Principal
from circuit.settings import Settings
from circuit.storage.database import Database

SECRET = "Lovelace-1815"
ADA = "ada@example.com"
SHARED = "s" * 9_000

CHILD = """
workflow: letter
subject: data.to
places: {begin: {initial: true}, end: {terminal: true}}
transitions:
  write: {from_places: begin, to_place: end}
"""
DESK = """
workflow: desk
subject: [data.customer, metadata.on_behalf_of]
places: {begin: {initial: true}, asked: {}, rest: {}, parts: {}, gathered: {}, open: {},
  waiting: {}, end: {terminal: true}}
agents:
  clerk:
    name: Clerk
    description: Answers.
    conversation: case
    llm_provider:
      type: scripted
      model: any
      chunk_size: 8
      responses: [{when: ada@example.com, response: I know Lovelace-1815 and more}, I know nobody]
    prompts: {user_template: "Who is {customer}? {note}"}
transitions:
  ask:
    from_places: begin
    to_place: asked
    agent_execution:
      agent_id: clerk
      input_mapping: {customer: data.customer, note: data.note}
      output_mapping: {data.answer: output}
  split: {from_places: asked, to_places: [rest, {place: parts, each: data.items}]}
  join:
    from_places: [rest, {place: parts, gather: split}]
    to_places:
      - place: gathered
        data:
          customer: tokens.rest.data.customer
          note: tokens.rest.data.note
          receiver: tokens.rest.data.receiver
          long: tokens.rest.data.long
  mail:
    from_places: gathered
    to_place: open
    action: {type: subworkflow, workflow: letter, input_mapping: {to: data.receiver, text: data.note}}
  decide:
    from_places: open
    to_place: waiting
    trigger: {type: manual, form: {type: object}}
    output_mapping: {data.verdict: form.verdict}
  hear:
    from_places: waiting
    to_place: end
    trigger: {type: message, message: reply, correlate: data.customer}
    output_mapping: {data.reply: message}
"""


async def everything(url: str) -> dict[str, str]:
    """All that the database holds, by table, as text."""
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'circuit'::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition"
            # What the scripted model says stands in its workflow.
            " AND relname NOT IN ('workflow_version', 'agent_version')"
        )
        texts: dict[str, str] = {}
        for (name,) in names:
            rows = await connection.fetch(f'SELECT to_json(t)::text AS row FROM circuit."{name}" t')
            texts[name] = "\n".join(row["row"] for row in rows)
        return texts
    finally:
        await connection.close()


def holding(texts: dict[str, str], *words: str) -> set[str]:
    return {name for name, text in texts.items() if any(word in text for word in words)}


async def spoken(circuit: Circuit) -> str:
    """A case about Ada that left something of hers in every table, and has ended."""
    await circuit.load(CHILD)
    await circuit.load(DESK, allow_unsound=True)
    case = await circuit.start(
        "desk",
        {
            "customer": ADA,
            "note": SECRET,
            "receiver": "bob@example.com",
            "items": [{"x": SECRET}, {"x": 2}],
            "long": f"{SECRET} " * 900,
            "shared": SHARED,
        },
        metadata={"on_behalf_of": 77, "remark": SECRET},
    )
    await circuit.wait(case)
    key = circuit.key(case)
    refused = await circuit.fire(case, "decide", {"verdict": SECRET})
    assert refused.state == "applied"
    firing = (await circuit.case(case)).executions[0].id
    await circuit.commands.give_feedback(
        key, int(firing.rpartition(".")[2]), comment=SECRET, principal=LOCAL, idempotency_key=None
    )
    await circuit.wait(case)
    sent = await circuit.send("reply", {"text": SECRET}, key=[ADA])
    assert sent.state == "delivered"
    assert (await circuit.wait(case)).status == "completed"
    return case


async def test_an_erasure_leaves_nothing_of_a_subject_but_hashes_and_the_history_replays(database_url: str) -> None:
    async with Circuit.open(database_url) as circuit:
        case = await spoken(circuit)
        subjects = circuit.subjects
        eve = {"customer": "eve", "note": "hers", "receiver": "tim", "items": [{}], "long": "short", "shared": SHARED}
        other = await circuit.start("desk", eve)
        await circuit.wait(other)
        fork = str(await circuit.travel.fork(circuit.key(case), 2, principal=LOCAL))
        await circuit.wait(fork)
        await circuit.send("reply", {"text": "nobody waits"}, key=["ada@example.org", ADA], lifetime_seconds=60)
        about = await subjects.cases(ADA, LOCAL)
        [letter] = [one for one in about if one.workflow_id == "letter" and one.key.case > circuit.key(case).case][:1]
        assert {str(one.key) for one in about} >= {case, fork, str(letter.key)}
        assert other not in {str(one.key) for one in about}
        assert {str(one.key) for one in await subjects.cases("77", LOCAL)} >= {case, fork}, "numbers are texts"
        assert str(letter.key) in {str(one.key) for one in await subjects.cases("bob@example.com", LOCAL)}

        before = await everything(database_url)
        tables = holding(before, SECRET)
        assert tables == {
            "artefact", "token", "history", "firing", "journal", "stream_event", "command", "feedback", "message",
            "sent_message",
        }  # fmt: skip
        exported = [(table, row) async for table, row in subjects.export(ADA, LOCAL)]
        assert holding({table: "" for table, _ in exported}) == set()
        assert {table for table, row in exported if SECRET in json.dumps(row)} == tables - {"artefact"}
        assert sum(json.dumps(row).count(SECRET) for table, row in exported if table == "token") > 900

        # One that goes on is refused, or cancelled first; a look changes nothing.
        with pytest.raises(Conflict, match="have not ended"):
            await subjects.erase(ADA, LOCAL)
        looked = await subjects.erase(ADA, LOCAL, dry_run=True)
        assert holding(await everything(database_url), SECRET) == tables
        done = await subjects.erase(ADA, LOCAL, cancel=True)
        assert done.cases == len(about) == looked.cases
        assert done.whole and done.messages == 1
        assert (await circuit.case(fork)).status == "cancelled"

        # Nothing is left of her in any table, her name neither; Eve is as she was.
        after = await everything(database_url)
        assert holding(after, SECRET, ADA, "Lovelace", "ada@") == set()
        assert "hers" in after["token"] and SHARED in after["artefact"], "another case uses it"
        for name in set(PERSONAL) - {"sent_message"}:
            assert after[name].count("\n") >= before[name].count("\n"), name
        report = await inspect_at(database_url)
        assert (report.clean, report.erased, report.faults) == (True, len(about), [])
        assert report.cases == len(about) + 2

        # It can be read as it is, and nothing can begin there.
        view = await circuit.case(case)
        assert is_erased(view.tokens[0].data)
        kept = await circuit.conversations.list(LOCAL, case=circuit.key(case).case)
        memories = [circuit.conversations.memory(LOCAL, one.id) for one in kept]
        assert kept and [await one.recall(await one.length()) for one in memories] == [[]], "not even its hash"
        assert (await circuit.at(case, 3)).marking
        async for _ in circuit.stream(case):
            pass
        with pytest.raises(Conflict, match="was erased"):
            await circuit.fork(case)
        again = await subjects.erase(ADA, LOCAL)
        assert (again.cases, again.rows.total()) == (0, 0)
        assert all(
            one.erased_at is not None for one in await subjects.cases(ADA, LOCAL) if str(one.key) in (case, fork)
        )

        # Who did it is written down, and of whom only the hash.
        log = [one async for one in circuit.engine.ledger.all(LOCAL, Sought(action="subject"))]
        assert [one.action for one in log] == ["subject.export", "subject.erase", "subject.erase"]
        assert {one.target for one in log} == {log[0].target} and log[0].target.startswith("sha256:")
        clerk = Principal("clerk", roles=frozenset({"editor"}))
        for ask in (
            subjects.cases(ADA, clerk),
            subjects.erase(ADA, clerk),
            subjects.exported(ADA, circuit.key(case), clerk),
        ):
            with pytest.raises(Forbidden):
                await ask
        stranger = Principal("x", 2, frozenset({"admin"}))
        assert await subjects.cases(ADA, stranger) == []
        assert (await subjects.erase("eve", stranger)).cases == 0
        for wrong in ("", "x" * 301, "a\nb"):
            with pytest.raises(InvalidRequest):
                await subjects.cases(wrong, LOCAL)
    # A row that somebody touches behind the erasure is found all the same.
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE circuit.token SET data = '{}' WHERE case_id = $1", circuit.key(case).case)
    await connection.close()
    assert [fault.table for fault in (await inspect_at(database_url)).faults] == ["token"]


async def test_what_is_archived_is_erased_from_its_files(database: Database, database_url: str, tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "CIRCUIT_DATABASE_URL": database_url,
            "CIRCUIT_ARCHIVE_DIR": str(tmp_path / "files"),
            "CIRCUIT_HOME": str(tmp_path),
        }
    )
    plain = await asyncpg.connect(database_url)
    async with Circuit.open(settings=settings) as circuit:
        await make_partitions(database)
        ids = circuit.commands._ids
        circuit.commands._ids = OldIds()
        case = await spoken(circuit)
        other = await circuit.start("letter", {"to": "eve", "text": "hers"})
        await circuit.wait(other)
        circuit.commands._ids = ids
        await age(plain)
        await circuit.archive.run(Policy(timedelta(days=30)), NOW)
        assert (await circuit.queries.case(circuit.key(case))) is None
        [week] = await circuit.archive.weeks()
        place = Path(week.folder or "")

        def files() -> str:
            return "".join(gzip.open(path, "rt").read() for path in (tmp_path / "files").glob("*/part-*.gz"))

        async def exported() -> str:
            return json.dumps([row async for row in circuit.subjects.export(ADA, LOCAL)])

        assert SECRET in files() and SECRET in await exported()
        looked = await circuit.subjects.erase(ADA, LOCAL, dry_run=True)
        assert looked.archived == 1
        # The letter that it opened was born now, and lies in the database.
        done = await circuit.subjects.erase(ADA, LOCAL)
        assert (done.archived, done.cases, done.whole) == (1, 1, True)
        assert done.rows == looked.rows
        texts = await everything(database_url)
        assert holding({"files": files(), **texts}, SECRET, ADA) == set()
        assert "hers" in files()
        assert SECRET not in await exported()
        assert week.folder not in await circuit.archive.check()
        assert [Path(one).name for one in await circuit.archive.check()] == [f"{week.week}-1-erased-1"]
        assert {row["case_id"] for row in (await circuit.archive.show(circuit.key(case)))["rows"]["token"]} == {case}
        # Where the files lie elsewhere, that is said, and the case is not taken for erased.
        place = Path((await circuit.archive.weeks())[0].folder or "")
        assert (await circuit.subjects.erase(ADA, LOCAL)).rows.total() == 0
        place.rename(tmp_path / "elsewhere")
        left = await circuit.subjects.erase("eve", LOCAL)
        assert (left.whole, list(left.unreachable)) == (False, [str(place)])
        assert (await circuit.subjects.cases("eve", LOCAL))[0].erased_at is None
    await plain.close()


async def test_two_erasures_at_once_are_one(database_url: str) -> None:
    async with Circuit.open(database_url) as circuit:
        await circuit.load(CHILD)
        cases = [await circuit.start("letter", {"to": ADA, "text": SECRET}) for _ in range(5)]
        for case in cases:
            await circuit.wait(case)
        await circuit.subjects.add(circuit.key(cases[0]), ["other name"], LOCAL)
        outcomes = await asyncio.gather(*(circuit.subjects.erase(ADA, LOCAL) for _ in range(3)), return_exceptions=True)
        done = [one for one in outcomes if not isinstance(one, BaseException)]
        assert sum(one.cases for one in done) == 5
        assert all(isinstance(one, Conflict) for one in outcomes if isinstance(one, BaseException))
        assert holding(await everything(database_url), SECRET) == set()
        # A case is erased as a whole, for all whom it is about.
        assert (await circuit.subjects.cases("other name", LOCAL))[0].erased_at is not None
        with pytest.raises(NotFound):
            await circuit.subjects.add(CaseKey(1, UUID(int=1)), ["x"], LOCAL)
    assert (await inspect_at(database_url)).clean


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.just(SECRET),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just(SECRET), inside, max_size=3)
    ),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.sampled_from(["a", SECRET, ERASED, "fan_out", "message", "code"]), JSON, max_size=3)
TEXT = st.sampled_from(["", "x", SECRET, f"[erased sha256:{SECRET}]"])


@given(st.data())
def test_no_row_shows_what_was_erased_and_twice_is_once(data: st.DataObject) -> None:
    def draw(of: Any) -> Any:
        return data.draw(of)

    error = st.none() | st.fixed_dictionaries({"code": st.just("x"), "message": TEXT}, optional={"details": JSON})
    image = st.fixed_dictionaries({"number": st.just(1), "data": OBJECT, "metadata": OBJECT})
    found = st.lists(
        st.fixed_dictionaries({"kind": st.just("control_tokens"), "path": TEXT, "words": TEXT}), max_size=2
    )
    body = st.fixed_dictionaries(
        {"produced": st.lists(image, max_size=2)},
        optional={"error": error, "skipped": error, "note": TEXT, "key": st.just(json.dumps([SECRET])), "found": found},
    )
    rows: dict[str, dict[str, Any]] = {
        "case": {"parameters": draw(OBJECT)},
        "token": {"data": draw(OBJECT), "metadata": draw(OBJECT)},
        "history": draw(
            st.builds(lambda told: {"kind": "message_taken", "body": {"key": "", **told}}, body)
            | st.builds(lambda why: {"kind": "case_ended", "body": {"status": "cancelled", "reason": why}}, TEXT)
        ),
        "firing": {"request": draw(OBJECT), "error": draw(error), "awaits": draw(st.none() | OBJECT)},
        "journal": {
            "step": draw(st.sampled_from(["answer:0", "tool:answer:0"])),
            "value": draw(JSON | st.fixed_dictionaries({"text": TEXT, "usage": JSON, "cost": st.just(0.5)})),
        },
        "execution": {"error": draw(error)},
        "stream_event": {"frame": json.dumps({"executionId": "e", **draw(OBJECT)})},
        "command": {"payload": draw(OBJECT), "result": draw(st.none() | OBJECT)},
        "incident": {"message": draw(TEXT)},
        "feedback": {"comment": draw(TEXT)},
        "message": {"parts": [{"type": "text", "text": draw(TEXT)}, *([] if draw(st.booleans()) else [draw(OBJECT)])]},
        "sent_message": {"data": draw(OBJECT), "key": json.dumps([SECRET, "1"]), "error": draw(error)},
    }
    assert set(rows) == set(PERSONAL)
    for table, row in rows.items():
        left = {**row, **erased_row(table, row)}
        assert SECRET not in json.dumps(left), table
        assert erased_row(table, left) == {}, table


def test_what_an_erased_answer_cost_is_still_counted() -> None:
    answer = {
        "text": SECRET,
        "model": "m",
        "usage": {"input_tokens": 3, "note": SECRET, SECRET: 1},
        "cost": 0.5,
        "parts": [SECRET],
    }
    left = erased_row("journal", {"step": "answer:0", "value": answer})["value"]
    assert left == {"model": "m", "cost": 0.5, "usage": {"input_tokens": 3}, **tombstone(answer)}


@given(JSON.filter(lambda value: not is_erased(value)))
def test_the_same_value_leaves_the_same_hash_however_it_was_written(value: Any) -> None:
    assert tombstone(value) == tombstone(json.loads(json.dumps(value)))
    assert is_erased(tombstone(value))
    assert tombstone(tombstone(value)) == tombstone(value)
    assert tombstone([value]) != tombstone(value)


def test_a_number_is_one_number_in_json_and_in_jsonb() -> None:
    assert tombstone({"n": 1e16}) == tombstone({"n": 10**16})

"""What a migration may not do: block the release before it, or take away what that one uses."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = r'(?:circuit\.)?"?(\w+)"?'
_CREATED = re.compile(rf"\s*CREATE TABLE (?:IF NOT EXISTS )?{_NAME}", re.IGNORECASE)

# A pattern, the group that names the table (0: none), and what is wrong with it. What concerns a table that the same
# migration made is free.
_RULES: tuple[tuple[str, int, str], ...] = (
    (
        rf"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)(?:IF NOT EXISTS )?\w+ ON (?!ONLY ){_NAME}",
        1,
        "an index that is not made CONCURRENTLY stops all writes to its table",
    ),
    (rf"DROP TABLE (?:IF EXISTS )?{_NAME}", 1, "the release before may use the table"),
    # Not where it is the event of a trigger.
    (rf"(?<!BEFORE )(?<! OR )TRUNCATE (?:TABLE )?{_NAME}", 1, "it throws rows away under an exclusive lock"),
    (rf"LOCK (?:TABLE )?{_NAME}", 1, "nobody may hold a lock on a whole table"),
    (r"DROP INDEX (?!CONCURRENTLY)", 0, "an index goes CONCURRENTLY, or it stops all that use its table"),
    (rf"ALTER TABLE (?:ONLY )?{_NAME} .*DROP (?:COLUMN|CONSTRAINT)", 1, "the release before may use it"),
    (rf"ALTER TABLE (?:ONLY )?{_NAME} .*RENAME", 1, "the release before knows it by its old name"),
    (rf"ALTER TABLE (?:ONLY )?{_NAME} .*ALTER (?:COLUMN )?\w+ (?:SET DATA )?TYPE", 1, "it rewrites the table"),
    (rf"ALTER TABLE (?:ONLY )?{_NAME} .*SET NOT NULL", 1, "it reads the whole table under an exclusive lock"),
    (
        rf"ALTER TABLE (?:ONLY )?{_NAME} .*ADD (?:COLUMN )?(?:IF NOT EXISTS )?(?!CONSTRAINT)"
        r"(?:(?!DEFAULT|, ADD).)*NOT NULL(?!(?:(?!, ADD).)*DEFAULT)",
        1,
        "a column NOT NULL without a default: the release before does not know what to write there",
    ),
    (
        rf"ALTER TABLE (?:ONLY )?{_NAME} .*ADD (?:COLUMN )?.*DEFAULT .*(?:random|clock_timestamp|nextval|uuid)",
        1,
        "a default that differs by row rewrites the table",
    ),
    (
        rf"ALTER TABLE (?:ONLY )?{_NAME} .*ADD CONSTRAINT (?!.*NOT VALID)(?!.*USING INDEX)",
        1,
        "a constraint that is not NOT VALID reads the whole table under an exclusive lock",
    ),
    (r"CREATE TRIGGER \w+ .* ON " + _NAME, 1, "a trigger binds the release before, which does not expect it"),
    (rf"^(?:UPDATE|DELETE FROM) {_NAME}(?! .*WHERE)", 1, "all rows of a table in one transaction"),
    (r"(?:CLUSTER|VACUUM FULL|REINDEX (?!.*CONCURRENTLY))", 0, "it stops everybody who uses the table"),
    (r"REVOKE .* FROM circuit_", 0, "the release before may need the right"),
    (r"DROP (?:FUNCTION|TYPE|SCHEMA|POLICY|ROLE)", 0, "the release before may use it"),
)
_SMALL = frozenset({"alembic_version", "compatibility", "tenant"})


def faults(statements: Iterable[str]) -> list[str]:
    """What is wrong with the statements of one migration."""
    created: set[str] = set()
    found: list[str] = []
    for statement in statements:
        text = " ".join(re.sub(r"--[^\n]*", "", statement).split())
        made = _CREATED.match(text)
        if made is not None:
            created.add(made.group(1))
            continue
        if text.upper().startswith(("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", "COMMENT", "DO ")):
            continue  # a body is only run when it is called
        for pattern, group, wrong in _RULES:
            match = re.search(pattern, text, re.IGNORECASE)
            if match is None:
                continue
            table = match.group(group) if group else ""
            if not group or (table not in created and table not in _SMALL):
                found.append(f"{wrong}: {text[:160]}")
    return found

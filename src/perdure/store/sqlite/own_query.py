"""SQL of users: one statement that only reads, in bounded time and space.

Rules: what is refused is refused by SQLite's authorizer, before anything runs; the real text of
secrets is in no result; a connection is left as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import apsw

from perdure.errors import DefinitionError
from perdure.store.sqlite.authorizer import PRAGMAS_OF_THE_SCHEMA, PRAGMAS_TO_READ

SECONDS_MAX = 2.0
RESULT_BYTES_MAX = 4 * 1024 * 1024
VALUE_BYTES_MAX = 16 * 1024 * 1024
"""Larger than any payload: so a query can't make one that fills the memory."""

VALUES_BYTES_MAX = 128 * 1024 * 1024
"""What the values that one query holds at once may have together."""

TEXT_CHARS_MAX = 20_000
STEPS = 20_000
"""Steps of SQLite's machine between two looks at the time: about half a millisecond."""

HIDDEN = frozenset({"perdure_secret", "sqlite_dbpage"})
"""Tables with the real text of secrets, or with the pages that have it."""

_READS = frozenset({apsw.SQLITE_READ, apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE})
_VALUES = re.compile(r"[(,]|\|\||->|\bjoin\b", re.IGNORECASE)
_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})


class Result:
    """What a query gave: columns, rows, whether there are more, and how long it took."""

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.rows: list[list[Any]] = []
        self.truncated = False
        self.took_ms = 0.0


def ask(db: apsw.Connection, text: str, limit: int) -> Result:
    """Up to `limit` rows of one statement. Raises `DefinitionError` with what is wrong with it."""
    if len(text) > TEXT_CHARS_MAX:
        raise DefinitionError(f"A query has at most {TEXT_CHARS_MAX:,} characters.")
    begun = perf_counter()
    found = Result()
    try:
        with _bounded(db, begun, _value_bytes_max(text)):
            _collect(db, text, limit, found)
    except apsw.InterruptError:
        raise DefinitionError(
            f"The query took longer than {SECONDS_MAX:g} s, and was ended. Ask for less of the "
            "store: by run_id, or with a LIMIT inside."
        ) from None
    except (
        apsw.AuthError,
        apsw.BindingsError,
        apsw.ExecTraceAbort,
        apsw.NoMemError,
        apsw.SQLError,
        apsw.TooBigError,
        ValueError,
    ) as error:
        raise DefinitionError(_why(error)) from error
    found.took_ms = (perf_counter() - begun) * 1_000
    return found


def _collect(db: apsw.Connection, text: str, limit: int, found: Result) -> None:
    cursor = db.cursor()
    statements = 0

    def one_only(cursor: Any, statement: str, bindings: Any) -> bool:
        nonlocal statements
        statements += 1
        if statements == 1:
            found.columns = [one[0] for one in cursor.get_description()]
        return statements == 1

    cursor.exec_trace = one_only
    size = 0
    try:
        for row in cursor.execute(text, can_cache=False):
            if len(found.rows) == limit or size > RESULT_BYTES_MAX:
                found.truncated = True
                return
            found.rows.append([_plain(value) for value in row])
            size += sum(len(value) for value in row if isinstance(value, str | bytes)) + 16
    finally:
        cursor.close(True)


def _value_bytes_max(text: str) -> int:
    """How large each value may be, so that all together fit: SQLite bounds only single ones, and
    looks at the time so rarely that hundreds are made before. A query has no more values at once
    than it has calls, columns and joins.
    """
    values = 1 + len(_VALUES.findall(text))
    return min(VALUE_BYTES_MAX, VALUES_BYTES_MAX // values)


def _plain(value: Any) -> Any:
    """A value as JSON can have it: of bytes the beginning, as SQL writes it."""
    if isinstance(value, bytes):
        return f"x'{value[:32].hex()}'" + ("…" if len(value) > 32 else "")
    return value


def _why(error: Exception) -> str:
    match error:
        case apsw.ExecTraceAbort():
            return "One statement at a time: there is another one behind the first."
        case apsw.BindingsError():
            return "The query has parameters (?): write the values into it."
        case apsw.AuthError():
            return f"Only what reads is allowed here, such as SELECT. SQLite says: {error}."
        case apsw.TooBigError():
            return (
                "A value is too large for this query: the more columns and calls one has, the "
                "smaller each value may be. Ask for fewer columns, or for substr() of one."
            )
        case _:
            return f"SQLite says: {error}."


@contextmanager
def _bounded(db: apsw.Connection, begun: float, value_bytes_max: int) -> Iterator[None]:
    """A connection that reads only, not for long, and no value larger than that."""
    length = db.limit(apsw.SQLITE_LIMIT_LENGTH, value_bytes_max)
    db.authorizer = _allow
    db.set_progress_handler(lambda: perf_counter() - begun > SECONDS_MAX, STEPS)
    try:
        yield
    finally:
        db.set_progress_handler(None)
        db.authorizer = None
        db.limit(apsw.SQLITE_LIMIT_LENGTH, length)


def _allow(
    operation: int, first: str | None, second: str | None, database: str | None, view: str | None
) -> int:
    name = (first or "").lower()
    if operation in _READS:
        return apsw.SQLITE_DENY if name in HIDDEN else apsw.SQLITE_OK
    if operation == apsw.SQLITE_FUNCTION:
        refused = (second or "").lower() in _REFUSED_FUNCTIONS
        return apsw.SQLITE_DENY if refused else apsw.SQLITE_OK
    if operation == apsw.SQLITE_PRAGMA:
        allowed = name in PRAGMAS_OF_THE_SCHEMA or (second is None and name in PRAGMAS_TO_READ)
        return apsw.SQLITE_OK if allowed else apsw.SQLITE_DENY
    return apsw.SQLITE_DENY

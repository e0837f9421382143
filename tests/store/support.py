"""What tests of stores share: workflows that fill files and copies, and what a query costs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable

import apsw

from perdure import step, workflow
from perdure.store import sql
from perdure.store.sqlite import connection
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.queries import PACKAGE


@step
async def add_one(n: int) -> int:
    return n + 1


@workflow
async def count_up(steps: int) -> int:
    n = 0
    for _ in range(steps):
        n = await add_one(n)
    return n


def instructions_of(store: SqliteStore, act: Callable[[], object]) -> int:
    """How many instructions of SQLite's machine it takes: the same on every computer."""
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    store._db.set_progress_handler(count, 1)
    try:
        act()
    finally:
        store._db.set_progress_handler(None)
    return steps


async def queries_of(store: SqliteStore, act: Awaitable[object]) -> list[str]:
    """The queries that reading connection executes meanwhile."""
    found: list[str] = []

    def note(cursor: object, query: str, bindings: object) -> bool:
        if not query.startswith("pragma"):  # a watcher asks whether the file has changed
            found.append(query)
        return True

    store._read.exec_trace = note
    try:
        await act
    finally:
        store._read.exec_trace = None
    return found


def old_file(path: str, version: int) -> apsw.Connection:
    """A store as an earlier Perdure has made it."""
    made = apsw.Connection(path)
    made.pragma("journal_mode", "wal")
    for number in range(1, version + 1):
        made.execute(
            connection._WHOLE.sub(
                connection._expand, sql.text_of(f"migrations/{number:04}.sql", PACKAGE)
            )
        )
    made.pragma("application_id", connection.APPLICATION_ID)
    made.pragma("user_version", version)
    return made


def make_older(path: str, version: int) -> None:
    """Make a store one of an earlier schema version, with all rows that it has."""
    with contextlib.closing(old_file(path + "-older", version)) as made:
        made.execute("ATTACH ? AS newer", (path,))
        ours = "SELECT name FROM main.sqlite_schema WHERE type = 'table'"
        for (table,) in made.execute(ours).fetchall():
            old, new = (
                {name for (_, name, *_) in made.execute(f"PRAGMA {schema}.table_info({table})")}
                for schema in ("main", "newer")
            )
            both = ", ".join(old & new)
            made.execute(f"INSERT INTO main.{table} ({both}) SELECT {both} FROM newer.{table}")
        made.execute("DETACH newer")
    os.replace(path + "-older", path)

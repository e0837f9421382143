"""What tests of stores share: workflows that fill files and copies, and what a query costs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from perdure import step, workflow
from perdure.store.sqlite.driver import SqliteStore


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

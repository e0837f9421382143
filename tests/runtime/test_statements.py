"""What runs cost in SQL: the named queries of each transaction that adds rows to a history.

A feature that a run does not use adds no statement to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from perdure import Engine, receive, step, workflow
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.queries import Q
from tests.runtime.support import awaited, reached

ROW, START = "insert_event", "insert_run"
END = ["before_end", "finish", "close_inbox"]
BEAT = "renew_lease"  # comes when it is due, with whatever is written then
NAMES = {text: name for name, text in Q.items()}


@step
async def noop(n: int) -> int:
    return n


@workflow
async def count(steps: int) -> int:
    for n in range(steps):
        await noop(n)
    return steps


@workflow
async def waits() -> int:
    return await receive("go", int)


@contextlib.contextmanager
def transactions(store: SqliteStore) -> Iterator[list[list[str]]]:
    """The queries of each transaction that adds to a history or an inbox, while the block runs."""
    found: list[list[str]] = []
    queries: list[str] = []

    def note(cursor: Any, query: str, bindings: Any) -> bool:
        if query == "COMMIT":
            if ROW in queries or "insert_inbox" in queries:
                found.append(queries.copy())
        elif query == "BEGIN IMMEDIATE":
            queries.clear()
        elif (name := NAMES.get(query, query)) != BEAT:
            queries.append(name)
        return True

    cursor = store._transaction.cursor
    cursor.exec_trace = note
    try:
        yield found
    finally:
        cursor.exec_trace = None


@awaited
async def test_a_step_costs_one_transaction_of_two_rows() -> None:
    async with Engine(":memory:", workflows=[count]) as engine:
        await engine.run(count(1))  # whether this worker has ended is asked once
        with transactions(engine._store) as found:
            await engine.run(count(5))
    start, *steps, end = found
    assert start == [START, ROW, ROW]  # the start and the first step
    assert steps == [[ROW, ROW]] * 4  # the end of a step, and the next one
    assert end == [*END, ROW, ROW]  # the end of the last step, and of the run


@awaited
async def test_a_message_costs_one_transaction_and_its_receiver_another() -> None:
    async with Engine(":memory:", workflows=[waits]) as engine:
        run = await engine.start(waits())
        await reached(run, "waiting")
        with transactions(engine._store) as found:
            await run.send(1, channel="go")
            assert await run.result() == 1
    sent, received = found
    assert sent == ["receiver", "unread", "insert_inbox", "wake_waiting"]
    assert received == ["take", *END, ROW, ROW]

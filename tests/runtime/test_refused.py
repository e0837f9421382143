"""A run whose rows can't be written: it writes nothing more, and nobody else suffers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import LeaseLost, Limits, WriteRefused
from perdure.core.events import Event
from perdure.runtime.writer import Writer
from perdure.store.rows import Written
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Append, JoinWorker, StartRun, Suspend, Turn, Write
from tests.runtime.support import awaited


@pytest.mark.parametrize("apart", [False, True], ids=["one batch", "later batches"])
@awaited
async def test_what_is_queued_behind_rows_that_are_refused_is_refused_too(
    db: str, apart: bool
) -> None:
    """It was written all the same: a history with a hole, blocked or not."""
    store = SqliteStore(db, limits=Limits())
    writer = Writer(store, 1 if apart else 100)
    worker = await writer.ask(JoinWorker("w", "h", 1, "", 0, 60_000))
    runs = [
        (await writer.ask(StartRun(name, "main", b"{}", 1, 1, None, owner=worker))).run
        for name in ("odd", "even")
    ]
    for run in runs:
        await writer.ask(
            Append(run, worker, [Event(1, "start", 5), Event(2, "emit", 5, None, "x", b"1")])
        )
    results: dict[tuple[int, int], Any] = {}
    for seq in (2, 3, 4):  # the second row is there already, in the first of the runs
        for run in runs:
            first = seq if run == runs[0] else seq + 1
            rows = [Event(first, "message", 6, None, "x", b"1")]
            write: Write = (
                Append(run, worker, list(rows))
                if seq != 3
                else Turn(run, worker, list(rows), 6, suspend=Suspend("waiting"))
            )
            writer.put(
                write,
                lambda result, key=(run, seq): results.__setitem__(key, result),  # type: ignore[misc]
                keep=True,
            )
    await writer.drain()
    await asyncio.sleep(0)
    assert [type(results[runs[0], seq]) for seq in (2, 3, 4)] == [
        WriteRefused,
        LeaseLost,
        LeaseLost,
    ]
    assert [type(results[runs[1], seq]) for seq in (2, 3, 4)] == [type(None), Written, type(None)]
    assert [[row.seq for row in store.history(run)] for run in runs] == [[1, 2], [1, 2, 3, 4, 5]]
    row = store.run_row(runs[0])
    assert (row.status, row.blocked_by, row.owner) == ("blocked", "store", None)
    assert "its history could not be written" in (row.reason or "")
    assert store.run_row(runs[1]).owner == worker
    writer.close()
    store.close()

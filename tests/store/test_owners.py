"""Who owns a run: looked up once by a store, and known no longer when anybody may have
changed it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.core.events import COMPLETED, START, Event
from perdure.core.limits import Limits
from perdure.errors import LeaseLost
from perdure.store.sqlite.driver import Q, SqliteStore
from perdure.store.writes import (
    Append,
    BatchRolledBack,
    Claim,
    EndWorker,
    Finish,
    JoinWorker,
    StartRun,
    Suspend,
    Turn,
    Write,
)

JOIN = JoinWorker("me", "here", 1, "then", 0, 10_000)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "p.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    store = SqliteStore(path, limits=Limits())
    yield store
    store.close()


@pytest.fixture
def other(store: SqliteStore, path: str) -> Iterator[SqliteStore]:
    """The store of another process: another connection to the same file."""
    other = SqliteStore(path, limits=Limits())
    yield other
    other.close()


def one(store: SqliteStore, write: Write) -> Any:
    (result,) = store.write([write], True)
    return result


def owned(store: SqliteStore) -> tuple[int, int]:
    """A new worker, and a run of its own."""
    worker = one(store, JOIN)
    started = one(
        store,
        StartRun("r-1", "flow", b"{}", 1, 0, None, owner=worker, first=[Event(1, START, 0)]),
    )
    return started.run, worker


def grow(run: int, worker: int, seq: int) -> Append:
    return Append(run, worker, [Event(seq, COMPLETED, 0, ref=1, data=b"null")])


def test_it_is_looked_up_again_only_after_another_connection_has_committed(
    store: SqliteStore, other: SqliteStore
) -> None:
    run, worker = owned(store)
    looked: list[str] = []

    def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        looked.extend([sql] if sql == Q["owner_of"] else [])
        return True

    store._cursor.exec_trace = trace
    for seq in (2, 3, 4):
        assert one(store, grow(run, worker, seq)) is None
    assert not looked
    one(other, JOIN)
    for seq in (5, 6, 7):
        assert one(store, grow(run, worker, seq)) is None
    assert len(looked) == 1


def test_a_worker_that_another_process_has_buried_writes_nothing(
    store: SqliteStore, other: SqliteStore
) -> None:
    run, worker = owned(store)
    assert one(store, grow(run, worker, 2)) is None
    assert one(other, EndWorker(worker, 1, crashed=False))
    assert isinstance(one(store, grow(run, worker, 3)), LeaseLost)
    assert [row.seq for row in other.history(run)] == [1, 2]


@pytest.mark.parametrize(
    "leave",
    [
        lambda run, worker: EndWorker(worker, 1, crashed=False),
        lambda run, worker: Turn(run, worker, [], 1, suspend=Suspend("waiting", release=True)),
        lambda run, worker: Turn(run, worker, [], 1, finish=Finish("completed", b"1")),
    ],
    ids=["the worker ends", "the run is let go", "the run ends"],
)
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "later"])
def test_who_has_let_go_of_a_run_writes_nothing(
    store: SqliteStore, leave: Any, together: bool
) -> None:
    run, worker = owned(store)
    assert one(store, grow(run, worker, 2)) is None
    batches = (
        [[leave(run, worker), grow(run, worker, 3)]]
        if together
        else [[leave(run, worker)], [grow(run, worker, 3)]]
    )
    results = [result for batch in batches for result in store.write(batch, True)]
    assert isinstance(results[-1], LeaseLost)
    assert [row.seq for row in store.history(run)] == [1, 2]


def test_what_a_failed_transaction_has_made_known_is_forgotten(store: SqliteStore) -> None:
    worker = one(store, JOIN)
    start = StartRun("r-1", "flow", b"{}", 1, 0, None, owner=worker, first=[Event(1, START, 0)])
    with pytest.raises(BatchRolledBack):
        store.write([start, grow(1, worker, 1)], True)
    assert isinstance(one(store, grow(1, worker, 2)), LeaseLost)


def test_another_worker_of_the_same_process_is_another_owner(store: SqliteStore) -> None:
    run, worker = owned(store)
    again = one(store, JOIN)
    assert isinstance(one(store, grow(run, again, 2)), LeaseLost)
    assert one(store, grow(run, worker, 2)) is None


def test_a_run_that_a_buried_worker_starts_is_anybodys(
    store: SqliteStore, other: SqliteStore
) -> None:
    _, worker = owned(store)
    assert one(other, EndWorker(worker, 1, crashed=False))
    started = one(
        store,
        StartRun("r-2", "flow", b"{}", 1, 5, None, owner=worker, first=[Event(1, START, 0)]),
    )
    assert started.created and not started.owned
    row = store.run_row(started.run)
    assert (row.owner, row.status, row.due_ms, row.history_rows) == (None, "pending", 5, 0)
    assert one(other, Claim(worker, ("flow",), 10, 10)) == []

"""Who owns a run is looked up once, and again only when another connection has committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.core.events import COMPLETED, START, Event
from perdure.core.limits import Limits
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.queries import Q
from perdure.store.writes import (
    Append,
    JoinWorker,
    StartRun,
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

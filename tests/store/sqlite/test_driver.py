"""The driver's two connections: who uses which, and when."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Limits
from perdure.errors import StoreReplaced
from perdure.store.retention_writes import ForgetIdle
from perdure.store.sqlite import connection
from perdure.store.sqlite.driver import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = SqliteStore(str(tmp_path / "a.db"), limits=Limits())
    yield store
    store.close()


def in_threads(*work: Any) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_threads_that_read_beside_a_write_open_one_connection(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[apsw.Connection] = []
    another, really = threading.Event(), connection.open_second

    def open_second(*given: Any, **more: Any) -> apsw.Connection:
        if opened:
            another.set()
        opened.append(really(*given, **more))
        another.wait(0.2)  # for a second one to come in here, which must not happen
        return opened[-1]

    monkeypatch.setattr(connection, "open_second", open_second)
    with store._used:
        in_threads(store.status_counts, store.status_counts)
    assert len(opened) == 1


def test_a_store_that_rests_leaves_a_connection_that_is_read_on(store: SqliteStore) -> None:
    with store._used:
        store.status_counts()
    second = store._second
    with store._reading:
        store.rest()
    assert store._second is second is not None
    store.rest()
    assert store._second is None


SLOW = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@contextlib.contextmanager
def read_beside_a_write(store: SqliteStore) -> Iterator[None]:
    """While a thread reads on the second connection."""
    with store._used:
        store.status_counts()
    second, begun = store._second, threading.Event()
    assert second is not None

    def goes_on() -> bool:
        begun.set()
        return False

    def read() -> None:
        second.set_progress_handler(goes_on, 1_000)
        with store._reading, contextlib.suppress(apsw.InterruptError):
            second.execute(SLOW).fetchall()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        second.interrupt()
        reader.join()


def becomes_replicated(store: SqliteStore) -> None:
    with contextlib.closing(SqliteStore(store.path, limits=Limits())) as other:
        other.begin_epoch("s", "file:///somewhere", 1)


def test_a_write_that_finds_a_replicated_file_disturbs_no_read(store: SqliteStore) -> None:
    with read_beside_a_write(store):
        becomes_replicated(store)
        assert store.write([ForgetIdle(0, 1)], True) == [0]


def test_no_connection_checkpoints_what_has_become_a_replicated_file(store: SqliteStore) -> None:
    with store._used:
        store.status_counts()
    becomes_replicated(store)
    store.write([ForgetIdle(0, 1)], True)
    wal = Path(f"{store.path}-wal")
    size = wal.stat().st_size
    store.close()
    assert wal.stat().st_size == size > 0


def test_a_store_whose_file_was_replaced_disturbs_no_read(store: SqliteStore) -> None:
    with read_beside_a_write(store), store._used:
        Path(store.path).rename(f"{store.path}.moved")
        with pytest.raises(StoreReplaced):
            store.check_identity()

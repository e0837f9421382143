"""The driver's two connections: who uses which, and when."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Limits
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

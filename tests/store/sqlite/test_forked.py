"""Forks while another thread is inside SQLite: the child would inherit SQLite's own locks, locked,
and hang at its first use of SQLite.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Any

import apsw
import pytest

from perdure.store.sqlite import forked

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def child_that_uses_sqlite() -> int:
    """How a child ended that was forked now and used SQLite; -14 where it hung."""
    if (pid := os.fork()) == 0:
        signal.alarm(60)
        db = forked.connection(":memory:", vfs=None)
        db.execute("CREATE TABLE t (a)").execute("INSERT INTO t VALUES (randomblob(1000))")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_children_of_a_process_that_reads_all_the_time_use_sqlite() -> None:
    """Without the wait one in five hung."""
    stop = threading.Event()

    def reads() -> None:
        count = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
        with contextlib.closing(apsw.Connection(":memory:")) as db:
            while not stop.is_set():
                db.execute(f"{count} SELECT group_concat(i) FROM n").fetchall()

    threads = [threading.Thread(target=reads) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        interval_s = sys.getswitchinterval()
        assert [child_that_uses_sqlite() for _ in range(30)] == [0] * 30
        assert sys.getswitchinterval() == interval_s
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_fork_does_not_wait_for_a_thread_that_rests_inside_a_query() -> None:
    inside, end = threading.Event(), threading.Event()

    def waits(*_: object) -> int:
        inside.set()
        end.wait(60)
        return 1

    def asks() -> None:
        with contextlib.closing(apsw.Connection(":memory:")) as db:
            db.create_scalar_function("waits", waits)
            db.execute("SELECT waits()").fetchall()

    thread = threading.Thread(target=asks)
    thread.start()
    try:
        assert inside.wait(60)
        assert child_that_uses_sqlite() == 0
    finally:
        end.set()
        thread.join()


def test_a_fork_from_inside_a_query_does_not_wait_for_itself() -> None:
    with contextlib.closing(apsw.Connection(":memory:")) as db:
        db.create_scalar_function("forks", lambda *_: child_that_uses_sqlite())
        assert db.execute("SELECT forks()").fetchall() == [(0,)]


def test_a_fork_waits_until_a_connection_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opening, end = threading.Event(), threading.Event()
    opened: list[bool] = []

    class Slow(apsw.Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            opening.set()
            end.wait(60)
            super().__init__(*args, **kwargs)
            opened.append(True)

    monkeypatch.setattr(apsw, "Connection", Slow)
    monkeypatch.setattr(forked, "QUIET_WAIT_S", 60.0)
    thread = threading.Thread(target=forked.connection, args=(":memory:",), kwargs={"vfs": None})
    thread.start()
    assert opening.wait(60)
    ends = threading.Timer(0.05, end.set)  # as late as it likes: the fork comes after it
    ends.start()
    if (pid := os.fork()) == 0:
        os._exit(0 if opened else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    ends.join()
    thread.join()

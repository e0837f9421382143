"""Polling stays flat: every query that an idle engine repeats finds its rows by an index, and reads
no finished run.

How long a poll takes is measured in `benchmarks/polling.py`; here it is shown why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure import Limits
from perdure.store.rows import Started, Written
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.queries import Q
from perdure.store.writes import Finish, JoinWorker, StartRun, Turn
from tests.store.support import instructions_of

SMALL = (
    "SCAN level",
    "SCAN (subquery",
    "SCAN due",
    "SCAN others",
    "SCAN rest",
)  # of rows that a search has found
POLLS: list[tuple[str, tuple[Any, ...]]] = [
    ("next_due", ("main",)),
    ("due_count", ('["main"]', 10**12, 100)),
    ("due_runs", ('["main"]', 10**12, 100)),
    ("due_by_priority", ("main", 10**12, 100)),
    ("due_names", (10**12,)),
    ("due_in_family", (1, 1, "main", 10**12, 100)),
    ("next_due_in_family", (1, 1, "main")),
    ("blocked_in_family", (1, 1, 100)),
    ("wake_blocked", (1, '["main"]', None, None)),
    ("wake_unread", (1, '["main"]', None, None)),
    ("loads", (1,)),
    ("inboxes_of", (1,)),
    ("paused_of", (1,)),
    ("workers", ()),
    ("worker_alive", (1,)),
    ("owner_of", (1,)),
    ("status_of", (1,)),
    ("inbox", (1, 0)),
]
ONE_RUN: list[
    tuple[str, tuple[Any, ...]]
] = [  # what a message and a successor cost, however many others there are
    ("key_used", (1, "k")),
    ("unread", (1,)),
    ("cancel_waits", (1,)),
    ("move_inbox", (2, 1)),
    ("copy_left_messages", (2, 1)),
    ("join_chain", (1, 1, 2)),
    ("generation", (1,)),
    ("count_ids", ("main-1~", "main-1\x7f")),
    ("family_of", (1,)),
    ("id_of", (1,)),
    ("stream_place", (1,)),
]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = SqliteStore(str(tmp_path / "perdure.db"), limits=Limits())
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("name", "bindings"), POLLS + ONE_RUN, ids=[name for name, _ in POLLS + ONE_RUN]
)
def test_a_poll_goes_by_an_index(store: SqliteStore, name: str, bindings: tuple[Any, ...]) -> None:
    plan = [row[3] for row in store._db.execute("EXPLAIN QUERY PLAN " + Q[name], bindings)]
    scans = [
        line
        for line in plan
        if line.startswith("SCAN")
        and "USING" not in line
        and "json_each" not in line
        and not line.startswith(SMALL)
    ]
    assert plan
    assert scans == []


def _finish(store: SqliteStore, first: int, last: int) -> None:
    """In two commits: one for each run would be half a minute of a slow disk."""
    starts = [StartRun(f"main-{n}", "main", b"{}", n, n, None, owner=1) for n in range(first, last)]
    runs = store.write(starts, True)
    ends = [
        Turn(started.run, 1, [], n, finish=Finish("completed", b"1"))
        for n, started in enumerate(runs, first)
        if isinstance(started, Started)
    ]
    ended = store.write(ends, True)
    assert [type(end) for end in ended] == [Written] * (last - first)


def _work_of(store: SqliteStore, name: str, bindings: tuple[Any, ...]) -> int:
    return instructions_of(store, lambda: store._db.execute(Q[name], bindings).fetchall())


@pytest.mark.parametrize(
    ("name", "bindings"), POLLS + ONE_RUN, ids=[name for name, _ in POLLS + ONE_RUN]
)
def test_a_poll_takes_the_same_work_however_many_runs_have_finished(
    store: SqliteStore, name: str, bindings: tuple[Any, ...]
) -> None:
    store.write([JoinWorker("test", "here", 1, "", 0, 10_000)], True)
    _finish(store, 0, 10)
    few = _work_of(store, name, bindings)
    _finish(store, 10, 400)
    assert _work_of(store, name, bindings) <= few + 5

"""Queues stay flat: what admits, asks and polls finds its rows by indexes, however many wait."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perdure import Limits
from perdure.store import sql
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.queries import Q
from perdure.store.writes import (
    Append,
    AskPlace,
    Claim,
    Finish,
    JoinWorker,
    SetQueue,
    StartRun,
    Turn,
    Write,
)
from tests.store.support import instructions_of

NAMES = sorted(sql.load("queues.sql", "perdure.store"))
WHOLE_TABLES = re.compile(r"^SCAN (place|line|run|p|l|r)\b(?! USING)")


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    opened = SqliteStore(":memory:", limits=Limits())
    yield opened
    opened.close()


@pytest.mark.parametrize("name", NAMES)
def test_no_query_of_queues_reads_a_whole_table(store: SqliteStore, name: str) -> None:
    count = max((int(number) for number in re.findall(r"\?(\d+)", Q[name])), default=0)
    plan = store._db.execute(f"EXPLAIN QUERY PLAN {Q[name]}", (None,) * count).fetchall()
    assert [row[3] for row in plan if WHOLE_TABLES.match(str(row[3]))] == []


def test_a_scan_of_a_whole_table_is_found(store: SqliteStore) -> None:
    plan = store._db.execute("EXPLAIN QUERY PLAN SELECT * FROM perdure_place AS p WHERE weight = 1")
    assert any(WHOLE_TABLES.match(str(row[3])) for row in plan.fetchall())


def one(store: SqliteStore, write: Write) -> Any:
    (result,) = store.write([write], True)
    return result


def joined(store: SqliteStore, **limits: int) -> int:
    """A worker, and queue q."""
    one(store, SetQueue("q", limits, 0))
    worker: int = one(store, JoinWorker("w", "h", 1, "t", 0, 10_000))
    return worker


def fill(store: SqliteStore, first: int, runs: int) -> None:
    """Runs that wait, of 50 keys and 3 priorities."""
    starts = [
        StartRun(f"r{n}", "flow", b"{}", 1, 0, 0, queue="q", key=f"k{n % 50}", priority=n % 3)
        for n in range(first, first + runs)
    ]
    store.write(starts, True)


def test_admissions_take_the_same_work_however_many_wait(store: SqliteStore) -> None:
    worker = joined(store, concurrency=5)

    def admit() -> None:
        claimed = one(store, Claim(worker, ("flow",), 50, 0))
        assert len(claimed.runs) == 5
        store.write(
            [Turn(run, worker, [], 0, finish=Finish("completed")) for run in claimed.runs], True
        )
        store.next_due_ms(("flow",), worker=worker)

    works = []
    for runs in (500, 5_000):
        fill(store, 10 * runs, runs)
        admit()
        works.append(instructions_of(store, admit))
    assert works[1] <= 1.3 * works[0], works


def test_a_run_without_a_queue_costs_no_query_more(store: SqliteStore) -> None:
    """Also where the store has queues, and places wait in them."""
    worker = one(store, JoinWorker("w", "h", 1, "t", 0, 10_000))
    queries: list[str] = []

    def trace(cursor: object, query: str, bindings: object) -> bool:
        queries.append(query)
        return True

    def life(id: str) -> list[str]:
        """A run that starts, parks, is claimed and ends."""
        queries.clear()
        store._db.exec_trace = trace
        started = one(store, StartRun(id, "flow", b"{}", 1, 0, None, owner=worker))
        store.write([Append(started.run, worker, [])], True)
        store.write([Turn(started.run, worker, [], 0, finish=Finish("completed"))], True)
        store._db.exec_trace = None
        return [query for query in queries if "data_version" not in query]

    life("first")  # looks up what is known from then on
    before = life("a")
    one(store, SetQueue("q", {"concurrency": 1}, 0))
    fill(store, 0, 5)
    assert life("b") == before
    assert not any(re.search(r"\b(place|line)\b", query) for query in before)


def test_a_step_in_a_queue_costs_few_queries(store: SqliteStore) -> None:
    worker = joined(store, concurrency=5)
    run = one(store, StartRun("r", "flow", b"{}", 1, 0, None, owner=worker)).run

    def asks(seq: int, released: list[int]) -> Callable[[], int]:
        def ask() -> int:
            place = AskPlace(run, worker, seq, "q", None, 1, 0, 0)
            done = one(store, Append(run, worker, [], 0, [place], released))
            return int(done.places[0].place)

        return ask

    queries: list[str] = []
    place = asks(2, [])()

    def trace(cursor: object, query: str, bindings: object) -> bool:
        queries.append(query)
        return True

    store._db.exec_trace = trace
    place = asks(3, [place])()  # it takes the place over
    assert len([query for query in queries if "place" in query]) == 1
    queries.clear()
    asks(4, [])()
    assert len([query for query in queries if "place" in query]) == 1
    store._db.exec_trace = None

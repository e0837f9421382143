"""Searches in a store that is too large to be looked through at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perdure.reader import activity, lists, search
from perdure.reader.values import Bounded, RunQuery
from perdure.store.page_reads import PageReads
from perdure.store.sqlite import connection
from perdure.store.sqlite.reader import Reader
from tests.reader.conftest import NOW_MS, Read, reader_of


@pytest.fixture(scope="module")
def read(large: str) -> Read:
    return reader_of(large, lambda: NOW_MS + 60_000 * 1_000)


def at(run: int) -> datetime:
    return datetime.fromtimestamp(NOW_MS / 1_000 + run, UTC)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"workflow": "rare"}, ["r-30"]),
        ({"status": ("failed",)}, ["r-5"]),
        ({"text": "r-12345"}, ["r-12345"]),
        ({"since": at(100), "until": at(101)}, ["r-101", "r-100"]),
        ({"until": at(2)}, ["r-2", "r-1"]),
        ({"workflow": "rare", "status": ("failed",)}, []),
        ({"since": at(60_001)}, []),
    ],
)
def test_what_an_index_has_is_found_wherever_it_is(
    read: Read, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], found: list[str]
) -> None:
    """Also when there is no time at all, but for the first batch."""
    monkeypatch.setattr(search, "PAGE_S", 0.0)
    page = read("runs", RunQuery(limit=5, **asked))
    assert [run.id for run in page.runs] == found[:5]
    assert page.searched is None or "text" in asked


def test_a_search_says_where_it_stopped_and_goes_on_there(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PAGE_S", 0.0)
    looked, after, pages, found = 0, None, 0, []
    while True:
        query = RunQuery(text='"order":4242}', in_=("payload",), after=after)
        page = read("runs", query)
        pages, looked = pages + 1, looked + (page.searched or 0)
        found += [run.id for run in page.runs]
        if (after := page.next) is None or pages == 200:
            break
    assert pages == 200 and looked == 200 * 32
    monkeypatch.setattr(search, "PAGE_S", 60.0)
    page = read("runs", RunQuery(text='"order":4242}', after=after))
    assert [run.id for run in page.runs] == ["r-4242"]
    assert (page.next, page.searched, found) == (None, None, [])


def test_counts_stop_at_a_bound(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = read("counts")
    assert counts["waiting"] == counts["completed"] == Bounded(lists.COUNT_MAX, True)
    assert counts["failed"] == Bounded(1)
    assert counts["retrying"] == Bounded(0, True)
    monkeypatch.setattr(search, "COUNTS_S", 0.0)
    some = read("counts", RunQuery(workflow="often"))
    assert some["failed"].more and 0 < some["completed"].number < 1_000


def test_activity_of_many_runs(read: Read) -> None:
    found = read("activity", 10, 60_000)
    assert not found.partial
    assert [bucket.started for bucket in found.buckets] == [60] * 9 + [1]
    assert [bucket.completed for bucket in found.buckets] == [45] * 9 + [0]


def test_activity_that_is_too_much_to_count_is_said(
    large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted once is not counted again, and what was cut is empty."""
    monkeypatch.setattr(activity, "COUNTED_MAX", 130)
    db = connection.open_reader(large)
    reads = activity.ActivityReads(PageReads(Reader(db, large)))
    now_ms = NOW_MS + 60_000 * 1_000
    found = reads.read(now_ms, 10, 60_000)
    assert found.partial
    assert [bucket.completed for bucket in found.buckets] == [0] * 7 + [45, 45, 0]
    monkeypatch.setattr(activity, "COUNTED_MAX", 62)
    again = reads.read(now_ms, 3, 60_000)
    assert ([bucket.completed for bucket in again.buckets], again.partial) == ([45, 45, 0], False)
    db.close()


def steps_of(path: str, asked: RunQuery) -> int:
    """Steps of SQLite's machine that a list takes: the same on every computer."""
    db = connection.open_reader(path)
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    reads = PageReads(Reader(db, path))
    db.set_progress_handler(count, 1)
    search.Search(reads, search.wanted_of(asked, None)).page(asked.after, asked.limit)
    db.set_progress_handler(None)
    db.close()
    return steps


def test_a_list_costs_its_page(large: str, path: str) -> None:
    small = steps_of(path, RunQuery(limit=10))
    assert steps_of(large, RunQuery(limit=10)) <= 2 * small
    deep = RunQuery(limit=10, after="k30000")
    assert steps_of(large, deep) <= 2 * small


def test_runs_that_retry_are_counted_among_many_that_wait(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    db = connection.open_writer(path)
    db.execute(
        """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1900)
        INSERT INTO run (run, id, workflow, status, args, seed, waiting, created_ms)
        SELECT i, 'r-' || i, 'w', 'waiting', '{}', i, '[{"message":"go","seq":2}]', ?1 FROM n
        """,
        (NOW_MS,),
    )
    db.close()
    counts = reader_of(path)("counts")
    assert (counts["waiting"], counts["retrying"]) == (Bounded(1_900), Bounded(0))

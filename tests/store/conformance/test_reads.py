"""Reads that lists and pages stand on: they say what the whole reads say, without the payloads."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.core.events import ATTEMPT, COMPLETED, FAILED, START, STEP, Event
from perdure.errors import RunNotFound
from perdure.store.base import Store
from perdure.store.rows import RunFilter
from perdure.store.writes import Append
from tests.store.conformance.support import finish, one, owned, start, step_row

LARGE = b'{"error":{"type":"ValueError","message":"' + b"x" * 5_000 + b'"}}'
SMALL = b'{"error":{"type":"ValueError"}}'


def test_heads_are_rows_without_arguments_and_result(store: Store) -> None:
    for number in range(3):
        run, worker = owned(store, f"r{number}")
        one(store, Append(run, worker, [step_row(2, "work")]))
    one(store, finish(run, worker, "failed", 9, error=LARGE))
    more: list[dict[str, Any]] = [{}, {"status": "failed"}, {"limit": 2}, {"before": run}]
    for given in more:
        asked = RunFilter(**{"limit": 100, **given})
        heads = store.run_heads(asked)
        rows = store.run_rows(asked)
        assert [head.run for head in heads] == [row.run for row in rows]
        for head, row in zip(heads, rows, strict=True):
            assert (head.id, head.status, head.error) == (row.id, row.status, row.error)
            assert (head.ended_ms, head.history_rows) == (row.ended_ms, row.history_rows)
            assert store.run_head(head.id) == head
            assert store.run_row(row.run) == row


def test_an_outline_is_the_history_without_what_it_holds(store: Store) -> None:
    run, worker = owned(store)
    rows = [
        step_row(2),
        Event(3, ATTEMPT, 5, ref=2, data=SMALL, took_ms=1),
        Event(4, ATTEMPT, 6, ref=2, data=LARGE),
        Event(5, ATTEMPT, 7, ref=2, data=b'{"attempt":3,"began":true}'),
        Event(6, COMPLETED, 8, ref=2, data=b"1", took_ms=2),
    ]
    one(store, Append(run, worker, list(rows)))
    outline = store.history_outline(run, 0, None)
    whole = store.history_page(run, 0, None)
    assert [(row.seq, row.kind, row.ref, row.at_ms, row.took_ms) for row in outline] == [
        (row.seq, row.kind, row.ref, row.at_ms, row.took_ms) for row in whole
    ]
    failed = b'{"error":{}}'
    assert [row.data for row in outline] == [None, None, failed, failed, None, None]
    assert [row.kind for row in outline[:2]] == [START, STEP]
    assert store.history_outline(run, 1, 2) == outline[1:3]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_progress_counts_steps_and_has_the_newest_error(store: Store, data: bytes) -> None:
    run, worker = owned(store)
    rows = [
        step_row(2, "a"),
        step_row(3, "b"),
        step_row(4, "c"),
        Event(5, COMPLETED, 5, ref=2, data=b"1"),
        Event(6, FAILED, 6, ref=3, data=SMALL),
        Event(7, ATTEMPT, 7, ref=4, data=data),
        Event(8, ATTEMPT, 8, ref=4, data=b'{"attempt":2,"began":true}'),
    ]
    one(store, Append(run, worker, list(rows)))
    found = store.progress("r", 8)
    assert (found.scheduled, found.completed, found.failed, found.abandoned) == (3, 1, 1, 0)
    assert (found.open, found.error, found.error_of) == (["c"], rows[5], "c")
    assert store.progress("r", 0).open == []


def test_counts_by_status(store: Store) -> None:
    assert store.status_counts() == {}
    start(store, "a")
    for number, status in enumerate(("completed", "completed", "failed")):
        run, worker = owned(store, f"r{number}")
        one(store, finish(run, worker, status))
    assert store.status_counts() == {"pending": 1, "completed": 2, "failed": 1}


def test_reads_by_an_id_that_no_run_has(store: Store) -> None:
    for read in (store.run_head, store.status, lambda run_id: store.progress(run_id, 8)):
        with pytest.raises(RunNotFound):
            read("nobody")


def test_a_page_ends_with_its_run_whatever_row_it_is_to_begin_behind(store: Store) -> None:
    for number in range(3):
        run, _ = owned(store, f"r{number}")
        for after in (1, 1 << 24, 1 << 25, 1 << 53):
            assert store.history_page(run, after, None) == []
            assert store.history_outline(run, after, None) == []
        for seq in (2, 1 << 24, 1 << 24 | 1, 1 << 53):
            assert store.rows_about(run, seq) == []

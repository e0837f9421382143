"""Lines that steps log: kept with the run up to a limit, read by step and attempt, and carried."""

from __future__ import annotations

import msgspec

from perdure.core.names import LOGS
from perdure.errors import LeaseLost
from perdure.store.base import Store
from perdure.store.log_reads import LogRow
from perdure.store.log_writes import AddLogLines, LogLinesAdded, NewLine
from perdure.store.writes import ForkRun
from tests.store.conformance.support import one, owned, start


def line(seq: int, text: str, attempt: int = 1, at_ms: int = 5) -> NewLine:
    return seq, attempt, msgspec.json.encode({"message": text}), at_ms


def texts(rows: list[LogRow]) -> list[str]:
    return [msgspec.json.decode(row.data)["message"] for row in rows]


def add(run: int, owner: int, *lines: NewLine, most: int = 100) -> AddLogLines:
    return AddLogLines(run, owner, list(lines), [], most)


def test_lines_are_read_by_step_and_attempt_and_from_a_position_on(
    store: Store, other: Store
) -> None:
    run, worker = owned(store)
    assert store.last_log_line(run) == 0
    lines = [line(2, "a"), line(3, "b", 1, 6), line(2, "c", 2, 7), line(2, "d", 2, 8)]
    assert one(store, add(run, worker, *lines)) == LogLinesAdded(4, 4)
    found = other.log_lines(run, 0, 10)
    assert texts(found) == ["a", "b", "c", "d"]
    assert [(row.seq, row.attempt, row.at_ms) for row in found] == [
        (2, 1, 5), (3, 1, 6), (2, 2, 7), (2, 2, 8),
    ]  # fmt: skip
    assert texts(other.log_lines(run, 0, 10, 2)) == ["a", "c", "d"]
    assert texts(other.log_lines(run, 0, 10, 2, 2)) == ["c", "d"]
    assert texts(other.log_lines(run, 0, 2, 2, newest=True)) == ["c", "d"]
    assert texts(other.log_lines(run, found[1].position, 1)) == ["c"]
    assert other.last_log_line(run) == found[-1].position
    assert other.log_lines(start(store, "b").run, 0, 10) == []


def test_a_run_has_so_many_lines_and_says_what_is_left_out(store: Store) -> None:
    run, worker = owned(store)
    assert one(store, add(run, worker, line(2, "a"), line(2, "b"), most=3)) == LogLinesAdded(2, 2)
    full = add(run, worker, line(2, "c"), line(2, "d"), most=3)
    full.before = 2
    assert one(store, full) == LogLinesAdded(3, 1)
    more = add(run, worker, line(2, "e"), most=3)
    more.notices = [line(2, "1 line was dropped")]
    assert one(store, more) == LogLinesAdded(4, 0)
    assert texts(store.log_lines(run, 0, 10)) == ["a", "b", "c", "1 line was dropped"]


def test_only_the_owner_of_a_run_adds_lines(store: Store) -> None:
    run, worker = owned(store)
    assert isinstance(one(store, add(run, worker + 1, line(2, "a"))), LeaseLost)
    assert store.log_lines(run, 0, 10) == []


def test_a_fork_has_the_lines_of_the_rows_that_it_has(store: Store) -> None:
    run, worker = owned(store)
    one(store, add(run, worker, line(2, "a"), line(3, "b")))
    fork = one(store, ForkRun(run, "f", 3, 9)).run
    assert texts(store.log_lines(fork, 0, 10)) == ["a"]
    assert texts(store.log_lines(run, 0, 10)) == ["a", "b"]


def test_lines_are_items_of_a_stream(store: Store) -> None:
    run, worker = owned(store)
    one(store, add(run, worker, line(2, "a")))
    (item,) = store.stream(run, LOGS, 0, 10)
    assert (item.data, item.position) == (b'{"message":"a"}', store.last_log_line(run))

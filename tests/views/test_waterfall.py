"""Waterfalls: bars, attempts, children and idle stretches of recorded rows."""

from __future__ import annotations

from perdure.store.rows import BarRow
from perdure.views.waterfall import Bars, End, Try, waterfall


def row(seq, kind, at_ms, ref=None, name=None, took_ms=None, label=None, fault=None, began_ms=None):
    return BarRow(seq, kind, 1_000 + at_ms, ref, name, took_ms, label, fault, began_ms)


def bars(*rows, children=None):
    return Bars(1_000, list(rows), children or {}, len(rows))


def test_a_step_is_a_bar_from_its_row_to_its_outcome() -> None:
    found = waterfall(
        bars(
            row(1, "start", 0, name="report"),
            row(2, "step", 5, name="search", label='{"page":1}'),
            row(3, "step", 5, name="search"),
            row(4, "completed", 45, 2, took_ms=30),
        )
    )
    assert (found.names, found.name, found.seq) == (["search"], [0, 0], [2, 3])
    assert (found.status, found.took_ms) == (["completed", "open"], [40, None])
    assert found.label == {0: '{"page":1}'}
    assert found.work_ms == {0: 30}  # it waited ten milliseconds before it began
    assert found.last == 4


def test_attempts_without_success_have_their_own_times() -> None:
    found = waterfall(
        bars(
            row(2, "step", 0, name="charge"),
            row(3, "attempt", 40, 2, took_ms=30, fault="f", began_ms=1_010),
            row(4, "attempt", 90, 2, fault="c"),
            row(5, "completed", 200, 2, took_ms=20),
            row(6, "attempt", 300, fault="c"),
        )
    )
    assert found.tries == {2: [Try(10, 30, "failed"), Try(90, 0, "crash")]}
    assert found.attempts == [3]
    assert found.marks == [(6, 300, "crash")]


def test_a_death_of_the_process_is_an_attempt_of_each_open_step() -> None:
    found = waterfall(
        bars(
            row(2, "step", 0, name="search"),
            row(3, "step", 0, name="model"),
            row(4, "timer", 0),
            row(5, "completed", 10, 2, took_ms=10),
            row(6, "attempt", 90, fault="c"),
            row(7, "completed", 200, 3, took_ms=20),
            row(8, "attempt", 300, fault="c"),
            row(9, "step", 310, name="model"),
        )
    )
    assert found.attempts == [1, 2, 1, 1]


def test_a_page_that_follows_has_the_ends_of_earlier_bars() -> None:
    found = waterfall(
        bars(row(9, "completed", 80, 4, took_ms=70), row(10, "attempt", 95, 5, fault="f"))
    )
    assert found.seq == []
    assert found.ends == [End(4, "completed", 80, 70)]
    assert found.tries == {5: [Try(95, 0, "failed")]}


def test_a_long_wait_is_idle_and_one_between_two_attempts_too() -> None:
    day = 86_400_000
    found = waterfall(
        bars(
            row(2, "step", 0, name="a"),
            row(3, "completed", 100, 2, took_ms=100),
            row(4, "timer", 100),
            row(5, "fired", day, 4),
            row(6, "step", day, name="a"),
            row(7, "attempt", day + 100, 6, took_ms=100, fault="f", began_ms=1_000 + day),
            row(8, "completed", 2 * day, 6, took_ms=100),
        )
    )
    assert found.idle == [(100, day), (day + 100, 2 * day - 100)]


def test_children_are_named_by_their_runs() -> None:
    found = waterfall(bars(row(2, "child", 0, name="pack"), children={2: "order-1/2"}))
    assert found.run == {0: "order-1/2"}

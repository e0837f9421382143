"""What the checks of the campaign of queues make of its logs: planted faults are found, deaths and
freezes are taken for what they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from campaigns.queue_checks import Row, Seen, ends_ns, inside, outside
from campaigns.queue_log import Line
from campaigns.queue_worker import Given

STEPS, RUNS = Given("q", concurrency=1), Given("r", concurrency=1, runs=True)


def line(mark: str, at: int, *, worker: int = 1, holder: str = "a.1", queue: str = "q") -> Line:
    return Line(mark, at, 0, 10 + worker, worker, queue, "-", holder, holder)


def seen_outside(
    *lines: Line, ended: dict[int, int] | None = None, loose: Iterable[str] = ()
) -> Seen:
    seen = Seen()
    outside(lines, ended or {}, [STEPS, RUNS], loose, seen)
    return seen


def test_two_steps_at_once_are_an_overlap() -> None:
    one = [line("B", 0), line("E", 10)]
    seen = seen_outside(*one, line("B", 10, holder="b.1"), line("F", 12, holder="b.1"))
    assert (seen.broken, seen.holds) == ([], 2)
    other = [line("B", 9, worker=2, holder="b.1"), line("E", 12, worker=2, holder="b.1")]
    seen = seen_outside(one[0], other[0], one[1], other[1])
    assert "b.1 (worker 2) began beside a.1" in seen.broken[0]


def test_the_place_of_a_dead_worker_comes_back_with_its_lease_and_not_before() -> None:
    dead = line("B", 0)
    early = [line("B", 49, worker=2, holder="b.1"), line("E", 60, worker=2, holder="b.1")]
    late = [line("B", 50, worker=2, holder="b.1"), line("E", 60, worker=2, holder="b.1")]
    assert "began beside a.1" in seen_outside(dead, *early, ended={1: 50}).broken[0]
    assert seen_outside(dead, *late, ended={1: 50}).broken == []
    assert "has no end" in seen_outside(dead).broken[0]


def test_what_a_frozen_worker_does_after_its_lease_is_counted_apart() -> None:
    woken = [line("B", 0), line("B", 55, worker=2, holder="b.1"), line("E", 70)]
    after = [line("E", 80, worker=2, holder="b.1")]
    seen = seen_outside(*woken, *after, ended={1: 50})
    assert (seen.broken, seen.in_flight, seen.late) == ([], 1, 0)
    begun = [line("B", 60, holder="c.1"), line("E", 70, holder="c.1")]
    seen = seen_outside(*begun, ended={1: 50})
    assert (seen.broken, seen.in_flight, seen.late, seen.holds) == ([], 0, 1, 0)


def run(mark: str, at: int, *, worker: int = 1, name: str = "a") -> Line:
    return line(mark, at, worker=worker, holder=name, queue="r")


def test_a_run_has_its_place_between_its_steps_and_after_the_death_of_its_worker() -> None:
    parts = [run("B", 0), run("E", 10), run("B", 50, worker=2), run("E", 60, worker=2)]
    between = [run("B", 20, worker=3, name="b"), run("E", 30, worker=3, name="b")]
    assert seen_outside(*parts).broken == []
    assert "b (worker 3) began beside a" in seen_outside(*parts, *between).broken[0]
    killed = [run("B", 0), run("B", 50, worker=2), run("E", 60, worker=2)]
    assert seen_outside(*killed, *between, ended={1: 15}).broken
    assert seen_outside(*parts, *between, loose=["a"]).broken == []


def test_a_step_that_was_cancelled_ends_beside_the_next_one_of_its_run() -> None:
    """They are in one place; another run beside them is not."""
    each = Given("r", per_worker=1, runs=True)

    def broken(*lines: Line) -> list[str]:
        seen = Seen()
        outside(lines, {}, [each], (), seen)
        return seen.broken

    first, clean = replace(run("B", 0), work="a.1"), replace(run("B", 9), work="a.2")
    ended = [replace(first, mark="F", at_ns=10), replace(clean, mark="E", at_ns=20)]
    assert broken(first, clean, *ended) == []
    other = [run("B", 15, name="b"), run("E", 16, name="b")]
    assert "b (worker 1) began beside a" in broken(first, clean, *ended[:1], *other, ended[1])[0]


def row(what: str, place: int = 1, at_ms: int = 0, **more: object) -> Row:
    facts = {"queue": "q", "key": "", "priority": 0, "weight": 1, "taker": "worker:1"}
    facts |= {"real_ms": at_ms} | more
    return Row(what=what, place=place, at_ms=at_ms, **facts)  # type: ignore[arg-type]


def seen_inside(*rows: Row, given: Given = STEPS, skewed: bool = False) -> list[str]:
    seen = Seen()
    inside(list(rows), [given], seen, skewed=skewed)
    return seen.broken


def test_admissions_over_a_limit_or_before_a_higher_priority_are_told() -> None:
    assert "was admitted beside 1" in seen_inside(row("admitted", 1), row("admitted", 2))[0]
    free = [row("admitted", 1), row("released", 1), row("admitted", 2)]
    assert seen_inside(*free) == []
    asked = [row("asked", 1), row("asked", 2, priority=3), row("admitted", 1)]
    assert seen_inside(*asked) == []
    assert seen_inside(*asked, given=Given("q", concurrency=1, ordered=True))


def test_rates_are_judged_where_clocks_stood_still() -> None:
    rated = Given("q", rate=(10, 1.0, 2))
    steady = [row("admitted", n, at_ms) for n, at_ms in enumerate((0, 0, 100, 200))]
    assert seen_inside(*steady, given=rated) == []
    over = [*steady, row("admitted", 9, 250)]
    assert "0.50 tokens over 10 in 1000 ms" in seen_inside(*over, given=rated)[0]
    assert seen_inside(*over, given=rated, skewed=True) == []
    heavy = [row("admitted", 1, weight=2), row("admitted", 2, 100, weight=2)]
    assert seen_inside(*heavy, given=rated)
    keyed = [row("admitted", n, 0, key=key) for n, key in enumerate("aabb")]
    assert seen_inside(*keyed, given=Given("q", key_rate=(10, 1.0, 2))) == []
    assert seen_inside(*keyed, row("admitted", 9, 0, key="a"), given=Given("q", key_rate=(9, 1, 2)))


def test_a_queue_that_is_held_back_or_paused_admits_nothing() -> None:
    held = row("held", 0, 100)
    assert seen_inside(held, row("admitted", 1, 100)) == []
    assert "held back" in seen_inside(held, row("admitted", 1, 99))[0]
    assert "paused" in seen_inside(row("paused", 0), row("admitted", 1))[0]
    assert seen_inside(row("paused", 0), row("resumed", 0), row("admitted", 1)) == []


def test_a_hold_is_over_for_a_process_that_has_waited_with_an_earlier_time() -> None:
    """Its time is of before the hold's end, and another process has seen that end meanwhile."""
    held = row("held", 0, 100, real_ms=1)
    assert seen_inside(held, row("admitted", 1, 97, real_ms=102)) == []
    assert "for 1 ms more" in seen_inside(held, row("admitted", 1, 97, real_ms=99))[0]


def test_a_bucket_fills_by_the_latest_time_that_it_has_seen() -> None:
    """Something was spent at 190, then a place admitted that had asked before and waited."""
    rated, keyed = Given("q", rate=(10, 1.0, 2)), Given("q", key_rate=(10, 1.0, 2))
    for given, key in ((rated, ""), (keyed, "a")):
        begun = [row("admitted", n, 0, key=key) for n in range(2)]
        late = row("admitted", 3, 90, key=key)
        assert "0.10 tokens over" in seen_inside(*begun, late, given=given)[0]
        assert seen_inside(*begun, row("filled", 0, 190, key=key), late, given=given) == []


def test_ends_are_never_later_on_the_other_clock_than_they_were() -> None:
    lines = [Line("B", 5_900_000, 2, 1), Line("B", 7_100_000, 4, 1)]
    assert ends_ns([row("ended", 7, 10), row("asked", 8, 10)], lines) == {7: 13_100_000}

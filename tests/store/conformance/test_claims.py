"""Claims: in order of priority, in fair shares, and only what is due and has no owner."""

from __future__ import annotations

import random
from typing import Any

import pytest

from perdure.store.base import Store
from perdure.store.writes import Claim, ControlRun, Family, StartRun
from tests.store.conformance.support import join, one, owned, start

NOW_MS = 1_000


def fill(store: Store, runs: list[tuple[str, int, int]], prefix: str = "r") -> list[int]:
    """Runs without an owner: (workflow, priority, due_ms)."""
    starts = [
        StartRun(f"{prefix}-{n}", workflow, b"{}", 1, 0, due_ms, priority=priority)
        for n, (workflow, priority, due_ms) in enumerate(runs)
    ]
    found: list[Any] = store.write(starts, True)
    return [started.run for started in found]


def take(
    store: Store,
    worker: int,
    limit: int = 200,
    *,
    insists: bool = False,
    names: tuple[str, ...] = ("a", "b"),
) -> list[int]:
    found: list[int] = one(store, Claim(worker, names, limit, NOW_MS, insists)).runs
    return found


def test_a_claimed_run_has_an_owner_and_is_running(store: Store) -> None:
    (run,) = fill(store, [("a", 0, 5)])
    worker = join(store)
    assert take(store, worker) == [run]
    got = store.run_row(run)
    assert (got.status, got.owner, got.started_ms) == ("running", worker, NOW_MS)
    assert take(store, join(store)) == []


@pytest.mark.parametrize("number", [300, 4_500], ids=["few", "many"])
@pytest.mark.parametrize("seed", range(2))
def test_higher_priority_first_then_what_is_due_for_longer(
    store: Store, number: int, seed: int
) -> None:
    rng = random.Random(seed)
    runs = [
        (rng.choice("abc"), rng.randrange(-2, 3), rng.randrange(0, 2 * NOW_MS))
        for _ in range(number)
    ]
    keys = dict(zip(fill(store, runs), runs, strict=True))
    worker = join(store)
    due = [one for one in runs if one[0] != "c" and one[2] <= NOW_MS]
    wanted = sorted((-priority, due_ms) for _, priority, due_ms in due)
    got = [(-keys[run][1], keys[run][2]) for run in take(store, worker, 50) + take(store, worker)]
    assert got == wanted[:250]


def test_workers_share_what_is_due(store: Store, other: Store) -> None:
    fill(store, [("a", 0, 1)] * 100)
    workers = [join(store) for _ in range(4)]
    assert [len(take([store, other][n % 2], one)) for n, one in enumerate(workers)] == [25] * 4


def test_a_worker_that_has_more_to_do_takes_less(store: Store) -> None:
    busy, idle = join(store), join(store)
    fill(store, [("b", 0, 1)] * 40)
    assert len(take(store, busy, names=("b",), insists=True)) == 20
    fill(store, [("a", 0, 1)] * 20, "more")
    assert len(take(store, idle)) == 30
    assert len(take(store, busy)) == 10


def test_what_others_leave_is_taken_by_a_worker_that_insists(store: Store) -> None:
    """The other worker does not know these workflows, or is full."""
    one_of_two, _ = join(store), join(store)
    fill(store, [("a", 0, 1)] * 10)
    taken = [len(take(store, one_of_two, insists=n % 2 == 1)) for n in range(8)]
    assert taken[0] == 5
    assert sum(taken) == 10


def test_a_worker_alone_takes_what_it_has_room_for(store: Store) -> None:
    fill(store, [("a", 0, 1)] * 300)
    worker = join(store)
    assert [len(take(store, worker)) for _ in range(3)] == [200, 100, 0]


def test_a_worker_that_is_asked_takes_no_share_and_gets_its_family_only(store: Store) -> None:
    """Others share the rest as if it was not there."""
    worker, asked = join(store), join(store, asked=True)
    fill(store, [("a", 5, 1)] * 40)
    first = start(store, "x", workflow="a", due_ms=3).run
    family = store.family(first)
    assert family == Family(first, first)
    below = [
        start(store, f"x-{n}", workflow="ab"[n % 2], due_ms=n, root=family.root).run
        for n in range(4)
    ]
    assert store.family(below[0]) == Family(below[0], first)
    mine = Claim(asked, ("a", "b"), 4, NOW_MS, families=(family,))
    assert store.next_due_ms(("a", "b"), [family]) == 0
    assert store.next_due_ms(("b",), [family]) == 1
    assert store.next_due_ms(("none",), [family]) is None
    one(store, ControlRun("x-0", "pause", 0))
    assert store.next_due_ms(("a",), [family]) == 2
    one(store, ControlRun("x", "pause", 0))
    one(store, ControlRun("x-2", "pause", 0))
    assert store.next_due_ms(("a",), [family]) is None
    assert one(store, Claim(asked, ("a",), 4, NOW_MS, families=(family,))).runs == []
    for id in ("x", "x-0", "x-2"):
        one(store, ControlRun(id, "resume", 0))
    assert one(store, mine).runs == [*below[:3], first]
    assert one(store, mine).runs == [below[3]]
    assert one(store, mine).runs == []
    assert store.next_due_ms(("a", "b"), [family]) is None
    assert len(take(store, worker)) == 40


def test_what_is_due(store: Store, other: Store) -> None:
    assert store.next_due_ms(("a", "b")) is None
    assert store.due_count(("a",), NOW_MS, 10) == 0
    runs = fill(store, [("a", 0, 700), ("a", 3, 900), ("b", 0, 300), ("c", 0, NOW_MS + 1)])
    owned(store, "busy", workflow="a")
    for reader in (store, other):
        assert reader.next_due_ms(("a",)) == 700
        assert reader.next_due_ms(("a", "b", "none")) == 300
        assert reader.due_count(("a", "b", "c"), NOW_MS, 10) == 3
        assert reader.due_count(("a", "b"), NOW_MS, 2) == 2
        assert sorted(reader.due_names(NOW_MS)) == [("a", "r-0"), ("b", "r-2")]
        assert sorted(name for name, _ in reader.due_names(NOW_MS + 1)) == ["a", "b", "c"]
    one(store, ControlRun("r-2", "pause", 0))
    assert store.next_due_ms(("a", "b")) == 700
    assert store.due_count(("b",), NOW_MS, 10) == 0
    assert take(store, join(store), names=("b",)) == []
    assert take(store, join(store), insists=True, names=("a",)) == [runs[1]]

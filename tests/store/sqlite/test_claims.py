"""Claims in SQLite: the index and the sort give the same order, and cost the same for many runs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.core.limits import Limits
from perdure.store import claims
from perdure.store.rows import Started
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Claim, JoinWorker, StartRun, Write
from tests.store.support import instructions_of

NOW_MS = 1_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(str(tmp_path / "p.db"), limits=Limits())
    yield opened
    opened.close()


def one(store: SqliteStore, write: Write) -> Any:
    (result,) = store.write([write], True)
    return result


def workers(store: SqliteStore, number: int) -> list[int]:
    return [one(store, JoinWorker(f"w{n}", "here", n, "then", 0, 10_000)) for n in range(number)]


def fill(store: SqliteStore, runs: list[tuple[str, int, int]]) -> None:
    """Runs that nobody owns: (workflow, priority, due_ms)."""
    first = store._db.execute("SELECT count(*) FROM run").get
    starts = [
        StartRun(f"r-{first + n}", workflow, b"{}", 1, 0, due_ms, priority=priority)
        for n, (workflow, priority, due_ms) in enumerate(runs)
    ]
    store.write(starts, True)


def claim(
    store: SqliteStore,
    worker: int,
    limit: int = 200,
    *,
    insists: bool = False,
    names: tuple[str, ...] = ("a", "b"),
) -> list[int]:
    found: list[int] = one(store, Claim(worker, names, limit, NOW_MS, insists)).runs
    return found


@pytest.mark.parametrize("sorted_rows_max", [0, 1_000], ids=["by the index", "sorted"])
@pytest.mark.parametrize("seed", range(5))
def test_higher_priority_first_then_what_is_due_for_longer(
    store: SqliteStore, sorted_rows_max: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "SORTED_ROWS_MAX", sorted_rows_max)
    rng = random.Random(seed)
    runs = [
        (rng.choice("abc"), rng.randrange(-2, 3), rng.randrange(0, 2 * NOW_MS)) for _ in range(300)
    ]
    fill(store, runs)
    (worker,) = workers(store, 1)
    wanted = sorted(
        (-priority, due_ms)
        for workflow, priority, due_ms in runs
        if workflow != "c" and due_ms <= NOW_MS
    )
    got = [
        (-runs[run - 1][1], runs[run - 1][2])
        for run in claim(store, worker, 50) + claim(store, worker)
    ]
    assert got == wanted


def work_of(store: SqliteStore, wanted: Claim) -> int:
    """What a claim costs that finds as much as it may."""

    def claim_all() -> None:
        assert len(claims.due_runs(store._transaction, wanted)) == wanted.limit

    return instructions_of(store, claim_all)


def test_a_claim_of_a_family_takes_the_same_work_however_many_are_due(store: SqliteStore) -> None:
    first: Started = one(store, StartRun("x", "a", b"{}", 1, 0, None))
    wanted = Claim(1, ("a",), 50, NOW_MS, families=(store.family(first.run),))

    def more(runs: int) -> int:
        begin = store._db.execute("SELECT count(*) FROM run").get
        store.write(
            [
                StartRun(f"y-{begin + n}", "a", b"{}", 1, 0, n % NOW_MS, root=first.run)
                for n in range(runs)
            ],
            True,
        )
        fill(store, [("a", 0, 1)] * runs)
        return work_of(store, wanted)

    assert more(1_000) * 1.5 > more(10_000)


@pytest.mark.parametrize("priorities", [1, 50, 10**6], ids=lambda n: f"{n} priorities")
def test_a_claim_takes_the_same_work_however_many_runs_are_due(
    store: SqliteStore, priorities: int
) -> None:
    (worker,) = workers(store, 1)
    rng = random.Random(priorities)

    def work() -> int:
        return work_of(store, Claim(worker, ("a",), 50, NOW_MS))

    fill(store, [("a", rng.randrange(priorities), rng.randrange(NOW_MS)) for _ in range(1_500)])
    few = work()
    fill(store, [("a", rng.randrange(priorities), rng.randrange(NOW_MS)) for _ in range(15_000)])
    assert work() <= 2 * few

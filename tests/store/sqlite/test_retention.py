"""Retention of SQLite stores: every table is swept, and a search costs the same in a large file."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from perdure.core.events import START, Event
from perdure.core.limits import NEVER_MS, Limits
from perdure.store import retention
from perdure.store.retention_writes import PruneRuns, SweepPruned
from perdure.store.rows import RunFilter
from perdure.store.sqlite import export
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.export import COPIED
from perdure.store.sqlite.queries import Q
from perdure.store.writes import Append, Deliver, Finish, ForkRun, JoinWorker, StartRun, Turn
from tests.store.support import instructions_of

HOUR_MS = 3_600_000
OF_RUNS_ELSEWHERE = {"perdure_pruned_run"}
"""Tables with a column `run` that is no run's own row: what retention itself keeps."""


def store_at(path: Path) -> SqliteStore:
    return SqliteStore(str(path), limits=Limits())


def tables_with_runs(store: SqliteStore) -> set[str]:
    names = [
        name for (name,) in store._db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    ]
    return {
        name
        for name in names
        if any(column[1] == "run" for column in store._db.execute(f"PRAGMA table_xinfo({name})"))
    }


def test_every_table_of_runs_is_swept_and_archived(tmp_path: Path) -> None:
    store = store_at(tmp_path / "a.db")
    swept = [Q[name] for name in retention.SWEPT]
    swept += [Q["sweep_event"], Q["prune_run"], Q["drop_tags"]]
    unswept = {
        table
        for table in tables_with_runs(store)
        if not any(text.partition("DELETE FROM ")[2].split()[0] == table for text in swept)
    }
    assert unswept == OF_RUNS_ELSEWHERE
    archived = {export.Q[name].partition("main.")[2].split()[0] for name in COPIED}
    # An archive has the mask of a secret, and links to runs that have ended open nothing.
    left_out = {"perdure_pruned_run", "perdure_place", "perdure_secret", "perdure_link"}
    assert tables_with_runs(store) - archived == left_out
    store.close()


def filled(store: SqliteStore, runs: int) -> None:
    """Runs that have ended, each an hour after the other."""
    (worker,) = store.write([JoinWorker("w", "h", 1, "", 0, 10**12)], True)
    for first in range(0, runs, 500):
        hours = range(first, min(runs, first + 500))
        starts = [
            StartRun(f"r{n}", "flow", b"{}", 1, n, None, worker, first=[Event(1, START, n)])  # type: ignore[arg-type]
            for n in hours
        ]
        started = [one.run for one in store.write(starts, True)]  # type: ignore[union-attr]
        store.write([Deliver(f"r{n}", "message", 0, "c", key="k", data=b"1") for n in hours], True)
        ends = [
            Turn(run, worker, [], n * HOUR_MS, finish=Finish("completed"))  # type: ignore[arg-type]
            for run, n in zip(started, hours, strict=True)
        ]
        store.write(ends, True)


@pytest.mark.parametrize("after", [(-1, 0), (400 * HOUR_MS, 0)])
def test_a_search_costs_the_same_in_a_large_file(tmp_path: Path, after: tuple[int, int]) -> None:
    """Instructions of SQLite's machine, for 100 old runs, whatever else is there."""
    costs = []
    for runs in (1_000, 11_000):
        store = store_at(tmp_path / f"{runs}.db")
        filled(store, runs)
        look = partial(store.prunable, "completed", (runs - 400) * HOUR_MS, after, 100)
        assert len(look().found) == 100
        costs.append(instructions_of(store, look))
        store.close()
    assert costs[1] < 1.2 * costs[0]


def test_a_sweep_costs_the_same_in_a_large_file(tmp_path: Path) -> None:
    costs = []
    for runs in (1_000, 11_000):
        store = store_at(tmp_path / f"{runs}.db")
        filled(store, runs)
        found = store.prunable("completed", 50 * HOUR_MS, (-1, 0), 100).found
        assert len(found) == 50
        prune = PruneRuns(found, 0, lambda: False)
        sweep = SweepPruned(10**6, 0, NEVER_MS, lambda: False)
        costs.append(instructions_of(store, partial(store.write, [prune, sweep], True)))
        assert store.pruning().left == 0
        store.close()
    assert costs[1] < 1.2 * costs[0]


SEEDS = 20


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_stays_is_as_if_nothing_had_been_deleted(tmp_path: Path, seed: int) -> None:
    """Random families, retries and successors; what is kept can be read, and no number comes
    back."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    store = store_at(tmp_path / "a.db")
    (worker,) = store.write([JoinWorker("w", "h", 1, "", 0, 10**12)], True)
    keys: set[int] = set()
    open_runs: list[tuple[int, str]] = []
    for now in range(200):
        match chance.randrange(6):
            case 0 | 1:
                parent = (
                    chance.choice(open_runs)[0] if open_runs and chance.random() < 0.5 else None
                )
                start = StartRun(f"r{now}", "flow", b"{}", 1, now, None, worker, parent, 1)  # type: ignore[arg-type]
                start.parent_seq = None if parent is None else 1
                start.first = [Event(1, START, now)]
                (started,) = store.write([start], True)
                assert started.run not in keys  # type: ignore[union-attr]
                keys.add(started.run)  # type: ignore[union-attr]
                open_runs.append((started.run, f"r{now}"))  # type: ignore[union-attr]
            case 2 | 3 if open_runs:
                run, run_id = open_runs.pop(chance.randrange(len(open_runs)))
                finish = Finish(chance.choice(["completed", "failed", "cancelled"]))
                if chance.random() < 0.3:
                    successor = StartRun(run_id, "flow", b"{}", 1, now, None, worker)  # type: ignore[arg-type]
                    finish = Finish("completed", successor=successor)
                (written,) = store.write([Turn(run, worker, [], now, finish=finish)], True)  # type: ignore[arg-type]
                if finish.successor is not None:
                    later = written.woken[-1]  # type: ignore[union-attr]
                    assert later not in keys
                    keys.add(later)
                    open_runs.append((later, run_id))
            case 4:
                ended = store.run_rows(RunFilter(status="failed", limit=5))
                heads = [row for row in ended if "~" not in row.id]
                if heads and store.run_key(heads[0].id) == heads[0].run:
                    (again,) = store.write(
                        [ForkRun(heads[0].run, heads[0].id, 2, now, replace=True)], True
                    )
                    assert again.run not in keys  # type: ignore[union-attr]
                    keys.add(again.run)  # type: ignore[union-attr]
            case 5:
                for status in ("completed", "failed", "cancelled"):
                    found = store.prunable(status, now - 5, (-1, 0), 50).found
                    store.write([PruneRuns(found, now, lambda: False)], True)
                    store.write([SweepPruned(10**6, now, NEVER_MS, lambda: False)], True)
        for run, run_id in open_runs:
            row = store.run_row(run)
            assert row.id == run_id
            assert row.parent is None or store.statuses([row.parent])
            store.write([Append(run, worker, [])], True)  # type: ignore[arg-type]
    assert store.pruning().left == 0
    assert store.pragma("quick_check") == "ok"
    store.close()

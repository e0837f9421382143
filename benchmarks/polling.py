"""What one poll costs at a thousand finished runs and at a million: the ratio should be
about one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

from perdure import Limits
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Claim, JoinWorker

NAMES = ("alpha", "beta")
_FILL = """
INSERT INTO run (id, workflow, status, args, result, seed, created_ms, started_ms, ended_ms)
WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)
SELECT printf('alpha-%012d', i), 'alpha', 'completed', '{}', 'null', i, i, i, i FROM n
"""
_FILL_EVENTS = """
INSERT INTO event (key, kind, name, data, at_ms)
SELECT run << 24 | s.value,
    CASE s.value WHEN 1 THEN 'start' WHEN 2 THEN 'step' WHEN 3 THEN 'completed'
    ELSE 'finish' END, 'noop', '{}',
       created_ms
FROM run, json_each('[1,2,3,4]') AS s WHERE run >= ?1
"""


def polling(
    folder: Path, few: int = 1_000, many: int = 1_000_000, polls: int = 300
) -> tuple[list[float], list[float]]:
    """Microseconds of each round of all polling queries on a small and on a large
    store, in turn.
    """
    stores = [
        SqliteStore(str(folder / f"polling-{runs}.db"), limits=Limits()) for runs in (few, many)
    ]
    try:
        workers = [
            cast("int", store.write([JoinWorker("bench", "here", 1, "", 0, 10_000)], True)[0])
            for store in stores
        ]
        _fill(stores[0], 1, few)
        _fill(stores[1], 1, many)
        times: list[tuple[float, float]] = [
            (_poll(stores[0], workers[0]), _poll(stores[1], workers[1])) for _ in range(polls)
        ]
    finally:
        for store in stores:
            store.close()
    return [small for small, _ in times], [large for _, large in times]


def _fill(store: SqliteStore, first: int, last: int) -> None:
    store._db.execute("BEGIN")
    store._db.execute(_FILL, (first, last))
    store._db.execute(_FILL_EVENTS, (first,))
    store._db.execute("COMMIT")
    store._db.execute("PRAGMA optimize")


def _poll(store: SqliteStore, worker: int) -> float:
    """All that an idle engine asks again and again, in µs; the claim finds nothing and writes
    nothing.
    """
    begin = time.perf_counter()
    store.changed_by_others()
    store.next_due_ms(NAMES)
    store.inboxes_of(worker)
    store.paused_of(worker)
    store.workers()
    store.write([Claim(worker, NAMES, 100, 10**12)], True)
    return (time.perf_counter() - begin) * 1e6

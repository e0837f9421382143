"""A worker's lease is renewed from a thread: a busy event loop keeps its runs, one that never comes
back does not.
"""

from __future__ import annotations

import contextlib
import math
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Engine, receive, workflow
from perdure.core.limits import Limits
from perdure.errors import DefinitionError, StoreLocked
from perdure.runtime.membership import BEATS_PER_LEASE
from perdure.store.sqlite import connection
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import JoinWorker
from tests.runtime import blocker
from tests.runtime.support import Victim, awaited, until

LEASE_S = 2.0  # a thread that starves for three quarters of it is taken for dead
BLOCKER = Path(__file__).with_name("blocker.py")


@workflow
async def hears() -> str:
    return await receive("never", str)


@pytest.fixture
def db(tmp_path: Path) -> str:
    return str(tmp_path / "perdure.db")


def workers(db: str) -> list[tuple[int, int, bool]]:
    """Of each: its number, its beats, whether its lease was ended."""
    with contextlib.closing(apsw.Connection(db, flags=apsw.SQLITE_OPEN_READONLY)) as look:
        look.set_busy_timeout(10_000)
        return [
            (row[0], row[1], row[2] is not None)
            for row in look.execute("SELECT worker, beats, ended_ms FROM worker")
        ]


@awaited
async def test_a_loop_that_stands_still_for_several_leases_keeps_its_runs(db: str) -> None:
    with Victim(db, LEASE_S, script=BLOCKER) as holder:
        holder.says("BLOCKED")
        async with Engine(db, workflows=blocker.WORKFLOWS, lease_ttl=LEASE_S) as other:
            ((ours, begun, _), *_) = sorted(workers(db))
            await until(lambda: min(workers(db))[1] >= begun + 3 * BEATS_PER_LEASE)
            assert min(workers(db))[2] is False
            assert ours != other._scheduler.owner
            holder.tell("go")
            holder.says("RESULT")
            run = await other.get("b")
            assert await run.result() == blocker.MARK + str(BLOCKER)
            assert len(workers(db)) == 2


@awaited
async def test_a_loop_that_never_comes_back_loses_its_runs_and_can_tell_nothing_later(
    db: str,
) -> None:
    with Victim(db, LEASE_S, 2, script=BLOCKER) as holder:
        holder.says("BLOCKED")
        async with Engine(db, workflows=blocker.WORKFLOWS, lease_ttl=LEASE_S) as other:
            run = await other.get("b")
            taken_over = await run.result()
            assert taken_over == blocker.MARK + sys.argv[0]
            holder.tell("go")
            assert holder.says("RESULT").endswith(sys.argv[0])  # not what it has computed itself
            assert [event.kind for event in await run.history()].count("completed") == 1


@awaited
async def test_a_renewal_that_has_failed_for_a_fault_of_ours_is_begun_anew(db: str) -> None:
    async with Engine(db, workflows=[hears], lease_ttl=LEASE_S) as engine:
        membership = engine._scheduler._membership
        await engine.start(hears(), id="h")
        first = await until(lambda: membership._renewal)
        await until(lambda: first._connection)

        def breaks(worker: int, lease_ms: int) -> bool:
            raise RuntimeError("a fault of ours")

        first._connection.renew = breaks
        await until(lambda: membership._renewal is not first)
        beats = workers(db)[0][1]
        await until(lambda: workers(db)[0][1] > beats)
    assert not any(one is not None and one.alive for one in (first, membership._renewal))


@awaited
async def test_beats_wait_for_a_lock_and_go_on_after_it(db: str) -> None:
    async with Engine(db, workflows=[hears], lease_ttl=LEASE_S) as engine:
        await engine.start(hears(), id="h")
        beats = await until(lambda: engine._scheduler._membership._renewal)
        locks = apsw.Connection(db)
        locks.set_busy_timeout(10_000)
        locks.execute("BEGIN IMMEDIATE")
        await until(lambda: isinstance(beats.last_error, StoreLocked))
        locks.execute("COMMIT")
        locks.close()
        await until(lambda: beats.last_error is None)


@pytest.mark.parametrize("sealed", [False, True])
def test_beats_alone_do_not_let_a_wal_grow_and_leave_that_of_a_replicated_file_to_litestream(
    tmp_path: Path, sealed: bool
) -> None:
    store = SqliteStore(str(tmp_path / "a.db"), limits=Limits())
    beat = store.lease_connection(1_000)
    assert beat is not None
    (worker,) = store.write([JoinWorker("one", "here", 1, "", 0, 1_000)], True)
    assert isinstance(worker, int)
    if sealed:
        store.begin_epoch("s", "file:///somewhere", 1)
    for _ in range(3_000):
        assert beat.renew(worker, 1)
    assert beat.renew(worker + 1, 1) is False
    wal = tmp_path / "a.db-wal"
    assert (wal.stat().st_size > 3_000 * connection.PAGE_BYTES) is sealed
    size = wal.stat().st_size
    beat.close()
    assert wal.stat().st_size == size
    store.close()


def test_in_memory_there_is_nobody_to_beat_for() -> None:
    store = SqliteStore(":memory:", limits=Limits())
    assert store.lease_connection(1_000) is None
    store.close()


@pytest.mark.parametrize(
    "lease",
    [
        0.999,
        0.1,
        0,
        -5,
        math.nan,
        math.inf,
        -math.inf,
        "10",
        True,
        None,
        timedelta(milliseconds=999),
        timedelta(days=-1),
        [10],
    ],
)
def test_a_lease_that_could_not_be_kept_is_refused(lease: Any) -> None:
    with pytest.raises(DefinitionError, match="lease_ttl"):
        Engine("never-made.db", lease_ttl=lease)


def test_the_refusal_names_the_shortest_lease_and_that_one_is_taken() -> None:
    with pytest.raises(DefinitionError, match="The smallest that can be kept is 1 s"):
        Engine("never-made.db", lease_ttl=0.4)
    for lease in (1, 1.0, timedelta(seconds=1), 3_600, timedelta(days=1)):
        Engine("never-made.db", lease_ttl=lease)
    Engine("never-made.db", lease_ttl=0.1, execute=False)  # a client has no lease

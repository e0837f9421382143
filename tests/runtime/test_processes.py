"""Several processes on one file: who owns a run, who takes over and when, who is told, and who must
write no more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Engine, Limits, RunCancelled, current_step, step, workflow
from perdure.errors import StoreTooNew
from perdure.process import identity
from perdure.runtime.membership import BEATS_PER_LEASE, Membership
from perdure.store.rows import WorkerRow
from perdure.store.sqlite.connection import SCHEMA_VERSION, open_reader
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Claim, JoinWorker, Turn
from tests.runtime import victim
from tests.runtime.support import Victim, awaited, freeze, outside, reached, until

LEASE_S = 2.0  # a process that starves for three quarters of it is taken for dead


def rows(db: str, sql: str) -> list[Any]:
    reader = open_reader(db)
    try:
        return reader.execute(sql).fetchall()
    finally:
        reader.close()


# --- every verb from any process ------------------------------------------------------------------


@awaited
async def test_any_process_starts_sends_cancels_and_waits_for_runs_of_others(db: str) -> None:
    """Two processes execute; two engines here only watch, and neither knows what the other has
    asked for.
    """
    with Victim(db, "execute") as one, Victim(db, "execute") as two:
        one.says("OPEN")
        two.says("OPEN")
        async with Engine(db, execute=False) as asks, Engine(db, execute=False) as watches:
            for i in range(6):
                await asks.start(victim.waiting(2), id=f"w{i}")
            waiting = [asyncio.create_task((await watches.get(f"w{i}")).result()) for i in range(6)]
            for i in range(5):
                await watches.send(f"w{i}", i, channel="numbers", key="first")
                await asks.send(f"w{i}", i, channel="numbers", key="first")
                await asks.send(f"w{i}", 10 * i, channel="numbers")
            await asks.cancel("w5")
            done = await asyncio.gather(*waiting, return_exceptions=True)
            assert done[:5] == [[i, 10 * i] for i in range(5)]
            assert isinstance(done[5], RunCancelled)
        one.tell("end")
        two.tell("end")
        assert (one.ended(), two.ended()) == (0, 0)
    assert {row["status"] for row in outside(db, "SELECT status FROM perdure_workers")} == {"ended"}


release = asyncio.Event()
held: list[str] = []


@step
async def hold(name: str) -> None:
    held.append(name)
    await release.wait()


@workflow
async def holds(name: str) -> None:
    await hold(name)


@awaited
async def test_no_engine_takes_all_that_is_due(db: str) -> None:
    """What a client starts is shared by those that execute; one that is alone takes the rest."""
    global release
    release = asyncio.Event()
    held.clear()
    async with (
        Engine(db, workflows=[holds]),
        Engine(db, workflows=[holds]),
        Engine(db, execute=False) as client,
    ):
        runs = await asyncio.gather(*(client.start(holds(str(n)), id=f"h{n}") for n in range(40)))
        await until(lambda: len(held) == 40)
        shares = [
            count
            for _, count in rows(
                db, "SELECT owner, count(*) FROM run WHERE status = 'running' GROUP BY owner"
            )
        ]
        release.set()
        await asyncio.gather(*(run.result() for run in runs))
    assert sum(shares) == 40
    assert min(shares) >= 10, shares
    assert len(shares) == 2


@workflow
async def hear_one() -> int:
    from perdure import receive

    return await receive("numbers", int)


@awaited
async def test_two_engines_in_one_process_share_a_file(db: str) -> None:
    async with Engine(db, workflows=[hear_one]) as one, Engine(db, workflows=[hear_one]) as two:
        assert one._scheduler.owner != two._scheduler.owner
        mine = [await one.start(hear_one(), id=f"a{i}") for i in range(5)]
        yours = [await two.start(hear_one(), id=f"b{i}") for i in range(5)]
        for i in range(5):
            await two.send(f"a{i}", i, channel="numbers")
            await one.send(f"b{i}", i, channel="numbers")
        assert await asyncio.gather(*(run.result() for run in mine + yours)) == [
            *range(5),
            *range(5),
        ]
        # An engine that closes lets go of what it was executing, and the other one goes on with it.
        left = await two.start(hear_one(), id="left")
        await reached(left, "waiting")
        await two.__aexit__(None, None, None)
        await one.send("left", 7, channel="numbers")
        assert await (await one.get("left")).result() == 7


@awaited
async def test_a_run_whose_last_turn_is_being_written_is_not_begun_anew(db: str) -> None:
    """Its end was in the writer's thread, the file locked by another process; news for the run
    loaded it once more.
    """
    attempts: list[int] = []
    go = asyncio.Event()

    @step
    async def last() -> int:
        attempts.append(current_step().attempt)
        await go.wait()
        return 1

    @workflow
    async def short() -> int:
        return await last()

    async with Engine(db, workflows=[short]) as engine:
        run = await engine.start(short(), id="short")
        await until(lambda: attempts)
        other = apsw.Connection(db)
        other.execute("BEGIN IMMEDIATE")
        go.set()
        await until(lambda: engine._parts().writer.busy)
        engine._scheduler.woken(
            [engine._store.run_key("short")]
        )  # as after a message that was committed a moment ago
        for _ in range(5):
            await asyncio.sleep(0)
        other.execute("COMMIT")
        other.close()
        assert await run.result() == 1
        assert [event.kind for event in await engine.history("short")] == [
            "start",
            "step",
            "completed",
            "finish",
        ]
    assert attempts == [1]


@awaited
async def test_a_run_is_kept_in_memory_until_its_end_is_written(db: str) -> None:
    """An earlier turn, committed after the run had come to its end in memory, was taken for the
    last one.
    """
    other: list[apsw.Connection] = []
    go = asyncio.Event()

    @step(readonly=True)
    async def ahead() -> int:
        other.append(apsw.Connection(db))
        other[0].execute("BEGIN IMMEDIATE")
        await go.wait()
        return 1

    @workflow
    async def short() -> int:
        return await ahead()

    kept: list[bool] = []
    async with Engine(db, workflows=[short]) as engine:
        store, scheduler = engine._store, engine._scheduler
        write = store.write

        def watched(batch: Any, wait_for_lock: bool) -> Any:
            kept.extend(
                turn.run in scheduler.memory.active
                for turn in batch
                if isinstance(turn, Turn) and turn.finish
            )
            return write(batch, wait_for_lock)

        store.write = watched  # type: ignore[method-assign]
        run = await engine.start(short(), id="short")
        sending = asyncio.create_task(
            engine.send("short", 1, channel="any")
        )  # waits for the lock, and all writes behind it
        await until(lambda: engine._parts().writer.busy)
        go.set()
        await until(lambda: all(active.gone for active in scheduler.memory.active.values()))
        other[0].execute("COMMIT")
        other[0].close()
        assert await run.result() == 1
        await sending
        assert kept
        assert all(kept)


# --- take-over ------------------------------------------------------------------------------------


def strange_worker(db: str, ttl_ms: int, workflow: str) -> int:
    """A worker of another machine that claims what is due and is never heard of again."""
    store = SqliteStore(db, limits=Limits())
    [worker] = store.write([JoinWorker("strange", "elsewhere", 1, "", 0, ttl_ms)], True)
    assert isinstance(worker, int)
    store.write([Claim(worker, (workflow,), 10, 2**60)], True)
    store.close()
    return worker


@awaited
async def test_a_silent_worker_of_another_machine_is_buried_within_one_lease(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease is four beats of the worker that watches, with one that may have come just before; no
    clock is asked.
    """
    silent_for, looks = Membership._silent_for, []

    def look(membership: Membership, row: WorkerRow, counts: bool) -> int:
        looks.append(silent_for(membership, row, counts))
        return looks[-1]

    monkeypatch.setattr(Membership, "_silent_for", look)
    async with Engine(db, execute=False) as client:
        run = await client.start(victim.waiting(0), id="w")
        worker = strange_worker(db, round(LEASE_S * 1000), "waiting")
        assert rows(db, "SELECT owner FROM run") == [(worker,)]
        async with Engine(db, workflows=[victim.waiting], lease_ttl=LEASE_S):
            assert await run.result() == []
    assert max(looks) == BEATS_PER_LEASE - 1
    assert rows(db, "SELECT crashes FROM run") == [(1,)]


@awaited
async def test_beats_that_come_early_bury_nobody(db: str) -> None:
    """After it lost its own lease a worker looked again for each refused run, and took that for
    time in which others were silent.
    """
    async with Engine(db, workflows=[victim.waiting], lease_ttl=60) as engine:
        worker = strange_worker(db, 60_000, "waiting")
        for _ in range(3 * BEATS_PER_LEASE):
            await engine._scheduler._membership.look()
        assert rows(db, f"SELECT ended_ms FROM worker WHERE worker = {worker}") == [(None,)]


@awaited
async def test_a_process_frozen_for_longer_than_its_lease_writes_nothing_and_joins_anew(
    db: str, tmp_path: Path
) -> None:
    with Victim(db, "execute", LEASE_S) as frozen, Victim(db, "execute", LEASE_S) as other:
        frozen.says("OPEN")
        async with Engine(db, execute=False) as client:
            other.says("OPEN")
            freeze(other.pid, db)  # so that the first one gets the run
            run = await client.start(victim.handed_over(str(tmp_path)), id="h")
            await until(lambda: victim.effects(tmp_path) == [f"begin one {frozen.pid}"])
            freeze(frozen.pid, db)
            os.kill(other.pid, signal.SIGCONT)
            await until(lambda: f"begin one {other.pid}" in victim.effects(tmp_path))
            (tmp_path / f"go-{frozen.pid}").touch()
            os.kill(frozen.pid, signal.SIGCONT)
            await until(lambda: f"end one {frozen.pid}" in victim.effects(tmp_path))
            again = (
                f"SELECT worker FROM worker WHERE pid = {frozen.pid} AND ended_ms IS NULL AND "
                f"worker > 2"
            )
            await until(lambda: rows(db, again))
            assert "completed" not in [event.kind for event in await client.history("h")]
            (tmp_path / f"go-{other.pid}").touch()
            assert await run.result() == [other.pid, other.pid]
            log = victim.effects(tmp_path)
            assert f"begin two {frozen.pid}" not in log
        frozen.tell("end")
        assert frozen.process.wait(60) == 0
        assert frozen.process.stderr is not None
        assert (
            "lost its lease; it drops its runs and joins anew"
            in frozen.process.stderr.read().decode()
        )


@awaited
async def test_when_the_whole_machine_sleeps_for_longer_than_a_lease_nobody_is_buried(
    db: str, tmp_path: Path
) -> None:
    """While leases were dates, whoever woke first buried the others, and their runs were executed
    twice.
    """
    with Victim(db, "execute", LEASE_S) as one, Victim(db, "execute", LEASE_S) as two:
        one.says("OPEN")
        two.says("OPEN")
        async with Engine(db, execute=False) as client:
            run = await client.start(victim.handed_over(str(tmp_path)), id="h")
            await until(lambda: victim.effects(tmp_path))
            for process in (one, two):
                freeze(process.pid, db)
            await until(lambda: leases_are_over(db))
            for process in (one, two):
                os.kill(process.pid, signal.SIGCONT)
            await until(lambda: leases_are_kept(db))
            kept = f"SELECT worker, lease_ms FROM worker WHERE {KEPT}"
            ((owner,),) = rows(db, "SELECT owner FROM run")
            begun = dict(rows(db, kept))[owner]
            await until(lambda: dict(rows(db, kept))[owner] > begun + 2000 * LEASE_S)
            assert rows(db, "SELECT worker FROM worker WHERE ended_ms IS NULL") == [(1,), (2,)]
            for process in (one, two):
                (tmp_path / f"go-{process.pid}").touch()
            assert len(set(await run.result())) == 1
    assert len(victim.effects(tmp_path)) == 4


KEPT = "ended_ms IS NULL AND ttl_ms < 60000"
"""A worker that owns a run, and not one that rests."""


def leases_are_over(db: str) -> bool:
    return all(
        lease_ms < time.time() * 1000 - 200
        for (lease_ms,) in rows(db, f"SELECT lease_ms FROM worker WHERE {KEPT}")
    )


def leases_are_kept(db: str) -> bool:
    return all(
        lease_ms > time.time() * 1000
        for (lease_ms,) in rows(db, f"SELECT lease_ms FROM worker WHERE {KEPT}")
    )


# --- who is dead ----------------------------------------------------------------------------------

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="there is no /proc here"
)


@needs_proc
def test_a_pid_that_came_round_again_is_not_the_old_process() -> None:
    pid = os.getpid()
    assert not identity.is_dead(identity.host(), pid, identity.born(pid))
    assert not identity.is_dead(identity.host(), pid, "")  # when it was born was not known
    assert identity.is_dead(identity.host(), pid, "17")
    assert not identity.is_dead(
        "elsewhere", pid, "17"
    )  # another machine, or another container: only its lease tells


@needs_proc
def test_a_process_may_be_called_anything() -> None:
    """A name that is not UTF-8 stopped the look for the dead; brackets in it must not be taken for
    the end of the name.
    """
    code = (
        r"open('/proc/self/comm', 'wb').write(b'\xff) Z 1 ('); print('named', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        born = identity.born(process.pid)
        assert born.isdigit()
        assert not identity.is_dead(identity.host(), process.pid, born)
        process.kill()
        process.poll()
        process.wait()
    assert identity.is_dead(identity.host(), process.pid, born)


# --- an older engine on a newer file --------------------------------------------------------------


@awaited
async def test_an_engine_stops_writing_when_a_newer_one_brings_the_file_up_to_date(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[int] = []
    go = asyncio.Event()

    @step
    async def first() -> int:
        begun.append(1)
        await go.wait()
        return 1

    @step
    async def second() -> int:
        begun.append(2)
        return 2

    @workflow
    async def both() -> int:
        return await first() + await second()

    async with Engine(db, workflows=[both], lease_ttl=LEASE_S) as engine:
        await engine.start(both(), id="both")
        await until(lambda: begun)
        newer = apsw.Connection(db)
        newer.execute("BEGIN IMMEDIATE")
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        newer.execute("COMMIT")
        before = newer.execute("SELECT key, kind, data FROM event").fetchall()
        with caplog.at_level(logging.ERROR, logger="perdure"):
            go.set()
            with pytest.raises(
                StoreTooNew, match=f"has schema version {SCHEMA_VERSION + 1}.*Upgrade perdure"
            ):
                await engine.send("both", 1, channel="numbers")
            await until(lambda: engine._parts().writer.last_error)
    assert begun == [1]
    assert newer.execute("SELECT key, kind, data FROM event").fetchall() == before
    newer.close()
    assert "Upgrade perdure to open it" in caplog.text
    with pytest.raises(StoreTooNew):
        async with Engine(db):
            pass

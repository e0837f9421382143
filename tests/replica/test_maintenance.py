"""Maintenance: an epoch that can't be continued is given up for a new copy, which is whole."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

import perdure
from campaigns.faulty_proxy import Proxy
from perdure import RunCancelled, step, workflow
from perdure.errors import ReplicaLeaseLost, ReplicaUnavailable
from perdure.replica import epoch_policy
from perdure.replica.buckets import open_bucket
from perdure.replica.supervisor import Litestream
from tests.replica.support import (
    address,
    all_there,
    effects,
    engine_of,
    gone,
    hasty,
    in_epoch,
    litestream_of,
    long_text,
    looks_often,
    nothing_seen,
    proxy,
    replica_of,
    two_effects,
)
from tests.runtime.support import PATIENCE_S, awaited, until

__all__ = ["address", "looks_often", "nothing_seen", "proxy"]  # fixtures


# --- what Litestream keeps on this disk, and what is in the bucket --------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@awaited
async def test_a_local_state_that_is_damaged_leads_to_a_new_copy(tmp_path: Path) -> None:
    """It takes some seconds each time, so all wait together."""
    await asyncio.gather(
        *(
            leads_to_a_new_copy(tmp_path / what, what)
            for what in ("gone", "cut", "no folder", "a file in its place")
        )
    )


async def leads_to_a_new_copy(place: Path, what: str) -> None:
    place.mkdir()
    store, replica = place / "a.db", f"file://{place}/bucket"
    async with engine_of(store, replica) as engine:
        await engine.run(two_effects("before"), id="before")
        folder = place / "a.db-replica" / "litestream"
        last = max((folder / "ltx" / "0").iterdir())
        match what:
            case "gone":
                last.unlink()
            case "cut":
                cut(last)
            case "no folder":
                shutil.rmtree(folder)
            case _:
                shutil.rmtree(folder)
                folder.write_text("a user's notes")
        assert await engine.run(two_effects("after"), id="after") == "after-1after-2", what
        # a Litestream that is started again meanwhile makes its whole copy in the same epoch
        status = replica_of(engine).status()
        assert status.epoch == 2 or (status.epoch, bool(status.restarts)) == (1, True), what
    await all_there(store, replica, {"before", "after"})


@pytest.mark.parametrize("which", ["last", "all"])
def test_objects_that_are_deleted_from_the_bucket_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr("perdure.replica.maintenance.OBJECTS_S", 0.05)

    @awaited
    async def main() -> None:
        store, replica = tmp_path / "a.db", f"file://{tmp_path}/bucket"
        async with engine_of(store, replica) as engine:
            await engine.run(two_effects("before"), id="before")
            objects = list((tmp_path / "bucket" / "000001").rglob("*.ltx"))
            last = max(
                path.name.rpartition("-")[2] for path in objects
            )  # it may have been merged into another one by now
            for path in objects:
                if which == "all" or path.name.endswith(last):
                    path.unlink()
            await in_epoch(engine, 2)  # by itself
            await engine.run(two_effects("after"), id="after")
            await until(lambda: replica_of(engine).status().state == "replicating")
            assert (await replica_of(engine).verify())["ok"]
        await all_there(store, replica, {"before", "after"})

    main()


@awaited
async def test_a_copy_that_is_known_to_be_broken_confirms_nothing_until_a_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one may have to wait, because one was begun a moment ago."""
    decide, may_begin = epoch_policy.EpochPolicy.decide, asyncio.Event()
    monkeypatch.setattr(
        epoch_policy.EpochPolicy,
        "decide",
        lambda self, facts: decide(self, facts) if may_begin.is_set() else None,
    )
    store, replica = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, replica) as engine:
        await engine.run(two_effects("before"), id="before")
        for path in (tmp_path / "bucket" / "000001").rglob("*.ltx"):
            path.unlink()
        await replica_of(engine).maintenance.look_at_objects()
        missing = pytest.raises(
            ReplicaUnavailable, match=r"objects of epoch 1 are missing .*; a new copy is made"
        )
        with hasty(engine), missing:  # it is found, and was confirmed by what is gone
            await engine.start(two_effects("before"), id="before")
        with hasty(engine), pytest.raises(ReplicaUnavailable, match="a new copy is made"):
            await engine.start(two_effects("after"), id="after")
        assert "after-1" not in effects
        may_begin.set()
        assert await (await engine.get("after")).result() == "after-1after-2"
    await all_there(store, replica, {"before", "after"})


# --- other programs -------------------------------------------------------------------------------


@awaited
async def test_a_program_that_checkpoints_while_litestream_is_away_costs_a_copy_and_no_work(
    tmp_path: Path,
) -> None:
    store, replica = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, replica) as engine:
        await engine.run(long_text(40_000), id="long")
        litestream = litestream_of(engine)
        assert litestream.pid is not None
        os.kill(litestream.pid, signal.SIGKILL)  # from here on the event loop does not run
        sql = "CREATE TABLE mine (a); INSERT INTO mine VALUES (1); PRAGMA wal_checkpoint(RESTART)"
        subprocess.run(["sqlite3", str(store), sql], check=True, capture_output=True)
        assert await engine.run(two_effects("after"), id="after") == "after-1after-2"
        assert replica_of(engine).status().epoch == 2
        assert (await replica_of(engine).verify())["ok"]
    await all_there(store, replica, {"long", "after"})
    assert apsw.Connection(str(store)).execute("SELECT count(*) FROM mine").get == 1


# --- room, descriptors, the writer ----------------------------------------------------------------


@step(durability="disk")
async def kept(n: int, size: int) -> str:
    await asyncio.sleep(0.01)  # others get their turn, as beside real work
    return f"{n}" + "x" * size


@workflow
async def many(n: int, size: int) -> int:
    return sum([len(await kept(i, size)) for i in range(n)])


@awaited
async def test_what_waits_for_an_absent_bucket_is_bounded_while_work_for_the_disk_goes_on(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    store, limit = tmp_path / "a.db", 3_000_000
    limits = perdure.Limits(replica_bytes_max=limit)
    async with engine_of(
        store, address, workflows=[many, two_effects], durability="disk", limits=limits
    ) as engine:
        replica, wal = replica_of(engine), Path(f"{store}-wal")
        run = await engine.start(many(10_000, 100_000), id="many")
        proxy.set("refuse")
        for _ in range(
            2
        ):  # it goes on, and what it has written goes into the store again and again
            await until(lambda: wal.stat().st_size > limit / 2)
            await until(lambda: wal.stat().st_size < limit / 4)
        await until(lambda: replica.barrier.full is not None)
        assert replica.status().state == "failing"
        await engine.cancel("many")
        with pytest.raises(RunCancelled):
            await run.result()
        with pytest.raises(ReplicaUnavailable, match="nothing new is begun"):
            await engine.start(two_effects("late"))
        proxy.set()
        await in_epoch(engine, 2)
        await until(lambda: replica.barrier.full is None and replica.status().lag_s == 0)
        assert await engine.run(two_effects("after"), id="after") == "after-1after-2"
        assert (await replica.verify())["ok"]


@awaited
async def test_what_is_copied_does_not_count(tmp_path: Path, looks_often: None) -> None:
    """Litestream keeps what it has copied for minutes."""
    limits = perdure.Limits(replica_bytes_max=8_000_000)
    async with engine_of(tmp_path / "a.db", f"file://{tmp_path}/bucket", limits=limits) as engine:
        for n in range(30):
            await engine.run(long_text(200_000), id=f"r{n}")
        assert replica_of(engine).barrier.full is None
        assert replica_of(engine).status().epoch == 1
        kept_bytes = sum(
            path.stat().st_size
            for path in (tmp_path / "a.db-replica" / "litestream").rglob("*.ltx")
        )
        await until(lambda: replica_of(engine).maintenance.disk.sizes.copied < 4_000_000)
        assert kept_bytes < 8_000_000


@pytest.fixture
def few_descriptors() -> Iterator[Callable[[], None]]:
    """Call it, and no file can be opened any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda: resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard)
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="it counts by /proc")
def test_work_goes_on_by_itself_after_a_time_without_descriptors(
    tmp_path: Path, few_descriptors: Callable[[], None]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    @awaited
    async def main() -> None:
        async with engine_of(tmp_path / "a.db", f"file://{tmp_path}/bucket") as engine:
            await engine.run(two_effects("before"), id="before")
            litestream = litestream_of(engine)
            assert litestream.pid is not None
            few_descriptors()
            os.kill(litestream.pid, signal.SIGKILL)
            work = asyncio.create_task(engine.run(two_effects("during"), id="during"))
            await until(lambda: litestream.restarts >= 2)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await work == "during-1during-2"
        await all_there(tmp_path / "a.db", f"file://{tmp_path}/bucket", {"before", "during"})

    main()


@awaited
async def test_a_new_epoch_waits_for_a_transaction_that_the_writer_is_in(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    @step(transactional=True)
    def slow(db: apsw.Connection) -> int:
        db.execute("CREATE TABLE IF NOT EXISTS mine (a)")
        db.execute("INSERT INTO mine VALUES (1)")
        inside.set()
        go_on.wait(PATIENCE_S)
        return int(db.execute("SELECT count(*) FROM mine").get)

    @workflow
    async def writes() -> int:
        return await slow()

    store, replica = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, replica, workflows=[writes, two_effects]) as engine:
        work = asyncio.create_task(engine.run(writes(), id="w"))
        await asyncio.to_thread(inside.wait, PATIENCE_S)
        anew = asyncio.create_task(replica_of(engine).maintenance.begin_epoch())
        await until(lambda: replica_of(engine).lease.row.epoch == 2)
        go_on.set()
        await anew
        assert await work == 1
        assert await engine.run(two_effects("a"), id="a") == "a-1a-2"
        seal = engine._store.checksum()
        assert seal is not None
        assert seal.epoch == 2
    gone(store)
    async with engine_of(store, replica, workflows=[writes, two_effects]) as engine:
        assert await (await engine.get("w")).result() == 1


@awaited
async def test_an_engine_that_loses_its_lease_while_a_new_epoch_begins_copies_nothing_more(
    tmp_path: Path,
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, f"file://{tmp_path}/bucket") as engine:
        replica = replica_of(engine)
        async with replica.copier.moving:  # the new epoch waits for a drill
            anew = asyncio.create_task(replica.maintenance.begin_epoch())
            thief = msgspec.structs.replace(replica.lease.row, holder="another engine", epoch=2)
            bucket = open_bucket(replica.address)
            await bucket.put("taken/000002.json", b"another engine")
            await bucket.put("lease.json", msgspec.json.encode(thief))
            await asyncio.wait([replica.lease.lost])
        with pytest.raises(ReplicaLeaseLost):
            await anew
        with pytest.raises(ReplicaLeaseLost):
            await replica.copier.start()
        assert not (tmp_path / "bucket" / "000003").exists()


@awaited
async def test_a_start_that_is_cancelled_twice_leaves_no_litestream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, start = asyncio.Queue[Litestream](), Litestream.start

    async def noted(self: Litestream) -> None:
        begun.put_nowait(self)
        await start(self)

    monkeypatch.setattr(Litestream, "start", noted)
    engine = engine_of(tmp_path / "a.db", f"file://{tmp_path}/bucket")
    entering = asyncio.create_task(engine.__aenter__())
    litestream = await begun.get()
    await until(lambda: litestream.pid is not None)
    assert litestream.pid is not None
    os.kill(litestream.pid, signal.SIGSTOP)
    for _ in range(2):
        entering.cancel()
        await asyncio.sleep(0)  # it gets the cancellation
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert litestream.pid is None
    async with engine_of(tmp_path / "a.db", f"file://{tmp_path}/bucket") as other:
        assert await other.run(two_effects("a"), id="a") == "a-1a-2"


@awaited
async def test_a_new_epoch_that_is_cancelled_leaves_no_litestream(tmp_path: Path) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, f"file://{tmp_path}/bucket") as engine:
        replica = replica_of(engine)
        await engine.run(two_effects("a"), id="a")
        old = replica.copier.process
        assert old.pid is not None
        os.kill(old.pid, signal.SIGSTOP)  # so that it takes its time to end
        anew = asyncio.create_task(replica.maintenance.begin_epoch())
        await until(lambda: replica.copier.process is not old)
        anew.cancel()
        with pytest.raises(asyncio.CancelledError):
            await anew
        assert old.pid is None
        assert await engine.run(two_effects("b"), id="b") == "b-1b-2"


@awaited
async def test_the_lease_names_the_epoch_that_the_copy_lies_below_also_where_a_later_one_is_claimed(
    tmp_path: Path,
) -> None:
    store, replica_url = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, replica_url) as engine:
        replica = replica_of(engine)
        await engine.run(two_effects("a"), id="a")
        # as where a new epoch was claimed and its answer got lost, while the first copy was on its
        # way
        await replica.lease.advance()
        replica.copier.based = False
        await replica.copier.sync()
        assert (replica.lease.row.epoch, replica.lease.row.base) == (2, 1)
    await all_there(store, replica_url, {"a"})

"""An engine with `durability="replica"`: effects and answers wait for the bucket, the rest runs
ahead; compute is disposable.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perdure
from campaigns.faulty_proxy import Proxy
from campaigns.s3_servers import BucketServer
from perdure import DefinitionError, Engine, PerdureError, ReplicaUnavailable
from perdure.errors import ReplicaRequired, StoreReplaced
from perdure.replica import verify
from perdure.store.sqlite import checksum
from tests.replica.support import (
    LEASE_S,
    SHORT_LEASE_S,
    address,
    effects,
    engine_of,
    gone,
    hasty,
    long_text,
    looks_often,
    lookups,
    nothing_seen,
    proxy,
    replica_of,
    two_effects,
)
from tests.runtime.support import PATIENCE_S, awaited, until

__all__ = ["address", "looks_often", "nothing_seen", "proxy"]  # fixtures


async def grown(run: Any, there: Callable[[Any], bool]) -> None:
    """Wait until a run's last row is such a one."""
    while not there((await run.history())[-1]):  # noqa: ASYNC110
        await asyncio.sleep(0.003)


@awaited
async def test_an_effect_and_an_answer_wait_for_the_bucket_and_go_on_by_themselves(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    async with engine_of(tmp_path / "a.db", address) as engine:
        proxy.set("503")
        waits = pytest.raises(ReplicaUnavailable, match="is on this disk; effects and answers wait")
        with hasty(engine, seconds=3), waits:
            await engine.start(two_effects("a"), id="a")
        assert await (await engine.get("a")).status() == "running"
        assert effects == []
        proxy.set()
        run = await engine.start(two_effects("a"), id="a")  # the same start finds it
        assert await run.result() == "a-1a-2"
        assert effects == ["a-1", "a-2"]


@awaited
async def test_a_commit_of_another_thread_that_is_not_counted_yet_is_not_acknowledged(
    tmp_path: Path, address: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow disk commits run in a thread; a reader sees them a moment before the event loop
    does.
    """
    monkeypatch.setattr("perdure.runtime.writer.INLINE_MS_MAX", 0.0)
    store, committed, go_on = tmp_path / "a.db", threading.Event(), threading.Event()
    async with engine_of(store, address) as engine:
        write = engine._store.write

        def held(*batch: Any) -> Any:
            results = write(*batch)
            ended = (
                perdure.connect(store)
                .execute("SELECT 1 FROM perdure_runs WHERE id = 'a' AND status = 'completed'")
                .fetchone()
            )
            if ended and not committed.is_set():
                committed.set()
                go_on.wait(PATIENCE_S)
            return results

        monkeypatch.setattr(engine._store, "write", held)
        run = asyncio.create_task(engine.run(two_effects("a"), id="a"))
        await until(committed.is_set)
        proxy.set("refuse")
        result = asyncio.create_task((await engine.get("a")).result())
        replica = engine.replica
        assert replica is not None
        await until(lambda: replica.barrier.wanted or result.done())
        assert not result.done()
        proxy.set()
        go_on.set()
        assert await result == await run == "a-1a-2"


@awaited
async def test_readonly_steps_and_runs_for_the_disk_do_not_wait(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    async with engine_of(tmp_path / "a.db", address) as engine:
        proxy.set("refuse")
        with hasty(engine), pytest.raises(ReplicaUnavailable):
            await engine.start(lookups("look", 30), id="look")
        await until(lambda: len(effects) == 30)
        disk = await engine.start(two_effects("disk"), id="disk", durability="disk")
        assert await disk.result() == "disk-1disk-2"
        proxy.set()
        assert await (await engine.get("look")).result() == 30


@awaited
async def test_a_step_may_ask_for_less_or_for_more_than_its_run(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    from perdure import step, workflow

    @step(durability="disk")
    async def soon() -> None:
        effects.append("soon")

    @step(durability="replica")
    async def surely() -> None:
        effects.append("surely")

    @workflow(durability="disk")
    async def both() -> None:
        await soon()
        await surely()

    async with engine_of(tmp_path / "a.db", address, workflows=[both]) as engine:
        proxy.set("refuse")
        run = await engine.start(both())
        await until(lambda: effects == ["soon"])
        await grown(run, lambda event: event.name == "surely")
        assert effects == ["soon"]
        proxy.set()
        await run.result()
        assert effects == ["soon", "surely"]


@awaited
async def test_a_second_attempt_waits_until_the_first_one_s_failure_is_confirmed(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    from perdure import Retry, step, workflow

    @step(retry=Retry(attempts=2, delay=0.001))
    async def fails_once() -> str:
        effects.append("attempt")
        if len(effects) == 1:
            proxy.set("refuse")
            raise OSError("once")
        return "done"

    @workflow
    async def tries() -> str:
        return await fails_once()

    async with engine_of(tmp_path / "a.db", address, workflows=[tries]) as engine:
        starting = asyncio.create_task(
            engine.start(tries(), id="t")
        )  # its answer may have to wait, too
        await until(lambda: effects)
        run = await engine.get("t")
        await grown(run, lambda event: "attempt" in event.kind)
        assert effects == ["attempt"]
        proxy.set()
        await starting
        assert await run.result() == "done"


@awaited
async def test_another_machine_continues_where_a_lost_one_was(tmp_path: Path, address: str) -> None:
    first, second = tmp_path / "1" / "a.db", tmp_path / "2" / "a.db"
    for store in (first, second):
        store.parent.mkdir()
    async with engine_of(first, address) as engine:
        assert await engine.run(two_effects("a"), id="a") == "a-1a-2"
    gone(first)
    async with engine_of(second, address) as engine:
        assert await (await engine.get("a")).result() == "a-1a-2"
        assert await engine.run(two_effects("b"), id="b") == "b-1b-2"
        assert engine.replica.status().epoch == 2  # type: ignore[union-attr]
    assert effects == ["a-1", "a-2", "b-1", "b-2"]


@awaited
async def test_what_the_lease_holds_of_a_new_epoch_is_true_from_its_first_moment(
    tmp_path: Path, address: str
) -> None:
    """Else an engine that dies right after its start leaves a lease which asks too much of its
    copy.
    """
    async with engine_of(tmp_path / "a.db", address) as engine:
        for n in range(20):
            await engine.run(two_effects(f"r{n}"))
    gone(tmp_path / "a.db")
    async with engine_of(tmp_path / "a.db", address) as engine:
        replica = engine.replica
        assert replica is not None
        row = await replica.lease.look()
        assert row is not None
        assert (row.base, row.epoch) == (2, 2)
        assert row.txid <= replica.status().txid < 20


@awaited
async def test_only_one_of_two_works_and_the_other_counts_down_and_takes_over(
    tmp_path: Path, address: str
) -> None:
    heard: list[tuple[str, float]] = []
    waiting = asyncio.Event()

    def on_wait(row: Any, seconds: float) -> None:
        heard.append((row.who, seconds))
        waiting.set()

    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    async with engine_of(tmp_path / "1" / "a.db", address) as first:
        await first.run(two_effects("a"), id="a")
        other = engine_of(tmp_path / "2" / "a.db", address, on_wait=on_wait)
        opening = asyncio.create_task(other.__aenter__())
        await waiting.wait()
        await first.run(two_effects("b"), id="b")
    await opening
    try:
        assert {info.id for info in await other.runs()} == {"a", "b"}
    finally:
        await other.__aexit__(None, None, None)
    assert all(0 < seconds <= LEASE_S for _, seconds in heard)
    assert heard[0][0].startswith("pid ")


@awaited
async def test_a_local_file_that_has_everything_is_used_and_an_older_one_is_set_aside(
    tmp_path: Path, address: str
) -> None:
    store, old = tmp_path / "a.db", tmp_path / "old.db"
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
    async with engine_of(store, address) as engine:  # the same disk again
        await engine.run(two_effects("b"), id="b")
    assert not list(tmp_path.glob("*aside*"))
    for side in verify.SIDES:
        if (tmp_path / f"a.db{side}").exists():
            shutil.copy(tmp_path / f"a.db{side}", f"{old}{side}")
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("c"), id="c")
    gone(store)
    for side in verify.SIDES:
        if Path(f"{old}{side}").exists():
            shutil.copy(f"{old}{side}", f"{store}{side}")
    async with engine_of(store, address) as engine:
        assert {info.id for info in await engine.runs()} == {"a", "b", "c"}
    (aside,) = (
        path for path in tmp_path.glob("a.db.aside*") if not path.name.endswith(("-wal", "-shm"))
    )
    assert {row[0] for row in perdure.connect(aside).execute("SELECT id FROM perdure_runs")} == {
        "a",
        "b",
    }


@awaited
async def test_a_local_file_that_went_another_way_is_set_aside(
    tmp_path: Path, address: str
) -> None:
    """It was continued without the replica, while another machine went on from the replica."""
    store = tmp_path / "a.db"
    (tmp_path / "2").mkdir()
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
    async with engine_of(tmp_path / "2" / "a.db", address) as engine:
        await engine.run(two_effects("theirs"), id="theirs")
    async with engine_of(store, address) as engine:
        assert {info.id for info in await engine.runs()} == {"a", "theirs"}
    assert list(tmp_path.glob("a.db.aside-epoch-1"))


@awaited
async def test_a_local_file_with_the_same_history_is_older_if_it_lacks_a_start(
    tmp_path: Path, address: str
) -> None:
    """Of a workflow that no engine has executed yet, so that no row of history is about it."""
    store, old = tmp_path / "a.db", tmp_path / "old.db"
    async with engine_of(store, address, workflows=[lookups]) as engine:
        await engine.run(lookups("a", 2), id="a")
        reader = perdure.connect(store)
        reader.pragma("query_only", False)
        reader.execute("VACUUM INTO ?", (str(old),))
        async with Engine(store, execute=False) as client:
            await client.start(two_effects("b"), id="b")
    gone(store)
    shutil.copy(old, store)
    async with engine_of(store, address) as engine:
        assert await (await engine.get("b")).result() == "b-1b-2"


@awaited
async def test_what_a_client_writes_is_copied_within_a_second_or_two(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    async with (
        engine_of(store, address, workflows=[]) as engine,
        Engine(store, execute=False) as client,
    ):
        await client.start(two_effects("a"), id="a")  # of a workflow that no engine executes here
        replica = engine.replica
        assert replica is not None
        seal = client._store.checksum()
        assert seal is not None
        await until(
            lambda: (
                replica.barrier.confirmed is not None
                and replica.barrier.confirmed.commits >= seal.commits
            )
        )


@awaited
async def test_a_store_that_was_used_without_a_replica_gets_one(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    async with Engine(store, workflows=[two_effects]) as plain:
        await plain.run(two_effects("a"), id="a")
    async with engine_of(store, address):
        pass
    gone(store)
    async with engine_of(store, address) as engine:
        assert await (await engine.get("a")).result() == "a-1a-2"


@awaited
async def test_the_history_of_a_store_that_gets_a_replica_is_added_up_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be millions of rows: what waits for the loop meanwhile is served."""
    store = tmp_path / "a.db"
    async with Engine(store, workflows=[two_effects]) as plain:
        await plain.run(two_effects("a"), id="a")
    heard, digest = threading.Event(), checksum.digest

    def on_progress(text: str) -> None:
        if text == f"Reading the history of {store} for its first copy: 1 rows":
            heard.set()

    def waits_for_the_loop(*row: Any) -> int:
        assert heard.wait(PATIENCE_S), "the loop stood still"
        return digest(*row)

    monkeypatch.setattr("perdure.replica.replicate.WATCH_S", 0.01)
    monkeypatch.setattr(checksum, "digest", waits_for_the_loop)
    async with engine_of(store, f"file://{tmp_path}/bucket", on_progress=on_progress) as engine:
        assert heard.is_set()
        await replica_of(engine).verify()


@awaited
async def test_a_replicated_store_is_not_continued_without_its_replica(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address):
        pass
    with pytest.raises(
        ReplicaRequired,
        match="would be copied nowhere: open it with --replica, or replica=",
    ):
        async with Engine(store):
            pass


@awaited
async def test_an_engine_whose_lease_was_taken_stops_and_acknowledges_nothing(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    async with engine_of(tmp_path / "1" / "a.db", address, lease_ttl=SHORT_LEASE_S) as first:
        await first.run(two_effects("a"), id="a")
        proxy.set("drop")
        start = asyncio.create_task(first.start(two_effects("late"), id="late"))
        result = asyncio.create_task((await first.get("a")).result())
        await until(lambda: not first.replica.lease.held())  # type: ignore[union-attr]
        direct = address.replace(str(proxy.port), str(proxy.to_port))
        async with engine_of(tmp_path / "2" / "a.db", direct, lease_ttl=SHORT_LEASE_S) as second:
            proxy.set()
            with pytest.raises(PerdureError, match="is no longer ours: pid"):
                await start
            assert "no longer ours" in str(await first.store_lost())
            assert [info.id for info in await second.runs()] == ["a"]
        result.cancel()
    assert effects == ["a-1", "a-2"]


@awaited
async def test_what_cannot_be_is_refused_at_the_constructor() -> None:
    for options, words in (
        ({"durability": "replica"}, "needs to know where the replica is"),
        ({"durability": "bucket"}, '"disk" or "replica"'),
        ({"replica": "ftp://x/y"}, "Right ones look like"),
        ({"replica": "file:///tmp/x", "execute": False}, "not with execute=False"),
    ):
        with pytest.raises(DefinitionError, match=words):
            Engine("a.db", **options)
    with pytest.raises(DefinitionError, match="not of :memory:"):
        Engine(":memory:", replica="file:///tmp/x")


@awaited
async def test_a_new_epoch_may_begin_under_load_and_nothing_is_missing(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address) as engine:
        replica = engine.replica
        assert replica is not None
        work = [
            asyncio.create_task(engine.run(two_effects(f"r{i}"), id=f"r{i}")) for i in range(100)
        ]
        await until(lambda: len(effects) > 20)
        await replica.maintenance.begin_epoch()
        await asyncio.gather(*work)
        assert replica.status().epoch == 2
    gone(store)
    async with engine_of(store, address) as engine:
        assert len(await engine.runs(limit=1_000)) == 100


@awaited
async def test_a_disk_that_fills_because_the_bucket_is_away_stops_new_work_and_then_goes_on(
    tmp_path: Path, address: str, proxy: Proxy, looks_often: None
) -> None:
    limits = perdure.Limits(replica_bytes_max=3_000_000)
    async with engine_of(tmp_path / "a.db", address, limits=limits) as engine:
        replica = engine.replica
        assert replica is not None
        proxy.set("refuse")
        while replica.barrier.full is None:
            with hasty(engine), pytest.raises(ReplicaUnavailable):
                await engine.start(long_text(300_000))
        with pytest.raises(ReplicaUnavailable, match=r"so nothing new is begun.*replica_bytes_max"):
            await engine.start(two_effects("late"))
        proxy.set()
        await until(lambda: replica.barrier.full is None)
        assert await engine.run(two_effects("after")) == "after-1after-2"


@awaited
async def test_the_lag_is_measured(
    tmp_path: Path, address: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.replica.disk_space.SIZE_EVERY", 1)
    async with engine_of(tmp_path / "a.db", address, durability="disk") as engine:
        replica = engine.replica
        assert replica is not None
        await engine.run(two_effects("a"))
        await until(
            lambda: replica.status().lag_s == 0 and replica.status().state == "replicating"
        )  # within a second, unasked
        proxy.set("503")
        await engine.run(two_effects("b"))
        await until(lambda: replica.status().lag_s > 0.2 and replica.status().lag_bytes > 0)
        proxy.set()
        await until(lambda: replica.status().lag_s == 0)
        assert replica.status().lag_bytes == 0


def test_one_bucket_server_serves_them_all(bucket: BucketServer) -> None:
    assert bucket.request("GET", "nothing")[0] == 404


@awaited
async def test_an_engine_whose_file_was_replaced_ends_and_so_does_its_litestream(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
        replica = engine.replica
        assert replica is not None
        for path in tmp_path.glob("a.db*"):
            if path.is_file():
                path.unlink()
        assert isinstance(await engine.store_lost(), StoreReplaced)
    assert replica.copier.process.pid is None
    async with engine_of(store, address) as engine:
        assert await (await engine.get("a")).result() == "a-1a-2"

"""Retention beside a replica: the copy stays right, and an archive may be a bucket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from campaigns.faulty_proxy import Proxy
from campaigns.s3_servers import BucketServer
from perdure import ArchiveUnavailable, Engine, Retention
from perdure.replica.address import parse
from perdure.replica.s3_bucket import S3Bucket
from perdure.store.sqlite import checksum, connection
from perdure.store.sqlite.first_checksum import FirstChecksum
from perdure.store.sqlite.queries import Q
from tests.replica.support import (
    WORKFLOWS,
    address,
    engine_of,
    gone,
    lookups,
    nothing_seen,
    proxy,
    replica_of,
)
from tests.runtime.support import awaited

__all__ = ["address", "nothing_seen", "proxy"]  # fixtures

ALL = Retention(completed=0)


async def filled(engine: Engine, runs: int, steps: int = 2) -> None:
    for n in range(runs):
        await engine.run(lookups(f"r{n}", steps), id=f"r{n}")


@awaited
async def test_the_copy_of_a_pruned_store_is_whole(tmp_path: Path, address: str) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address) as engine:
        await filled(engine, 20, steps=40)
        assert (await replica_of(engine).verify())["ok"]
        before = engine._parts().store.checksum()
        report = await engine.prune(ALL, vacuum=True)
        assert report.runs == 19
        assert report.space_given_back > 0
        assert (await replica_of(engine).verify())["ok"]
        after = engine._parts().store.checksum()
        assert before is not None
        assert after is not None
        assert after.rows == before.rows  # a lease and a drill compare it: it never falls
        assert after.rows_there == before.rows - report.history_rows
        await engine.run(lookups("next", 2), id="next")
        assert (await replica_of(engine).verify())["ok"]
    gone(store)
    async with engine_of(store, address) as engine:
        assert {info.id for info in await engine.runs()} == {"r19", "next"}
        assert (await engine.prune(ALL)).runs == 1


@awaited
async def test_a_pruned_file_is_taken_before_a_copy_that_is_older(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address) as engine:
        await filled(engine, 5)
    async with Engine(store, execute=False) as client:
        await client.prune(ALL)
    async with engine_of(store, address) as engine:
        assert {info.id for info in await engine.runs()} == {"r4"}
        assert (await replica_of(engine).verify())["ok"]


@awaited
async def test_a_first_checksum_is_right_whatever_is_pruned_meanwhile(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    async with Engine(path, workflows=WORKFLOWS) as engine:
        await filled(engine, 10)
        first, pruned = FirstChecksum(path), asyncio.Event()
        real, loop = first._catch_up, asyncio.get_running_loop()

        def prunes(db: object) -> int:
            version = real(db)  # type: ignore[arg-type]
            if not pruned.is_set():
                asyncio.run_coroutine_threadsafe(engine.prune(ALL), loop).result()
                loop.call_soon_threadsafe(pruned.set)
            return version

        first._catch_up = prunes  # type: ignore[method-assign]
        await asyncio.to_thread(first.put, "id", "file:///there", 1)
        assert pruned.is_set()
    db = connection.open_reader(path)
    seal = checksum.read(db)
    assert seal is not None
    assert (seal.rows_there, seal.digest) == checksum.total(db.execute(Q["history_of_all"]))
    db.close()


@awaited
async def test_an_archive_in_a_bucket(
    tmp_path: Path, bucket: BucketServer, address: str, proxy: Proxy
) -> None:
    store = tmp_path / "a.db"
    given = Retention(completed=0, archive=address)
    async with Engine(store, workflows=WORKFLOWS) as engine:
        await filled(engine, 5)
        proxy.set("503")
        with pytest.raises(ArchiveUnavailable, match="can't be written"):
            await engine.prune(given)
        assert "archive_error" in (await engine.doctor())["retention"]
        assert len(await engine.runs()) == 5
        proxy.set()
        report = await engine.prune(given)
        assert report.runs == 4
        await engine.run(lookups("last", 1), id="last")
        second = await engine.prune(given)
        assert "archive_error" not in (await engine.doctor())["retention"]
        objects = S3Bucket(parse(address))
        names = {found.name for found in await objects.names("")}
        assert {*report.files, *second.files} <= names
        sent = await objects.get(report.files[0])
        assert sent is not None
    (tmp_path / "back.db").write_bytes(sent.data)
    async with Engine(tmp_path / "back.db", execute=False) as engine:
        assert {info.id for info in await engine.runs()} == {f"r{n}" for n in range(4)}
    assert not list(tmp_path.glob(".perdure-archive-*"))


@awaited
async def test_a_bucket_that_refuses_keeps_the_runs(
    tmp_path: Path, bucket: BucketServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    given = Retention(completed=0, archive=bucket.url("denied"))
    async with Engine(tmp_path / "a.db", workflows=WORKFLOWS) as engine:
        await filled(engine, 3)
        for dry_run in (True, False):
            with pytest.raises(ArchiveUnavailable, match="does not let us read"):
                await engine.prune(given, dry_run=dry_run)
        assert len(await engine.runs()) == 3

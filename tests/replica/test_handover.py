"""Hand-overs in order on one disk: the copy is continued where that is proved to be right, and made
anew where it is not.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure import Engine
from perdure.replica import handover
from perdure.replica.address import parse
from perdure.replica.buckets import open_bucket
from perdure.replica.epochs import epochs_in
from perdure.replica.lease_rules import LeaseRow
from tests.replica.support import (
    WORKFLOWS,
    effects,
    engine_of,
    gone,
    long_text,
    nothing_seen,
    two_effects,
)
from tests.replica.test_takeover import ids, machine, run_on, set_aside
from tests.runtime.support import awaited

__all__ = ["nothing_seen"]  # a fixture


async def lived(store: Path, address: str, *names: str) -> tuple[LeaseRow, list[int]]:
    """An engine executes runs, tries its copy and ends; the lease as it was meanwhile, and which
    epochs have a copy.
    """
    async with engine_of(store, address) as engine:
        for name in names:
            await engine.run(two_effects(name), id=name)
        assert engine.replica is not None
        await engine.replica.verify()
        row = await engine.replica.lease.look()
        assert row is not None
        return row, await epochs_in(open_bucket(parse(address)))


async def found_elsewhere(store: Path, address: str) -> set[str]:
    """What a machine without a disk finds after this one has vanished."""
    gone(store)
    async with engine_of(store, address) as engine:
        return {info.id for info in await engine.runs(limit=1_000)}


@awaited
async def test_the_copy_of_an_engine_that_ended_in_order_is_continued(tmp_path: Path) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    for n in range(1, 5):
        row, epochs = await lived(store, address, f"a{n}")
        assert (row.epoch, row.base, epochs) == (n, 1, [1])
        assert row.ended is None  # it is for one engine
    assert await found_elsewhere(store, address) == {"a1", "a2", "a3", "a4"}


@awaited
async def test_what_clients_write_between_two_engines_is_copied(tmp_path: Path) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    await lived(store, address, "a")
    async with Engine(store, execute=False) as client:
        for n in range(20):
            await client.start(two_effects(f"b{n}"), id=f"b{n}", durability="disk")
        async with engine_of(store, address) as engine:
            await (await engine.get("b19")).result()
            assert engine.replica is not None
            await engine.replica.verify()
            assert await epochs_in(open_bucket(parse(address))) == [1]
            await client.start(two_effects("c"), id="c")
    assert await found_elsewhere(store, address) == {"a", "c", *(f"b{n}" for n in range(20))}


@awaited
async def test_a_continued_copy_is_whole_also_where_the_engine_is_killed(tmp_path: Path) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    await lived(store, address, "a")
    with machine(store, address) as one:
        one.says("OPEN")
        run_on(one, "b")
        one.process.kill()
    assert await found_elsewhere(store, address) == {"a", "b"}


@awaited
async def test_after_a_kill_nothing_is_continued(tmp_path: Path) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    with machine(store, address) as one:
        one.says("OPEN")
        run_on(one, "a")
        one.process.kill()
    assert (await lived(store, address, "b"))[0].base == 2
    assert ids(store) == {"a", "b"}


@awaited
async def test_an_old_disk_does_not_continue_what_a_newer_one_went_on_with(tmp_path: Path) -> None:
    store, address = tmp_path / "disk" / "a.db", f"file://{tmp_path}/bucket"
    store.parent.mkdir()
    await lived(store, address, "a")
    shutil.copytree(store.parent, tmp_path / "old")
    await lived(store, address, "b")
    shutil.rmtree(store.parent)
    (tmp_path / "old").rename(store.parent)
    row, _ = await lived(store, address, "c")
    assert row.base == row.epoch == 3
    assert ids(store) == {"a", "b", "c"}
    assert set_aside(store)


@awaited
async def test_an_old_file_in_the_place_of_the_one_that_was_left_is_noticed(tmp_path: Path) -> None:
    """Also where it is written over, so that its number on the disk is the same."""
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    await lived(store, address, "a")
    old = {path: path.read_bytes() for path in tmp_path.glob("a.db*") if path.is_file()}
    await lived(store, address, "b")
    for path, content in old.items():
        path.write_bytes(content)
    await lived(store, address, "c")
    assert ids(store) == {"a", "b", "c"}


def checkpoint(store: Path) -> None:
    """As a person's `sqlite3` does when it is closed."""
    db = sqlite3.connect(store)
    db.execute("SELECT count(*) FROM perdure_runs").fetchall()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()


def without_state(store: Path) -> None:
    shutil.rmtree(f"{store}-replica/litestream")


def cut_state(store: Path) -> None:
    for path in Path(f"{store}-replica/litestream").rglob("*.ltx"):
        path.write_bytes(path.read_bytes()[:120])


def emptied_state(store: Path) -> None:
    for path in Path(f"{store}-replica/litestream").rglob("*.ltx"):
        path.write_bytes(b"")


def rubbish_in_state(store: Path) -> None:
    for path in Path(f"{store}-replica/litestream").rglob("*.ltx"):
        raw = bytearray(path.read_bytes())
        raw[200:] = bytes(len(raw) - 200)
        path.write_bytes(raw)


def without_wal(store: Path) -> None:
    Path(f"{store}-wal").unlink()
    Path(f"{store}-shm").unlink()


@pytest.mark.parametrize(
    "change", [checkpoint, without_state, cut_state, emptied_state, rubbish_in_state]
)
@awaited
async def test_what_has_changed_since_is_not_continued_blindly(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    await lived(store, address, *(f"a{n}" for n in range(10)))
    change(store)
    await lived(store, address, "b")
    assert await found_elsewhere(store, address) == {"b", *(f"a{n}" for n in range(10))}


@awaited
async def test_a_file_that_lost_its_wal_since_is_restored(tmp_path: Path) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    await lived(store, address, "a")
    without_wal(store)
    await lived(store, address, "b")
    assert ids(store) == {"a", "b"}


@awaited
async def test_after_another_boot_the_file_is_used_and_the_copy_is_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    await lived(store, address, "a")
    monkeypatch.setattr(handover, "_boot", lambda: "another")
    async with engine_of(store, address) as engine:
        assert engine.replica is not None
        began = f"the last engine ended in order on this disk; continuing with {store}"
        assert engine.replica.began == (began,)
        assert engine.replica.status().epoch == 2
        await engine.replica.verify()
        assert await epochs_in(open_bucket(parse(address))) == [1, 2]


@awaited
async def test_without_a_fence_no_copy_is_continued(tmp_path: Path) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    for n in (1, 2):
        async with engine_of(store, address, fencing=False) as engine:
            row = await engine.replica.lease.look()  # type: ignore[union-attr]
            assert row is not None
            assert row.base == n


@awaited
async def test_a_deploy_of_waiting_engines_loses_nothing_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    """Each engine waits while the one before it works, and a client goes on all the time."""
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    acknowledged: list[str] = []
    engine = await engine_of(store, address).__aenter__()
    async with Engine(store, execute=False) as client:

        async def ask() -> None:
            for n in itertools.count():
                await client.start(two_effects(f"r{n}"), id=f"r{n}")
                acknowledged.append(f"r{n}")

        asking = asyncio.create_task(ask())
        for _ in range(4):
            waiting = asyncio.create_task(
                engine_of(store, address, workflows=WORKFLOWS).__aenter__()
            )
            await engine.run(long_text(100_000))
            before = len(acknowledged)
            await engine.__aexit__(None, None, None)
            engine = await waiting
            while len(acknowledged) < before + 3:
                assert not asking.done(), asking
                await asyncio.sleep(0.003)
        asking.cancel()
        await asyncio.wait([asking])
        await engine.__aexit__(None, None, None)
    assert not set_aside(store)
    assert set(acknowledged) <= await found_elsewhere(store, address)
    assert {name for name in effects if name.endswith("-2")}

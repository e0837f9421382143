"""The first phase of a replica: the lease and the file, without a store and without Litestream."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import Replica
from perdure.errors import ReplicaDamaged, ReplicaMismatch, ReplicaUnavailable
from perdure.replica.acquire import Acquired, acquire
from perdure.replica.buckets import open_bucket
from perdure.replica.lease import Lease
from perdure.replica.lease_rules import LeaseRow
from perdure.replica.standby import Standby
from tests.replica.support import engine_of, gone, two_effects
from tests.runtime.support import awaited

LEASE_MS = 60_000


async def acquired_at(store: Path, address: str) -> Acquired:
    return await acquire(str(store), Replica(address), lease_ms=LEASE_MS)


async def row_at(address: str) -> LeaseRow:
    row = await Lease(open_bucket(Replica(address).place), address, ttl_ms=LEASE_MS).look()
    assert row is not None
    return row


@awaited
async def test_a_new_replica_gives_the_lease_and_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/bucket"
    found = await acquired_at(tmp_path / "a.db", address)
    assert found.lease.held()
    assert (found.began, found.left, found.copied) == ((), None, None)
    assert not (tmp_path / "a.db").exists()
    await found.release()
    assert (await row_at(address)).holder is None
    again = await acquired_at(tmp_path / "a.db", address)  # at once, though the lease is long
    assert again.lease.row.epoch == 2
    assert again.store_id != found.store_id  # nothing was ever copied under the first one
    await again.release()


@awaited
async def test_a_file_that_is_gone_is_restored_and_one_that_has_everything_is_used(
    tmp_path: Path,
) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
    kept = await acquired_at(store, address)
    assert kept.began == (f"the last engine ended in order on this disk; continuing with {store}",)
    assert kept.left is not None
    await kept.release()
    gone(store)
    restored = await acquired_at(store, address)
    assert restored.store_id == kept.store_id
    assert restored.left is None
    assert len(restored.began) == 1
    assert restored.began[0].startswith(f"restored {store} from ")
    await restored.release()
    same = await acquired_at(store, address)  # no engine has ended in order since
    assert same.began == (
        f"the local file {store} has all that the replica has; continuing with it",
    )
    await same.release()


@awaited
async def test_a_restore_that_fails_releases_the_lease_and_makes_no_file(tmp_path: Path) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
    gone(store)
    for path in (tmp_path / "bucket" / "000001").rglob("*.ltx"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises((ReplicaDamaged, ReplicaUnavailable)):
        await acquired_at(store, address)
    assert (await row_at(address)).holder is None
    assert not store.exists()


@awaited
async def test_another_database_is_refused_before_the_lease_is_taken(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/bucket"
    for name in ("a", "b"):
        place = address if name == "a" else f"file://{tmp_path}/other"
        async with engine_of(tmp_path / f"{name}.db", place) as engine:
            await engine.run(two_effects(name), id=name)
    before = await row_at(address)
    with pytest.raises(ReplicaMismatch):
        await acquired_at(tmp_path / "b.db", address)
    assert await row_at(address) == before


@awaited
async def test_a_standby_that_is_cancelled_while_it_ends_releases_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, ending = f"file://{tmp_path}/bucket", asyncio.Event()

    async def never(self: Standby) -> None:
        ending.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Standby, "_end", never)
    options = Replica(address, standby=True)
    taking = asyncio.create_task(acquire(str(tmp_path / "a.db"), options, lease_ms=LEASE_MS))
    await ending.wait()
    assert (await row_at(address)).holder is not None
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert (await row_at(address)).holder is None

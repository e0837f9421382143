"""Drills: test restores beside a running engine, and what one that fails leads to."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from perdure.errors import ReplicaDamaged, ReplicaUnavailable
from tests.replica.support import (
    address,
    all_there,
    damage,
    engine_of,
    in_epoch,
    nothing_seen,
    proxy,
    replica_of,
    two_effects,
)
from tests.runtime.support import awaited, until

__all__ = ["address", "nothing_seen", "proxy"]  # fixtures


@awaited
async def test_a_drill_restores_and_compares_while_work_goes_on(
    tmp_path: Path, address: str
) -> None:
    async with engine_of(tmp_path / "a.db", address, drill_every=3_600) as engine:
        replica = engine.replica
        assert replica is not None
        work = [asyncio.create_task(engine.run(two_effects(f"r{i}"))) for i in range(60)]
        found = await replica.verify()
        await asyncio.gather(*work)
        assert found["ok"], found
        assert replica.status().drill == found


@awaited
async def test_a_drill_that_fails_leads_to_a_new_copy(tmp_path: Path) -> None:
    store, replica = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, replica) as engine:
        for n in range(3):
            await engine.run(two_effects(f"r{n}"), id=f"r{n}")

        copier = replica_of(engine).copier
        while not copier.doubted:  # an object that is made of others at this moment may be whole
            damage((tmp_path / "bucket" / "000001").rglob("*.ltx"))
            with contextlib.suppress(ReplicaDamaged, ReplicaUnavailable):
                await replica_of(engine).verify()
        assert "a new copy is made" in replica_of(engine).status().reason
        await in_epoch(engine, 2)
        assert (await replica_of(engine).verify())["ok"]
    await all_there(store, replica, {"r0", "r1", "r2"})


@awaited
async def test_drills_are_made_by_themselves(tmp_path: Path) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, address, drill_every=0.01) as engine:
        replica = replica_of(engine)
        await engine.run(two_effects("a"), id="a")
        await until(lambda: (replica.status().drill or {}).get("rows", 0) > 0)
        drill = replica.status().drill
        assert drill is not None
        assert drill["ok"]

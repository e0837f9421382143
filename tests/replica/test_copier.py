"""The copier: one epoch after the other, and what it answers while no Litestream runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure import Engine, Replica
from perdure.errors import ReplicaLeaseLost, ReplicaUnavailable
from perdure.replica.acquire import acquire
from perdure.replica.copier import Copier
from tests.replica.support import WORKFLOWS, two_effects
from tests.runtime.support import awaited


@asynccontextmanager
async def copier_in(folder: Path) -> AsyncIterator[Copier]:
    """Of a store with a run, under a lease that is held."""
    store = folder / "a.db"
    async with Engine(store, workflows=WORKFLOWS) as engine:
        await engine.run(two_effects("a"), id="a")
    acquired = await acquire(str(store), Replica(f"file://{folder}/bucket"), lease_ms=60_000)
    copier = Copier(acquired)
    try:
        yield copier
    finally:
        await copier.rest("the test is over", at_once=True)
        await acquired.release()


@awaited
async def test_an_answer_counts_when_the_lease_names_the_epoch(tmp_path: Path) -> None:
    async with copier_in(tmp_path) as copier:
        lease = copier._lease
        await copier.start()
        assert (copier.epoch, copier.based, lease.row.base) == (1, False, None)
        position = await copier.sync()
        assert position.replicated == position.txid > 0
        assert (copier.based, lease.row.base, copier.txid) == (True, 1, position.txid)


@awaited
async def test_without_a_process_every_sync_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with copier_in(tmp_path) as copier:
        assert not copier.running
        with pytest.raises(ReplicaUnavailable, match="litestream does not run"):
            await copier.sync()
        await copier.start()
        assert copier.running
        for reason in ("its disk is full", "another reason"):
            await copier.rest(reason, at_once=True)
            with pytest.raises(ReplicaUnavailable, match="its disk is full"):
                await copier.sync()


@awaited
async def test_what_is_known_against_a_copy_is_remembered_until_the_next_one(
    tmp_path: Path,
) -> None:
    async with copier_in(tmp_path) as copier:
        await copier.start()
        await copier.sync()
        copier.doubt("a hole")
        await copier.rest("a new copy begins", at_once=True)
        assert copier.broken == "a hole"
        await copier._lease.advance()
        await copier.start()
        assert copier.broken == ""
        await copier.sync()
        assert (copier.epoch, copier._lease.row.base) == (2, 2)


@awaited
async def test_after_the_lease_is_lost_no_copy_begins(tmp_path: Path) -> None:
    async with copier_in(tmp_path) as copier:
        copier._lease.lost.set_result(ReplicaLeaseLost("there", "another engine has taken it"))
        with pytest.raises(ReplicaLeaseLost):
            await copier.start()
        assert not copier.running

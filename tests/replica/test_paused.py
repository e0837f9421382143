"""A machine whose clocks stood still with it believes in its lease; the bucket knows better."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from perdure import DefinitionError, Engine, Replica
from perdure.errors import LeaseLost, ReplicaLeaseLost
from perdure.replica.address import parse
from perdure.replica.buckets import open_bucket
from perdure.replica.lease import NAME, Lease
from tests.replica.support import (
    SHORT_LEASE_S,
    address,
    effects,
    engine_of,
    nothing_seen,
    proxy,
    two_effects,
)
from tests.replica.test_answers import held
from tests.runtime.support import awaited, until

__all__ = ["address", "nothing_seen", "proxy"]  # fixtures

STARTS = 50


async def stop_clock(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """From here on the engine's lease is held for ever, by its own clock, and not renewed."""
    assert engine.replica is not None
    lease = engine.replica.lease
    now_ms = lease._clock_ms()
    monkeypatch.setattr(lease, "_clock_ms", lambda: now_ms)
    await renewals_stop(lease)
    return lease


async def renewals_stop(lease: Lease) -> None:
    assert lease._thread is not None
    await lease._thread.call(lease._loop.stop())


async def starts_answers(
    engine: Engine, address: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Any], Lease]:
    """What many starts hear that are under way while another machine takes over: their sync has
    been done, its answer comes after it.
    """
    lease = await stop_clock(engine, monkeypatch)
    other = Lease(open_bucket(parse(address)), address, ttl_ms=round(SHORT_LEASE_S * 1000))
    async with held(engine):
        starts = [
            asyncio.create_task(engine.start(two_effects(f"{n}"), id=f"{n}")) for n in range(STARTS)
        ]
        await other.take(store_id=None)
    return await asyncio.gather(*starts, return_exceptions=True), lease


@awaited
async def test_no_answer_and_no_effect_after_a_pause_in_which_another_machine_took_over(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_of(tmp_path / "a.db", address, lease_ttl=SHORT_LEASE_S) as engine:
        await engine.run(two_effects("a"), id="a")
        seen = list(effects)
        answers, lease = await starts_answers(engine, address, monkeypatch)
        assert {type(one) for one in answers} == {ReplicaLeaseLost}
        assert lease.lost.done()
        with pytest.raises(LeaseLost):
            await engine.start(two_effects("late"), id="late")
        assert effects == seen


@awaited
async def test_fencing_by_the_clock_trusts_the_clock(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_of(
        tmp_path / "a.db", address, lease_ttl=SHORT_LEASE_S, fencing="clock"
    ) as engine:
        answers, lease = await starts_answers(engine, address, monkeypatch)
        assert not [one for one in answers if isinstance(one, Exception)]
        assert not lease.lost.done()


@awaited
async def test_a_lease_object_that_is_missing_confirms_nothing_until_it_is_made_anew(
    tmp_path: Path, address: str
) -> None:
    async with engine_of(tmp_path / "a.db", address, lease_ttl=SHORT_LEASE_S) as engine:
        replica = engine.replica
        assert replica is not None
        await renewals_stop(replica.lease)
        there = open_bucket(parse(address))
        await there.delete([NAME])
        start = asyncio.create_task(engine.start(two_effects("a"), id="a"))
        await until(lambda: replica.barrier.last_error is not None)
        assert "missing" in str(replica.barrier.last_error)
        assert not start.done()
        assert replica.lease._thread is not None
        replica.lease._thread.soon(replica.lease._loop.start)
        await start
        assert await there.get(NAME) is not None


def test_another_value_for_fencing_is_refused() -> None:
    with pytest.raises(
        DefinitionError, match=r'fencing is True .*"clock".* or False .*, not \'clocks\''
    ):
        Replica("file:///there", fencing="clocks")  # type: ignore[arg-type]

"""The barrier: what shares a round, what counts as confirmed, and what becomes of waits
when it fails or ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from perdure.errors import ReplicaLeaseLost, ReplicaUnavailable
from perdure.replica.barrier import CHECKS_MAX, Barrier
from perdure.replica.supervisor import Position
from perdure.store.sqlite.checksum import HistoryChecksum
from tests.runtime.support import awaited, until


class Syncs:
    """Answers of Litestream, given by the test one by one."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[Position]] = []

    async def sync(self) -> Position:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]

    async def answer(self, txid: int, replicated: int) -> None:
        await until(lambda: self.asked and not self.asked[-1].done())
        self.asked[-1].set_result(Position(txid, replicated))


NOT_HELD = "the lease in the bucket is not held"


class LeaseObject:
    """Answers of the bucket about the lease, given by the test one by one."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[None]] = []

    async def still_ours(self) -> None:
        self.asked.append(asyncio.get_running_loop().create_future())
        await self.asked[-1]


class Case:
    """A barrier without a lease object to look at; `obstacle` is why nothing may be confirmed."""

    looks = False

    def __init__(self) -> None:
        self.commits = 0
        self.obstacle = ""
        self.syncs, self.lease = Syncs(), LeaseObject()
        still_ours = self.lease.still_ours if self.looks else None
        self.barrier = Barrier(
            "there",
            self.syncs.sync,
            lambda: HistoryChecksum("id", "there", 1, 0, 0, self.commits),
            lambda: self.obstacle,
            still_ours,
        )
        self.through: list[str] = []

    def wait(self, name: str) -> None:
        self.barrier.after(lambda: self.through.append(name))

    async def goes_through(self, name: str, txid: int) -> None:
        """A wait that is let through by an answer."""
        before = list(self.through)
        self.wait(name)
        await self.syncs.answer(txid, txid)
        await until(lambda: self.through == [*before, name])


class LookingCase(Case):
    """One that reads the lease after each sync."""

    looks = True


def case(test: Callable[[Case], object], kind: type[Case] = Case) -> Callable[[], None]:
    @awaited
    async def run() -> None:
        one = kind()
        await test(one)  # type: ignore[misc]
        await one.barrier.shut(ReplicaLeaseLost("there", "the test has ended"))

    run.__name__ = test.__name__
    return run


def _number_of(asked: list[Any], number: int) -> bool:
    return len(asked) == number


def looking(test: Callable[[Case], object]) -> Callable[[], None]:
    return case(test, LookingCase)


@case
async def test_all_waits_share_a_round_and_one_that_comes_meanwhile_waits_for_the_next(
    one: Case,
) -> None:
    one.commits = 1
    one.wait("a")
    one.wait("b")
    await until(lambda: one.syncs.asked)
    one.commits = 2
    one.wait("c")
    await one.syncs.answer(1, 1)
    await until(lambda: one.through == ["a", "b"])
    await one.syncs.answer(2, 2)
    await until(lambda: one.through == ["a", "b", "c"])
    assert one.barrier.rounds == 2
    one.wait("nothing is new")
    assert one.through[-1] == "nothing is new"
    assert len(one.syncs.asked) == 2


@case
async def test_each_confirmed_round_is_reported_with_its_time(one: Case) -> None:
    times_ms: list[float] = []
    one.barrier.on_confirmed = times_ms.append
    await one.goes_through("a", 1)
    one.commits += 1
    await one.goes_through("b", 2)
    assert len(times_ms) == 2
    assert min(times_ms) >= 0


@case
async def test_a_commit_of_any_process_has_to_be_confirmed(one: Case) -> None:
    await one.goes_through("a", 1)
    assert one.barrier.passed()
    one.commits = 1
    assert not one.barrier.passed()
    one.wait("b")
    await until(lambda: len(one.syncs.asked) == 2)
    one.commits = 2  # after the round has begun: it may lack this one
    await one.syncs.answer(2, 2)
    await until(lambda: one.through == ["a", "b"])
    assert not one.barrier.passed()
    await one.goes_through("c", 2)
    assert one.barrier.passed()


@case
async def test_what_a_copy_has_confirmed_that_is_known_to_be_broken_waits_for_the_next_one(
    one: Case,
) -> None:
    await one.goes_through("a", 1)
    one.obstacle = "a hole"
    assert not one.barrier.passed()
    one.wait("b")
    await until(lambda: len(one.syncs.asked) == 2)
    one.obstacle = ""
    await one.syncs.answer(1, 1)
    await until(lambda: one.through == ["a", "b"])
    assert one.barrier.passed()


@looking
async def test_a_round_whose_copy_is_found_broken_while_the_lease_is_read_is_not_confirmed(
    one: Case,
) -> None:
    one.commits = 1
    one.wait("a")
    await one.syncs.answer(1, 1)
    await until(lambda: one.lease.asked)
    one.obstacle = "a hole"
    one.lease.asked[0].set_result(None)
    await until(lambda: one.barrier.last_error)
    assert "a hole" in str(one.barrier.last_error)
    assert one.through == []


@case
async def test_the_lag_of_a_first_commit_after_a_long_quiet_is_short(one: Case) -> None:
    one.commits = 1
    await one.goes_through("a", 1)
    one.barrier.confirmed_s -= 3_600
    assert one.barrier.lag_s() == 0
    one.barrier.all_copied(asyncio.get_running_loop().time())
    one.commits = 2
    assert 0 < one.barrier.lag_s() < 3_600


@case
async def test_an_answer_that_is_behind_its_own_transaction_does_not_count(one: Case) -> None:
    one.commits = 1
    one.wait("a")
    await one.syncs.answer(7, 6)
    await until(lambda: len(one.syncs.asked) == 2)
    assert one.through == []
    await one.syncs.answer(9, 8)  # not all of that answer, but all of ours
    await until(lambda: one.through == ["a"])


@case
async def test_a_round_counts_only_while_the_lease_is_held(one: Case) -> None:
    one.commits, one.obstacle = 1, NOT_HELD
    one.wait("a")
    await one.syncs.answer(1, 1)
    await until(lambda: one.barrier.last_error is not None)
    assert "lease in the bucket is not held" in str(one.barrier.last_error)
    one.obstacle = ""
    await until(lambda: len(one.syncs.asked) == 2)
    assert one.through == []  # it is asked again: another engine may have written meanwhile
    await one.syncs.answer(1, 1)
    await until(lambda: one.through == ["a"])
    one.obstacle = NOT_HELD
    assert not one.barrier.passed()


@case
async def test_whatever_goes_wrong_nothing_is_confirmed(one: Case) -> None:
    one.commits = 1
    one.wait("a")
    for number, error in enumerate(
        (ReplicaUnavailable("there", "gone"), ZeroDivisionError("a mistake of ours"))
    ):
        while len(one.syncs.asked) <= number:  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        one.syncs.asked[-1].set_exception(error)
        await until(lambda: one.barrier.last_error is not None)
        assert one.through == []
    assert one.barrier.lag_s() > 0
    await one.syncs.answer(1, 1)
    await until(lambda: one.through == ["a"])
    assert one.barrier.last_error is None
    assert one.barrier.lag_s() == 0


@case
async def test_the_end_reaches_every_wait_that_is_still_there(one: Case) -> None:
    one.commits = 1
    one.wait("an action")
    waiting = asyncio.create_task(one.barrier.wait())
    await until(lambda: one.syncs.asked)
    await one.barrier.shut(ReplicaLeaseLost("there", "another engine took it"))
    with pytest.raises(ReplicaLeaseLost, match="another engine took it"):
        await waiting
    with pytest.raises(ReplicaLeaseLost, match="another engine took it"):
        await one.barrier.wait()
    one.wait("another action")
    assert one.through == []


@looking
async def test_the_lease_is_read_after_the_sync_has_answered(one: Case) -> None:
    one.commits = 1
    one.wait("a")
    await until(lambda: one.syncs.asked)
    assert not one.lease.asked
    await one.syncs.answer(1, 1)
    await until(lambda: one.lease.asked)
    assert one.through == []
    one.lease.asked[0].set_result(None)
    await until(lambda: one.through == ["a"])
    assert one.barrier.passed()


@looking
async def test_the_next_round_syncs_while_the_lease_is_read(
    one: Case,
) -> None:
    one.commits = 1
    one.wait("a")
    await one.syncs.answer(1, 1)
    await until(lambda: one.lease.asked)
    one.commits = 2
    one.wait("b")
    await one.syncs.answer(2, 2)
    await until(lambda: len(one.lease.asked) == 2)
    one.lease.asked[1].set_result(None)
    await until(lambda: one.through == ["a", "b"])
    assert one.barrier.rounds == 2
    one.lease.asked[0].set_exception(ReplicaUnavailable("there", "too late to matter"))
    await until(lambda: not one.barrier._checks)
    assert one.barrier.last_error is None
    assert one.barrier.passed()


@looking
async def test_a_read_that_fails_confirms_nothing_and_the_round_is_done_again(one: Case) -> None:
    one.commits = 1
    one.wait("a")
    await one.syncs.answer(1, 1)
    await until(lambda: one.lease.asked)
    one.wait("b")
    one.lease.asked[0].set_exception(ReplicaUnavailable("there", "the lease object is missing"))
    await until(lambda: one.barrier.last_error is not None)
    assert not one.barrier.passed()
    assert one.through == []

    def all_answered() -> bool:
        """Whatever is asked from here on is answered."""
        for sync in one.syncs.asked:
            if not sync.done():
                sync.set_result(Position(1, 1))
        for look in one.lease.asked:
            if not look.done():
                look.set_result(None)
        return len(one.through) == 2

    await until(all_answered)
    assert sorted(one.through) == ["a", "b"]
    assert one.barrier.last_error is None


@looking
async def test_the_clock_is_read_before_the_bucket_and_after(one: Case) -> None:
    one.commits, one.obstacle = 1, NOT_HELD
    one.wait("a")
    await one.syncs.answer(1, 1)
    await until(lambda: one.barrier.last_error is not None)
    assert not one.lease.asked
    one.obstacle = ""
    await until(lambda: len(one.syncs.asked) == 2)
    await one.syncs.answer(1, 1)
    await until(lambda: one.lease.asked)
    one.obstacle = NOT_HELD
    one.lease.asked[0].set_result(None)
    await until(lambda: len(one.syncs.asked) == 3)
    assert one.through == []


@looking
async def test_reads_at_once_are_limited(one: Case) -> None:
    for number in range(CHECKS_MAX):
        one.commits = number + 1
        one.wait(str(number))
        await until(partial(_number_of, one.syncs.asked, number + 1))
        await one.syncs.answer(1, 1)
        await until(partial(_number_of, one.lease.asked, number + 1))
    one.wait("more")
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(one.syncs.asked) == CHECKS_MAX
    one.lease.asked[0].set_result(None)
    await until(lambda: len(one.syncs.asked) == CHECKS_MAX + 1)
    assert one.through == ["0"]


@looking
async def test_the_end_reaches_waits_in_every_stage_of_a_round(one: Case) -> None:
    ended: list[object] = []
    for number in range(2):
        one.barrier._add(ended.append)
        await until(partial(_number_of, one.syncs.asked, number + 1))
        if number == 0:
            await one.syncs.answer(1, 1)
            await until(lambda: one.lease.asked)
    one.barrier._add(ended.append)
    await one.barrier.shut(ReplicaLeaseLost("there", "another engine took it"))
    assert [type(error) for error in ended] == [ReplicaLeaseLost] * 3

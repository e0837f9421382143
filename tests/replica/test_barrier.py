"""The barrier: who shares a round, what counts as confirmed, and what becomes of those who wait when it fails or ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.runtime.support import awaited, until

from perdure.errors import ReplicaLeaseLost, ReplicaUnavailable
from perdure.replica.barrier import Barrier
from perdure.replica.litestream import Position


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


class Case:
    def __init__(self) -> None:
        self.commits: int | None = 0
        self.held = True
        self.syncs = Syncs()
        self.barrier = Barrier("there", self.syncs, lambda: self.commits, lambda: self.held)
        self.through: list[str] = []

    def wait(self, name: str) -> None:
        self.barrier.after(lambda: self.through.append(name))

    async def goes_through(self, name: str, txid: int) -> None:
        """One who waits is let through by an answer."""
        before = list(self.through)
        self.wait(name)
        await self.syncs.answer(txid, txid)
        await until(lambda: self.through == [*before, name])


def case(test: Callable[[Case], object]) -> Callable[[], None]:
    @awaited
    async def run() -> None:
        one = Case()
        await test(one)  # type: ignore[misc]
        await one.barrier.shut(ReplicaLeaseLost("there", "the test has ended"))

    run.__name__ = test.__name__
    return run


@case
async def test_all_who_wait_share_a_round_and_who_comes_meanwhile_waits_for_the_next(one: Case) -> None:
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
async def test_a_commit_that_is_under_way_on_another_thread_may_be_in_no_round(one: Case) -> None:
    """Readers see it before it is counted."""
    one.commits = 1
    await one.goes_through("a", 1)
    assert one.barrier.passed()
    one.commits = None
    assert not one.barrier.passed()
    await one.goes_through("b", 2)
    assert not one.barrier.passed()
    one.commits = 2
    assert not one.barrier.passed()
    await one.goes_through("c", 2)
    assert one.barrier.passed()


@case
async def test_the_lag_of_a_first_commit_after_a_long_quiet_is_short(one: Case) -> None:
    one.commits = 1
    await one.goes_through("a", 1)
    one.barrier.confirmed_s -= 3_600
    assert one.barrier.lag_s() == 0
    one.barrier.all_copied(asyncio.get_running_loop().time())
    one.commits = 2
    assert 0 < one.barrier.lag_s() < 3_600
    assert one.barrier.lag_s(others_s=0) > 0


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
    one.commits, one.held = 1, False
    one.wait("a")
    await one.syncs.answer(1, 1)
    await until(lambda: one.barrier.trouble is not None)
    assert "lease in the bucket is not held" in str(one.barrier.trouble)
    one.held = True
    await until(lambda: len(one.syncs.asked) == 2)
    assert one.through == []  # it is asked again: who knows who has written meanwhile
    await one.syncs.answer(1, 1)
    await until(lambda: one.through == ["a"])
    one.held = False
    assert not one.barrier.passed()


@case
async def test_whatever_goes_wrong_nobody_is_told_that_all_is_well(one: Case) -> None:
    one.commits = 1
    one.wait("a")
    for number, error in enumerate((ReplicaUnavailable("there", "gone"), ZeroDivisionError("a mistake of ours"))):
        while len(one.syncs.asked) <= number:  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        one.syncs.asked[-1].set_exception(error)
        await until(lambda: one.barrier.trouble is not None)
        assert one.through == []
    assert one.barrier.lag_s() > 0
    await one.syncs.answer(1, 1)
    await until(lambda: one.through == ["a"])
    assert one.barrier.trouble is None
    assert one.barrier.lag_s() == 0


@case
async def test_the_end_is_told_to_those_who_can_hear_it(one: Case) -> None:
    one.commits = 1
    one.wait("an action")
    waiting = asyncio.create_task(one.barrier.wait())
    await until(lambda: one.syncs.asked)
    await one.barrier.shut(ReplicaLeaseLost("there", "somebody took it"))
    with pytest.raises(ReplicaLeaseLost, match="somebody took it"):
        await waiting
    with pytest.raises(ReplicaLeaseLost, match="somebody took it"):
        await one.barrier.wait()
    one.wait("another action")
    assert one.through == []

"""The durability gate over a real barrier: which attempts and answers wait, and for how long."""

from __future__ import annotations

from typing import Any, Self

import pytest

from perdure import step
from perdure.api.options import Options
from perdure.errors import ReplicaFull, ReplicaLeaseLost, ReplicaUnavailable
from perdure.replica.barrier import Barrier
from perdure.replica.supervisor import Position
from perdure.runtime.durability import DurabilityGate, stricter
from perdure.store.sqlite.checksum import HistoryChecksum
from tests.runtime.support import awaited


class Copy:
    """A replica that confirms only while it is told to."""

    def __init__(self, durability: str = "replica") -> None:
        self.commits, self.obstacle = 1, "it is out of reach"
        self.barrier = Barrier(
            "there",
            self._sync,
            lambda: HistoryChecksum("id", "there", 1, 0, 0, self.commits),
            lambda: self.obstacle,
            None,
        )
        self.gate = DurabilityGate(self.barrier, durability)

    async def _sync(self) -> Position:
        return Position(1, 1)

    async def confirm(self) -> None:
        self.obstacle = ""
        await self.barrier.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.barrier.shut(ReplicaLeaseLost("there", "the test has ended"))


def options(**given: Any) -> Options:
    @step(**given)
    async def one() -> None: ...

    found: Options = one().options
    return found


@awaited
async def test_the_nearest_level_decides_what_waits() -> None:
    async with Copy("replica") as replica, Copy("disk") as disk:
        assert replica.gate.holds(options(), None)
        assert not replica.gate.holds(options(), "disk")
        assert replica.gate.holds(options(durability="replica"), "disk")
        assert not replica.gate.holds(options(durability="disk"), "replica")
        assert not disk.gate.holds(options(), None)
        assert disk.gate.holds(options(), "replica")


@awaited
async def test_a_readonly_step_waits_only_while_the_disk_is_full() -> None:
    async with Copy("replica") as copy:
        assert not copy.gate.holds(options(readonly=True), None)
        copy.gate.check_room()
        copy.barrier.full = ReplicaFull("there", 1, 2)
        assert copy.gate.full
        assert copy.gate.holds(options(readonly=True), None)
        with pytest.raises(ReplicaFull):
            copy.gate.check_room()


@awaited
async def test_nothing_waits_for_what_is_confirmed() -> None:
    async with Copy("replica") as copy:
        begun: list[int] = []
        copy.gate.after(lambda: begun.append(1))
        assert begun == []
        await copy.confirm()
        await copy.gate.answer()
        assert not copy.gate.holds(options(), None)
        assert begun == [1]
        copy.gate.after(lambda: begun.append(2))
        assert begun == [1, 2]
        copy.commits = 2
        assert copy.gate.holds(options(), None)


@awaited
async def test_an_answer_waits_as_long_as_its_caller_does() -> None:
    async with Copy("replica") as copy:
        await copy.gate.answer("disk")
        with pytest.raises(ReplicaUnavailable):
            await copy.gate.answer(s_max=0)


def test_the_stricter_level_of_a_caller_and_a_run() -> None:
    assert stricter(None, None) is None
    assert stricter("disk", "replica") == "replica"
    assert stricter("disk", None) == "disk"

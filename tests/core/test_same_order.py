"""What asks in another order in some Python version asks in one order in workflows, and outside of
them as that Python does.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import gather, wait_for
from typing import Any

import msgspec
import pytest

from perdure import emit, step, workflow
from perdure.core import events as ev
from tests.core.support import Hand


@step
async def a(n: int) -> int:
    return n


@step
async def b(n: int) -> int:
    return n


@workflow
async def waits() -> list[int]:
    return list(await gather(wait_for(a(1), 60), b(2)))


class OldHand(Hand):
    """A run whose history is from before the Python was recorded."""

    def feed(self, kind: str, **fields: Any) -> Any:
        self.kernel.facts = msgspec.structs.replace(self.kernel.facts, old=True)
        return super().feed(kind, **fields)


@pytest.mark.parametrize("old", [False, True])
def test_wait_for_asks_at_once(old: bool) -> None:
    hand = (OldHand if old else Hand)(waits())
    asked = [row.name or row.kind for row in hand.rows]
    assert asked == (
        [ev.START, "timer", "b", "a"]
        if old and sys.version_info < (3, 12)
        else [ev.START, "timer", "a", "b"]
    )
    hand.answer()
    hand.answer()
    assert hand.kernel.outcome == ev.Completed(b"[1,1]")


@pytest.mark.parametrize(("seconds", "late"), [(0, True), (-1, True), (0.5, True), (None, False)])
def test_wait_for_ends_as_asyncios_does(seconds: float | None, late: bool) -> None:
    @workflow
    async def main() -> str:
        begun = []

        async def inner() -> None:
            begun.append(1)
            await (a(1) if seconds is None else asyncio.sleep(9))

        try:
            await wait_for(inner(), seconds)
        except TimeoutError:
            return f"late {begun}"
        return f"done {begun}"

    hand = Hand(main())
    if seconds is None:
        hand.answer()
    elif seconds > 0:
        hand.feed(ev.FIRED, ref=hand.kernel.due()[1])  # type: ignore[index]
    begun = "" if late and seconds != 0.5 else "1"
    assert hand.kernel.outcome == ev.Completed(f'"{"late" if late else "done"} [{begun}]"'.encode())


@workflow
async def gathers_what_is_done() -> list[Any]:
    done = asyncio.create_task(asyncio.sleep(0, 1))
    await done

    async def other() -> None:
        emit("order", "other")

    asyncio.create_task(other())  # noqa: RUF006
    found = await gather(done, done, return_exceptions=True)
    emit("order", "gathered")
    await asyncio.sleep(0)
    return [*found, *await asyncio.gather(done, asyncio.sleep(0, 2))]


@pytest.mark.parametrize("old", [False, True])
def test_gather_counts_at_once_what_is_done(old: bool) -> None:
    hand = (OldHand if old else Hand)(gathers_what_is_done())
    emitted = [row.data for row in hand.rows if row.kind == ev.EMIT]
    assert emitted == (
        [b'"other"', b'"gathered"']
        if old and sys.version_info < (3, 12)
        else [b'"gathered"', b'"other"']
    )
    assert hand.kernel.outcome == ev.Completed(b"[1,1,1,2]")


def test_gather_passes_on_the_error_of_what_has_failed_before() -> None:
    @workflow
    async def main() -> str:
        async def fails() -> None:
            raise ValueError("at once")

        failed = asyncio.create_task(fails())
        await asyncio.wait([failed])
        try:
            await gather(failed, a(1))
        except ValueError as error:
            return str(error)
        return "no error"

    assert Hand(main()).kernel.outcome == ev.Completed(b'"at once"')


def test_outside_of_workflows_they_are_asyncios_own() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await wait_for(asyncio.sleep(9), 0.001)
        assert await wait_for(asyncio.sleep(0, 1), None) == 1
        assert list(await gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))) == [1, 2]
        assert await gather() == []

    asyncio.run(main())

"""Code that goes on after a refusal stops its run there, with the line; code that lets the error
through fails as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import NotDeterministic, TouchedFromOutside, receive, step, workflow
from perdure.core import events as ev
from perdure.errors import RefusalIgnored
from tests.core.support import Hand


@step
async def one() -> int:
    return 1


def reads() -> str:
    return Path(__file__).read_text()  # the guilty line


async def reads_later() -> str:
    await asyncio.sleep(0)
    return reads()


LINE = reads.__code__.co_firstlineno + 1
WHERE = rf"refused: Opening a file\n  at:      .*test_refused\.py:{LINE} in reads\n"


async def swallows() -> None:
    with contextlib.suppress(Exception):
        reads()


async def gathers() -> None:
    await asyncio.gather(reads_later(), return_exceptions=True)


async def forgets() -> None:
    asyncio.create_task(reads_later())  # noqa: RUF006
    await one()


async def fails_with_another_error() -> None:
    await swallows()
    raise ValueError("of something else")


async def cleans_up() -> None:
    try:
        reads()
    finally:
        await one()  # what it asks for here would not be asked for by code that is right


async def is_refused_twice() -> None:
    await swallows()
    asyncio.get_running_loop().add_signal_handler(1, print)


async def swallows_before_it_waits() -> None:
    await swallows()
    await receive("go", int)


IGNORED = [
    swallows,
    gathers,
    forgets,
    fails_with_another_error,
    cleans_up,
    is_refused_twice,
    swallows_before_it_waits,
]


@pytest.mark.parametrize("act", IGNORED, ids=lambda act: act.__name__)
def test_a_run_that_goes_on_after_a_refusal_stops_there(act: Callable[[], Awaitable[Any]]) -> None:
    @workflow
    async def main() -> int:
        first = await one()
        await act()
        return first + await one()

    hand = Hand(main())
    with pytest.raises(RefusalIgnored, match=WHERE):
        hand.answer()
    assert hand.kernel.diverged
    with pytest.raises(
        RefusalIgnored, match=WHERE
    ):  # so it does after a restart: the input is in the file, what it led to is not
        Hand(main(), hand.rows)
    rows = hand.rows

    @workflow(name="main")
    async def put_right() -> int:
        return await one() + await one()

    assert [row.kind for row in Hand(put_right(), rows).rows] == [
        ev.START,
        ev.STEP,
        ev.COMPLETED,
        ev.STEP,
    ]


LIBRARY = """
async def get(act):
    async with asyncio.TaskGroup() as group:
        group.create_task(connect(act))

async def connect(act):
    await asyncio.sleep(0)
    act(".")
"""


def test_where_a_library_was_refused_the_line_that_waits_for_it_is_told() -> None:
    library: dict[str, Any] = {"asyncio": asyncio}
    exec(compile(LIBRARY, "/usr/lib/site-packages/client.py", "exec"), library)  # noqa: S102

    @workflow
    async def main() -> None:
        async def other() -> None:
            await asyncio.sleep(9)

        asyncio.create_task(other())  # noqa: RUF006
        with contextlib.suppress(ExceptionGroup):
            await library["get"](os.listdir)

    line = main.fn.__code__.co_firstlineno + 7
    with pytest.raises(
        RefusalIgnored,
        match=(
            rf"test_refused\.py:{line} in \S*main, through "
            rf"/usr/lib/site-packages/client\.py:8 in connect\n"
        ),
    ):
        Hand(main())


async def grows_out_of_it() -> None:
    try:
        reads()
    except Exception:
        raise ValueError("no settings") from None


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(reads_later())
        group.create_task(asyncio.sleep(1))


@pytest.mark.parametrize(
    "act", [reads_later, grows_out_of_it, in_a_group], ids=lambda act: act.__name__
)
def test_a_run_that_ends_with_the_error_fails(act: Callable[[], Awaitable[Any]]) -> None:
    @workflow
    async def main() -> None:
        await act()

    hand = Hand(main())
    assert isinstance(hand.kernel.outcome, ev.Failed)


def test_a_run_that_fails_may_clean_up_what_else_it_does() -> None:
    @workflow
    async def main() -> None:
        async def other() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                await one()

        asyncio.create_task(other())  # noqa: RUF006
        await asyncio.sleep(0)
        reads()

    hand = Hand(main())
    assert hand.kernel.outcome is None
    hand.answer()
    assert "Opening a file" in hand.error


def test_what_an_earlier_version_has_recorded_goes_on() -> None:
    @workflow
    async def main() -> int:
        with contextlib.suppress(Exception):
            reads()
        return await one()

    @workflow(name="main")
    async def innocent() -> int:
        return await one()

    hand = Hand(main(), Hand(innocent()).rows)
    hand.answer()
    assert hand.kernel.outcome == ev.Completed(b"1")


class Thing:
    pass


def test_no_frame_is_kept_alive_by_a_refusal() -> None:
    things: list[Any] = []

    def reads_with_a_thing() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        reads()

    @workflow
    async def main() -> None:
        try:
            reads_with_a_thing()
        except NotDeterministic:
            things.append(asyncio.get_running_loop().refused)  # type: ignore[attr-defined]

    gc.disable()
    try:
        with pytest.raises(RefusalIgnored):
            Hand(main())
        assert things[0]() is None
        assert things[1].error() is None
    finally:
        gc.enable()


shared: dict[str, Any] = {}


@workflow
async def waits() -> None:
    shared["event"] = event = asyncio.Event()
    asyncio.create_task(event.wait())  # noqa: RUF006
    await one()


def test_a_run_that_was_touched_from_outside_stops_and_goes_on_from_its_history() -> None:
    hand = Hand(waits())
    with pytest.raises(TouchedFromOutside):
        shared["event"].set()
    with pytest.raises(
        RefusalIgnored,
        match=(
            r"Using an event.* outside of .*\n  at:      .*test_refused.py:\d+ in "
            r"test_a_run_that_was"
        ),
    ):
        hand.answer()
    again = Hand(waits(), hand.rows)
    assert again.kernel.outcome == ev.Completed(b"null")


def test_a_run_that_touches_another_stops_too() -> None:
    hand = Hand(waits())

    @workflow
    async def touches() -> None:
        with contextlib.suppress(TouchedFromOutside):
            shared["event"].set()

    with pytest.raises(RefusalIgnored, match=r"test_refused\.py"):
        Hand(touches())
    with pytest.raises(RefusalIgnored):
        hand.answer()

"""Eviction: a parked run leaves memory without a trace in user code."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import os
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from perdure import receive, step, workflow
from perdure.core import discard
from tests.core.support import Hand

pytestmark = pytest.mark.skipif(
    not discard.supported, reason="this interpreter keeps runs in memory until they end"
)

ran: list[str] = []


class Big:
    """Weakly referable."""


alive: list[weakref.ref[Big]] = []


@step
async def one() -> int:
    return 1


@contextlib.contextmanager
def manager() -> Iterator[None]:
    try:
        yield
    finally:
        ran.append("manager")


@contextlib.asynccontextmanager
async def async_manager() -> AsyncIterator[None]:
    try:
        yield
    finally:
        ran.append("async manager")


class Hooked:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        ran.append("__exit__")


async def numbers() -> AsyncIterator[int]:
    try:
        yield 1
        yield 2
    finally:
        ran.append("generator")


async def inner() -> None:
    big = Big()
    alive.append(weakref.ref(big))
    try:
        await one()
    except BaseException:
        ran.append("except")
        raise
    finally:
        ran.append(f"finally {big}")
        await one()


@workflow
async def guarded() -> None:
    async with async_manager():
        with manager(), Hooked():
            async for _ in numbers():
                async with asyncio.TaskGroup() as group:
                    group.create_task(inner())
                    group.create_task(inner())


def test_nothing_of_user_code_runs_and_everything_is_freed() -> None:
    ran.clear()
    alive.clear()
    hand = Hand(guarded())
    assert len(alive) == 2
    hand.kernel.discard()
    del hand
    gc.collect()
    assert ran == []
    assert [ref() for ref in alive] == [None, None]


@workflow
async def waits_for_a_person() -> str:
    big = Big()
    alive.append(weakref.ref(big))
    try:
        await one()
        async with asyncio.timeout(3600):
            return await receive("word", str)
    finally:
        ran.append(f"finally {big}")


def test_what_waits_for_one_thing_is_freed_without_the_garbage_collector() -> None:
    """With many runs in memory the collector comes seldom, and what it finds late is memory that
    parked runs hold.
    """
    ran.clear()
    alive.clear()
    gc.collect()
    gc.disable()
    try:
        hands = [Hand(waits_for_a_person()), Hand(waits_for_a_person())]
        hands[1].answer()  # that one waits for the message
        for hand in hands:
            hand.kernel.discard()
        del hand, hands
        assert [ref() for ref in alive] == [None, None]
    finally:
        gc.enable()
    assert ran == []


def test_a_thousand_runs_leave_nothing_behind() -> None:
    def count() -> int:
        gc.collect()
        return len(gc.get_objects())

    def park(times: int) -> None:
        for _ in range(times):
            Hand(guarded()).kernel.discard()
        alive.clear()

    ran.clear()
    park(20)
    before = count()
    park(1000)
    assert count() - before < 200
    assert ran == []


def test_nothing_is_said_on_stderr() -> None:
    code = """
from tests.core.test_discard import Hand, guarded, ran
import gc
for _ in range(3):
    hand = Hand(guarded())
    hand.kernel.discard()
    del hand
gc.collect()
assert ran == []
print("quiet")
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("quiet\n", "")


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)])}


# --- whatever holds a frame -----------------------------------------------------------------------


def rows(word: str = "rows") -> Iterator[int]:
    try:
        yield 1
        yield 2
    finally:
        ran.append(word)


def begun(word: str = "rows") -> Iterator[int]:
    generator = rows(word)
    next(generator)
    return generator


class Awaitable:
    def __await__(self) -> Any:
        return self._go().__await__()

    async def _go(self) -> None:
        try:
            await one()
        finally:
            ran.append("awaitable")


class Holder:
    def __init__(self, generator: Any) -> None:
        self.inside = {"generator": [generator]}


async def later() -> None:
    ran.append("later")


def _closure() -> Any:
    generator = begun()
    return lambda: generator


HOLDERS: dict[str, Any] = {
    "nothing": begun,
    "enumerate": lambda: (begun(), enumerate(begun())),
    "zip": lambda: zip(begun(), [1, 2], strict=False),
    "map": lambda: map(abs, begun()),
    "filter": lambda: filter(None, begun()),
    "chain": lambda: itertools.chain(begun(), begun()),
    "islice": lambda: itertools.islice(begun(), 5),
    "generator expression": lambda: (n for n in begun()),
    "list": lambda: [begun()],
    "dict of deques": lambda: {"a": deque([begun()])},
    "attribute": lambda: Holder(begun()),
    "cell": _closure,
    "partial": lambda: functools.partial(next, begun()),
    "bound method": lambda: begun().__next__,
    "coroutines for later": lambda: [later(), later()],
}


@workflow
async def holds(name: str) -> None:
    held = HOLDERS[name]()
    await one()
    raise AssertionError(held)


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.filterwarnings("error")
def test_whatever_holds_a_frame_it_ends_without_a_trace(name: str) -> None:
    ran.clear()
    hand = Hand(holds(name))
    hand.kernel.discard()
    del hand
    gc.collect()
    assert ran == []


@workflow
async def in_stacks() -> None:
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(manager())
        await stack.enter_async_context(async_manager())
        with contextlib.ExitStack() as below:
            below.enter_context(manager())
            below.callback(ran.append, "callback")
            await Awaitable()


def test_exit_stacks_and_awaitable_objects_end_without_a_trace() -> None:
    ran.clear()
    hand = Hand(in_stacks())
    hand.kernel.discard()
    del hand
    gc.collect()
    assert ran == []


shared: dict[str, Any] = {}


@workflow
async def borrows() -> None:
    service, generator = shared["service"], shared["generator"]
    await one()
    raise AssertionError((service, generator))


def test_a_generator_of_the_application_goes_on_although_a_run_that_held_it_was_dropped() -> None:
    shared.update(service=Holder(begun("service")), generator=begun("application"))
    ran.clear()
    hand = Hand(borrows())
    hand.kernel.discard()
    del hand
    gc.collect()
    assert next(shared["generator"]) == next(shared["service"].inside["generator"][0]) == 2
    shared.clear()
    gc.collect()
    assert sorted(ran) == ["application", "service"]

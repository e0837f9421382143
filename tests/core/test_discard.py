"""Eviction: a parked run leaves memory without a trace in user code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.core.support import Hand

from perdure import receive, step, workflow
from perdure.core import discard

pytestmark = pytest.mark.skipif(not discard.supported, reason="this interpreter keeps runs in memory until they end")

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
    """With many runs in memory the collector comes seldom, and what it finds late is memory that parked runs hold."""
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
        [sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=False, env=_environment(), timeout=60
    )
    assert (done.stdout, done.stderr) == ("quiet\n", "")


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)])}

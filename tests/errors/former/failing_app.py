"""Workflows that fail with every error class of Perdure's own that a history can hold.

`make_store.py` runs them. A test runs them again on the file that it made, with `repaired` set.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import perdure
from perdure import Engine, Retry, receive, send, step, workflow

repaired = False


def die_once(mark: str) -> None:
    """Kill this process the first time that it comes here."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


@step(timeout=0.02, retry=Retry(attempts=2, delay=0.01))
async def sleeps_too_long() -> None:
    if not repaired:
        await asyncio.sleep(60)


@step(on_crash="fail")
async def dies_and_fails() -> None:
    die_once("died-and-failed")


@step
async def dies_and_is_retried() -> str:
    die_once("died-and-retried")
    return "done at the second attempt"


@step(retry=None)
def exits() -> None:
    if not repaired:
        sys.exit(3)


@step(retry=None)
async def cancels_itself() -> None:
    if not repaired:
        raise asyncio.CancelledError


@step(retry=None)
def reads_missing_store() -> None:
    perdure.connect("no-such-folder/no-such.db")


@step(retry=None)
async def opens_bad_replica() -> None:
    async with Engine("other.db", replica="gopher://bucket"):
        pass


@step(retry=None)
def raises_chain() -> None:
    try:
        raise TimeoutError("inner")
    except TimeoutError as error:
        raise ValueError("outer") from error


class Fickle(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise LookupError("no such policy")


class FickleError(Exception, metaclass=Fickle):
    """A class in a retry policy that can't be asked."""


@step(retry=Retry(attempts=3, on=(FickleError,)))
def has_bad_policy() -> None:
    if not repaired:
        raise ConnectionError("reset by peer")


@workflow
async def times_out() -> None:
    await sleeps_too_long()


@workflow
async def died_and_failed() -> None:
    await dies_and_fails()


@workflow
async def died_and_retried() -> str:
    return await dies_and_is_retried()


@workflow
async def left() -> None:
    await exits()


@workflow
async def cancelled_itself() -> None:
    await cancels_itself()


@workflow
async def bad_policy() -> None:
    await has_bad_policy()


@workflow
async def missing_store() -> None:
    await reads_missing_store()


@workflow
async def bad_replica() -> None:
    await opens_bad_replica()


@workflow
async def chained() -> None:
    await raises_chain()


@workflow
async def child_failed() -> None:
    await left.options(id="child-left")()


@workflow
async def sent_to_none() -> None:
    await send("no-such-run", 1, channel="mail")


@workflow
async def opened_file() -> None:
    open("forbidden")  # noqa: ASYNC230, SIM115


@workflow
async def endless() -> None:
    while True:  # noqa: ASYNC110
        await asyncio.sleep(0)


@workflow
async def caught() -> str:
    """Goes on after failures, so that a replay has to rebuild them."""
    kinds = []
    for call in (sleeps_too_long(), exits(), cancels_itself(), reads_missing_store()):
        try:
            await call
        except Exception as error:
            kinds.append(f"{type(error).__name__} from {type(error.__cause__).__name__}")
    kinds.append(await receive("more", str))
    return ", ".join(kinds)


WORKFLOWS: list[Any] = [
    times_out,
    died_and_failed,
    died_and_retried,
    left,
    cancelled_itself,
    bad_policy,
    missing_store,
    bad_replica,
    chained,
    child_failed,
    sent_to_none,
    opened_file,
    endless,
    caught,
]

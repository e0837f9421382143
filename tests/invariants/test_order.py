"""What workflow code can see of asyncio's own bookkeeping is the same in every process: orders of
sets, names of tasks.

Rules: each workflow runs in several kernels, with others alive between them, so that addresses and
the counters of the process differ; nothing here depends on which order it is.
"""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import random as rng
from typing import Any

import pytest

from campaigns.corpus import Case, double
from campaigns.kernel_sim import kernel_of
from perdure import workflow
from perdure.core import events as ev
from perdure.testing.virtual_time import BEGIN_MS


def outcomes(case: Case) -> set[Any]:
    """What several kernels make of one case; it has to end in its first turn."""
    kept = []
    for _ in range(8):
        kernel = kernel_of(case)
        kernel.feed(kernel.stamp(ev.START, BEGIN_MS))
        kept.append(kernel)
    return {kernel.outcome for kernel in kept}


async def _soon(n: int) -> int:
    return n


async def _stays_or_goes(stays: bool) -> None:
    await asyncio.sleep(1000 if stays else 0)


@workflow
async def gathers_in_a_set() -> list[int]:
    gathered = [asyncio.gather(_soon(n)) for n in range(8)]
    done, _ = await asyncio.wait(set(gathered))
    return [gathered.index(one) for one in done]


@workflow
async def gathers_as_completed() -> list[int]:
    gathered = [asyncio.gather(_soon(n)) for n in range(8)]
    for _ in range(3):
        await asyncio.sleep(0)
    return [(await one)[0] for one in asyncio.as_completed(gathered)]


@workflow
async def all_tasks(seed: int) -> list[int]:
    dice = rng.Random(seed)
    tasks = [asyncio.create_task(_stays_or_goes(dice.random() < 0.15)) for _ in range(60)]
    for _ in range(3):
        await asyncio.sleep(0)
    return [tasks.index(task) for task in asyncio.all_tasks() if task in tasks]


@workflow
async def names() -> list[str]:
    main, other = asyncio.current_task(), asyncio.create_task(_soon(1))
    assert main is not None
    return [main.get_name(), other.get_name()]


@workflow
async def thirds() -> str:
    return str(decimal.Decimal(1) / 3)


@workflow
async def tasks_in_a_set() -> list[int]:
    tasks = {asyncio.create_task(_soon(n)) for n in range(40)}
    done, _ = await asyncio.wait(tasks)
    return [task.result() for task in done | tasks]


@workflow
async def calls_in_a_set() -> list[int]:
    calls = {double(n) for n in range(40)}
    for call in calls:
        call.close()  # they are not awaited on purpose
    return [call.args[0] for call in calls]


@pytest.mark.parametrize(
    "case",
    [Case("tasks", tasks_in_a_set()), Case("calls", calls_in_a_set())],
    ids=["tasks", "calls"],
)
def test_sets_are_walked_in_the_same_order_everywhere(case: Case) -> None:
    assert len(outcomes(case)) == 1


@pytest.mark.parametrize(
    "case",
    [Case("set", gathers_in_a_set()), Case("come", gathers_as_completed())],
    ids=["set", "as_completed"],
)
def test_sets_of_what_gather_gives_are_walked_in_the_same_order_everywhere(case: Case) -> None:
    assert len(outcomes(case)) == 1


def test_all_tasks_come_in_the_same_order_everywhere() -> None:
    assert all(len(outcomes(Case("all tasks", all_tasks(seed)))) == 1 for seed in range(30))


def test_tasks_have_the_same_names_everywhere() -> None:
    assert len(outcomes(Case("names", names()))) == 1


def test_context_variables_from_outside_do_not_reach_workflow_code() -> None:
    """The decimal context is one: an application that sets it, and `perdure worker` that does not,
    must replay alike.
    """

    def with_precision(digits: int) -> set[Any]:
        decimal.getcontext().prec = digits
        return outcomes(Case("thirds", thirds()))

    assert contextvars.Context().run(with_precision, 5) == contextvars.Context().run(
        with_precision, 9
    )

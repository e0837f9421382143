"""Workflows that tests of files and their copies fill stores with."""

from __future__ import annotations

from perdure import step, workflow


@step
async def add_one(n: int) -> int:
    return n + 1


@workflow
async def count_up(steps: int) -> int:
    n = 0
    for _ in range(steps):
        n = await add_one(n)
    return n

"""Workflows of runs that are carried to another store, where a worker executes them."""

import asyncio

from perdure import emit, expose, receive, step, workflow

FAMILIES = 12


def family_of(run_id: str) -> int:
    """The number of the family that a run is of: the digits behind the first letter."""
    return int(run_id[1:].partition("/")[0].partition("-")[0])


@step
def double(n: int) -> dict[str, object]:
    return {"twice": 2 * n, "text": "t" * 2_000}


@workflow
async def below(n: int) -> int:
    emit("log", {"n": n})
    return n + int(await receive("go"))


@workflow
async def carried(n: int) -> list[int]:
    for number in range(60):
        emit("log", {"number": number})
    expose(stage=n)
    twice = int(str((await double(n))["twice"]))
    child = asyncio.ensure_future(below.options(id=f"f{n}-below")(n))
    first = int(await receive("go"))
    child.cancel()
    return [first, twice]


@workflow
async def busy() -> None:
    while True:
        await double(1)
        await asyncio.sleep(0.05)

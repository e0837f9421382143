"""A child whose chosen id is taken: its answer is not lost with the process that asked for it."""

from __future__ import annotations

import pytest

from perdure import RunExists, start, step, workflow
from perdure.testing import assert_survives_every_crash


@step
async def one(n: int) -> int:
    return n


@workflow
async def adds(n: int) -> int:
    return n + await one(n)


@workflow
async def refused() -> str:
    await start(adds(1), id="taken")
    try:
        await adds.options(id="taken")(2)
    except RunExists as error:
        return error.run_id
    return "it was not refused"


@workflow
async def borrows() -> int:
    await start(adds(1), id="taken")
    while True:
        try:
            return await adds.options(id="taken")(1)
        except RunExists:  # it has not ended
            await one(0)


@pytest.mark.parametrize("definition", [refused, borrows])
def test_the_answer_about_a_taken_id_survives_every_crash(definition: object) -> None:
    found = assert_survives_every_crash(
        definition(),  # type: ignore[operator]
        workflows=[adds],
        hash_seeds=(),
    )
    assert found.crashes

"""Workflows whose histories are recorded beside the tests: `python -m tests.api.helper_flows` makes
new ones, which only a deliberate break of recorded histories may need.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from perdure import (
    Engine,
    PerdureError,
    PollTimeout,
    Retry,
    RunFailed,
    Saga,
    TooManyFailures,
    gather_limited,
    poll_until,
    step,
    workflow,
)
from perdure.testing import export_run

FOLDER = Path(__file__).with_name("recorded")


@step
async def double(n: int) -> int:
    return 2 * n


@step(retry=None)
async def fails(why: str) -> None:
    raise ValueError(why)


@workflow
async def gathers() -> list[str]:
    found = await gather_limited([double(1), fails("a"), double(2), double(3)], limit=2, tolerate=1)
    some = await gather_limited(map(double, range(9)), limit=3, enough=2)
    try:
        await gather_limited([double(4), fails("b"), double(5), double(6)], limit=2)
    except TooManyFailures as error:
        return [type(one).__name__ for one in (*found, *some, error)]
    return []


@workflow
async def polls() -> int:
    every = Retry(delay=0.001, factor=2, max_delay=0.01)
    try:
        await poll_until(double(1), until=lambda n: n > 9, every=every, polls_max=3)
    except PollTimeout as error:
        return error.polls
    return 0


@workflow
async def undoes() -> None:
    async with Saga() as outer:
        outer.undo(double(1))
        async with Saga() as inner:
            inner.undo(double(2))
            inner.undo(fails("undo"))
            await fails("do")


FLOWS: dict[str, Any] = {"gathers": gathers, "polls": polls, "undoes": undoes}


async def record(name: str, db: str) -> None:
    async with Engine(db, workflows=[*FLOWS.values()]) as engine:
        with contextlib.suppress(RunFailed, PerdureError):
            await engine.run(FLOWS[name](), id=name)


def without_paths(data: Any) -> Any:
    """JSON without the frames of errors, which hold the paths of one machine."""
    if isinstance(data, list):
        return [without_paths(one) for one in data]
    if isinstance(data, dict):
        return {key: without_paths(one) for key, one in data.items() if key != "frames"}
    return data


def main() -> None:
    for name in FLOWS:
        with tempfile.TemporaryDirectory() as folder:
            db = str(Path(folder, "recorded.db"))
            asyncio.run(record(name, db))
            recorded = without_paths(json.loads(export_run(db, name)))
            (FOLDER / f"{name}.json").write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()

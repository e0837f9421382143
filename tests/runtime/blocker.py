"""A process whose event loop stands still inside a step, until it is told to go on: blocker.py
STORE LEASE_S [STALL_LEASES].
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from perdure import Engine, step, workflow
from perdure.process import threads

MARK = "held by "


def say(*words: object) -> None:
    print(*words, flush=True)


@step
async def stands_still(inside: str) -> str:
    """The whole event loop waits here, not only this step; and only in the process that says so."""
    if inside == sys.argv[0]:
        say("BLOCKED")
        sys.stdin.readline()
    return MARK + sys.argv[0]


@workflow
async def blocks(inside: str) -> str:
    return await stands_still(inside)


WORKFLOWS: list[Any] = [blocks]


async def main(store: str, lease_s: float) -> None:
    async with Engine(store, workflows=WORKFLOWS, lease_ttl=lease_s) as engine:
        run = await engine.start(blocks(sys.argv[0]), id="b")
        say("RESULT", await run.result())


if __name__ == "__main__":
    if len(sys.argv) > 3:
        threads.STALL_S_MIN, threads.STALL_LEASES = 0.0, int(sys.argv[3])
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))

"""A process that starts the ticks of a schedule, and says which runs it executes, until it is
killed. `ticker.py STORE`.
"""

from __future__ import annotations

import asyncio
import sys

from perdure import Engine, Every, Schedule, current_run, workflow


@workflow
async def beat() -> str:
    run_id = current_run().id
    if not current_run().replaying:
        sys.stdout.write(f"RAN {run_id}\n")
        sys.stdout.flush()
    return run_id


async def main(store: str) -> None:
    schedule = Schedule("beat", Every(1), beat(), overlap="allow", catch_up_max=100)
    async with Engine(store, schedules=[schedule], lease_ttl=1):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

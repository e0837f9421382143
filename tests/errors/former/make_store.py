"""Starts every workflow of failing_app.py on the store that is named.

Repeat it until it prints DONE: two of the steps kill the process.
"""

import asyncio
import sys

from failing_app import WORKFLOWS  # type: ignore[import-not-found]  # beside this file

from perdure import Engine

OVER = {"completed", "failed", "cancelled", "blocked", "waiting"}


async def main(store: str) -> None:
    async with Engine(store, workflows=WORKFLOWS, lease_ttl=1) as engine:
        for workflow in WORKFLOWS:
            await engine.start(workflow(), id=workflow.name)
        for _ in range(600):
            runs = await engine.runs(limit=100)
            if all(run.status in OVER for run in runs) and {
                r.status for r in runs if r.id == "caught"
            } == {"waiting"}:
                break
            await asyncio.sleep(0.1)
        for run in sorted(runs, key=lambda one: one.id):
            print(f"{run.id:20} {run.status}")


asyncio.run(main(sys.argv[1]))
print("DONE")

"""Perdure as it comes: `durability="disk"`, which is WAL with `synchronous=FULL`."""

from __future__ import annotations

import asyncio
import os

from answering import HOLDS, System, begun, gate, serve

import perdure
from perdure import Engine, Limits, receive, step, workflow


@step
async def noop(n: int) -> int:
    return n


@step
async def gated() -> None:
    await gate()


@workflow
async def sequence(steps: int) -> int:
    for n in range(steps):
        await noop(n)
    return steps


@workflow
async def holding() -> None:
    await noop(1)
    await gated()


@workflow
async def parked(steps: int) -> str:
    for n in range(steps):
        await noop(n)
    return await receive("go", str)


class Perdure(System):
    """One engine in this process, on `bench.db`."""

    async def open(self) -> None:
        self.path = self.folder / "bench.db"
        limits = Limits(runs_loaded_max=50_000, steps_max=50_000) if HOLDS in os.environ else None
        self.engine = await Engine(
            self.path, workflows=[sequence, holding, parked], limits=limits
        ).__aenter__()

    async def close(self) -> None:
        await self.engine.__aexit__(None, None, None)

    async def crowd(self, runs: int, steps: int) -> None:
        await asyncio.gather(*(self.engine.run(sequence(steps)) for _ in range(runs)))

    async def hold(self, runs: int) -> None:
        await asyncio.gather(*(self.engine.start(holding(), id=f"hold-{n}") for n in range(runs)))
        await begun(runs)

    async def released(self, runs: int) -> None:
        await self._until("workflow = 'holding' AND status = 'completed'", runs)

    async def park(self, runs: int, steps: int) -> None:
        for first in range(0, runs, 1000):
            await asyncio.gather(
                *(
                    self.engine.start(parked(steps), id=f"park-{n}")
                    for n in range(first, min(runs, first + 1000))
                )
            )
        await self._until("workflow = 'parked' AND status = 'waiting'", runs)

    async def wake(self, run: int) -> None:
        handle = await self.engine.get(f"park-{run}")
        await handle.send("now", channel="go")
        await handle.result()

    async def _until(self, what: str, runs: int) -> None:
        db = perdure.connect(self.path)
        while db.execute(f"SELECT count(*) FROM perdure_runs WHERE {what}").get < runs:
            await asyncio.sleep(0.02)
        db.close()


if __name__ == "__main__":
    serve(Perdure)

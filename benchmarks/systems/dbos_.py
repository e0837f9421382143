"""DBOS with its SQLite system database: as it comes, or (BENCH_DBOS_WAL) in a file that was set to
WAL before.

Plain functions where many runs need not wait at the same time, because they were the quicker way
here; coroutines for runs that wait, because each waiting plain function would hold a thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing

from answering import System, begun, gate, reached, serve
from dbos import DBOS, SetWorkflowID


@DBOS.step()
def noop(n: int) -> int:
    return n


@DBOS.workflow()
def sequence(steps: int) -> int:
    for n in range(steps):
        noop(n)
    return steps


@DBOS.step()
async def noop_async(n: int) -> int:
    return n


@DBOS.step()
async def gated() -> None:
    await gate()


@DBOS.workflow()
async def holding() -> None:
    await noop_async(1)
    await gated()


@DBOS.workflow()
async def parked(steps: int) -> str:
    for n in range(steps):
        await noop_async(n)
    reached()
    return str(await DBOS.recv_async("go", timeout_seconds=86_400))


class Dbos(System):
    """One DBOS in this process, on `bench.db`."""

    async def open(self) -> None:
        self.path = self.folder / "bench.db"
        if "BENCH_DBOS_WAL" in os.environ:
            with closing(sqlite3.connect(self.path)) as db:
                db.execute("PRAGMA journal_mode=wal")
        DBOS(
            config={
                "name": "bench",
                "system_database_url": f"sqlite:///{self.path}",
                "console_log_level": "ERROR",
            }
        )
        DBOS.launch()

    async def close(self) -> None:
        DBOS.destroy()

    async def crowd(self, runs: int, steps: int) -> None:
        await asyncio.to_thread(self._crowd, runs, steps)

    def _crowd(self, runs: int, steps: int) -> None:
        handles = [DBOS.start_workflow(sequence, steps) for _ in range(runs)]
        for handle in handles:
            handle.get_result()

    async def hold(self, runs: int) -> None:
        for n in range(runs):
            with SetWorkflowID(f"hold-{n}"):
                await DBOS.start_workflow_async(holding)
        await begun(runs)

    async def released(self, runs: int) -> None:
        await self._until(
            (
                "SELECT count(*) FROM workflow_status WHERE workflow_uuid LIKE 'hold-%' AND "
                "status = 'SUCCESS'"
            ),
            runs,
        )

    async def park(self, runs: int, steps: int) -> None:
        for n in range(runs):
            with SetWorkflowID(f"park-{n}"):
                await DBOS.start_workflow_async(parked, steps)
        await begun(runs)

    async def wake(self, run: int) -> None:
        await DBOS.send_async(f"park-{run}", "now", "go")
        await (await DBOS.retrieve_workflow_async(f"park-{run}")).get_result()

    async def _until(self, query: str, runs: int) -> None:
        with closing(
            sqlite3.connect(self.path, timeout=120)
        ) as db:  # behind a rollback journal a reader waits for writers
            while db.execute(query).fetchone()[0] < runs:
                await asyncio.sleep(0.1)


if __name__ == "__main__":
    serve(Dbos)

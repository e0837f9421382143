"""DBOS with a queue, on Postgres: every process is an executor of one application.

Workflows are plain functions, as in `dbos_.py`. A process that only enqueues listens to no queue.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

from answering import serve
from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from queueing import POLL_S, QUEUE, URL, Noted, QueueAnswers, QueueSystem, executes, limit


@DBOS.workflow()
def held(run: str, hold_ms: int) -> None:
    with Noted(run):
        time.sleep(hold_ms / 1000)


@DBOS.workflow()
def empty() -> None:
    Dbos.begun += 1


class Dbos(QueueSystem):
    """One DBOS in this process, on the database at `BENCH_QUEUE_URL`."""

    async def open(self) -> None:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": os.environ[URL],
                "executor_id": f"executor-{os.getpid()}",
                "application_version": "1",
                "console_log_level": "ERROR",
            }
        )
        if not executes():
            DBOS.listen_queues([])
        DBOS.launch()
        await DBOS.register_queue_async(
            QUEUE,
            global_concurrency=limit(),
            polling_interval_sec=float(os.environ.get(POLL_S, "1.0")),
        )

    async def close(self) -> None:
        DBOS.destroy()

    async def enqueue(self, run: str, priority: int, hold_ms: int) -> None:
        await asyncio.to_thread(self._enqueue, run, priority, hold_ms)

    def _enqueue(self, run: str, priority: int, hold_ms: int) -> None:
        with SetWorkflowID(run), SetEnqueueOptions(priority=priority):
            DBOS.enqueue_workflow(QUEUE, held, run, hold_ms)

    async def fill(self, runs: int) -> None:
        await asyncio.to_thread(self._fill, runs)

    def _fill(self, runs: int) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: DBOS.enqueue_workflow(QUEUE, empty), range(runs)))

    async def admit(self) -> None:
        """A process that listens to the queue admits from its launch on."""


if __name__ == "__main__":
    serve(Dbos, QueueAnswers)

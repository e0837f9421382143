"""Retry of a run by its owner or by a verb: plans it where the code is, and sees to the children
that earlier generations left.

Rules: kernels are entered from plain callbacks only; a child that failed or was cancelled is
retried under its own id, when the run that waits for it asks for it again; one that has not come to
its end is waited for first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from perdure.core.events import Command
from perdure.errors import PerdureError
from perdure.runtime.kernels import make_kernel
from perdure.store.rows import RunRow
from perdure.store.writes import AdoptChild, ForkRun

if TYPE_CHECKING:
    from perdure.runtime.run import ActiveRun
    from perdure.runtime.scheduler import Scheduler


def plan(scheduler: Scheduler, row: RunRow) -> ForkRun:
    """How a failed or cancelled run is retried. Call it from a plain callback."""
    from perdure.runtime import fork
    from perdure.runtime.end_cause import TracingKernel

    definition = scheduler.workflows.get(row.workflow)
    make = (
        None
        if definition is None
        else lambda: make_kernel(TracingKernel, row, definition, scheduler.codec)
    )
    return fork.retry(row, scheduler.store.history(row.run), scheduler.clock.now_ms(), make)


async def planned(scheduler: Scheduler, row: RunRow) -> ForkRun:
    """As `plan`, from a task."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ForkRun] = loop.create_future()

    def make() -> None:
        try:
            future.set_result(plan(scheduler, row))
        except Exception as error:
            future.set_exception(error)

    loop.call_soon(make, context=Context())
    return await future


def retry_child(
    active: ActiveRun, command: Command, row: RunRow, look_again: Callable[[], None]
) -> None:
    """Retry a child that failed or was cancelled for an earlier generation of this run."""
    scheduler: Any = active.host
    made = plan(scheduler, row)
    made.parent = active.run, command.seq

    def done(result: Any) -> None:
        if isinstance(result, PerdureError):  # it has been retried meanwhile
            look_again_if_open(active, command, look_again)
        else:
            active.adopted(command.seq)
            scheduler.woken([result.run])

    scheduler.writer.put(made, done, keep=True)


def await_child(
    active: ActiveRun, command: Command, run: int, look_again: Callable[[], None]
) -> None:
    """Look at a child again when it has come to its end: an earlier generation of this run had it
    cancelled.
    """
    scheduler: Any = active.host

    def adopted(found: Any) -> None:
        if found is True:
            active.adopted(command.seq)
            scheduler.when_news(run, lambda: look_again_if_open(active, command, look_again))
        else:
            look_again_if_open(active, command, look_again)

    scheduler.writer.put(AdoptChild(run, active.run), adopted, keep=True)


def look_again_if_open(active: ActiveRun, command: Command, look_again: Callable[[], None]) -> None:
    if not active.gone and command.seq in active.kernel.open:
        look_again()
    else:
        active.adopted(command.seq)

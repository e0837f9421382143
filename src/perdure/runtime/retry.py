"""Retry of a run by its owner or by a verb: plans it where the code is, and sees to the children
that earlier generations left.

Rules: kernels are entered from plain callbacks only; a child that failed or was cancelled is
retried under its own id, when the run that waits for it asks for it again; one that has not come to
its end is waited for first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.core.events import Command, Event
from perdure.errors import PerdureError
from perdure.runtime.kernels import make_kernel
from perdure.store.rows import RunRow
from perdure.store.writes import AdoptChild, ForkRun

if TYPE_CHECKING:
    from perdure.runtime.run import ActiveRun


def plan_retry(
    row: RunRow,
    history: list[Event],
    definition: Workflow[..., Any] | None,
    codec: JsonCodec,
    now_ms: int,
) -> ForkRun:
    """How a failed or cancelled run is retried. Call it from a plain callback."""
    from perdure.runtime import fork
    from perdure.runtime.end_cause import TracingKernel

    make = (
        None if definition is None else lambda: make_kernel(TracingKernel, row, definition, codec)
    )
    return fork.retry(row, history, now_ms, make)


def retry_child(
    active: ActiveRun, command: Command, row: RunRow, look_again: Callable[[], None]
) -> None:
    """Retry a child that failed or was cancelled for an earlier generation of this run."""
    host = active.host

    def planned(history: list[Event]) -> None:
        made = plan_retry(
            row, history, host.workflows.get(row.workflow), host.codec, active.clock.now_ms()
        )
        made.parent = active.run, command.seq
        host.writer.put(made, done, keep=True)

    def done(result: Any) -> None:
        if isinstance(result, PerdureError):  # it has been retried meanwhile
            look_again_if_open(active, command, look_again)
        else:
            active.adopted(command.seq)
            host.woken([result.run])

    host.reads.then(planned, host.store.history, row.run)


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

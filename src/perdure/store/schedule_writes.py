"""Write types and row types of schedules, as values.

Rules: a tick is its nominal instant in milliseconds UTC; what was planned from a row is written
only where `version` is still the row's, so that one tick is started once, whoever plans it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import PerdureError

# --- writes ---------------------------------------------------------------------------------------


class ScheduleDefinition(msgspec.Struct, gc=False):
    """What a schedule is, as text and numbers. `next_ms` is its first tick from now on."""

    name: str
    expression: str
    tz: str
    workflow: str
    args: bytes
    overlap: str
    catch_up_ms: int
    catch_up_max: int
    jitter_ms: int
    queue: str | None
    key: str | None
    weight: int
    timeout_ms: int | None
    durability: str | None
    paused: bool
    next_ms: int | None


class DeclareSchedules(msgspec.Struct, gc=False):
    """The code of a worker has these schedules. Gives the names whose stored definition it changed,
    or `QueueNotFound` or `WeightOverBurst` where a queue would take no run of one; then none is
    declared.

    A definition is stored where it differs from the one that was declared last, so that what an
    operator has changed stays until the code changes. With `again` the worker has declared them
    before, and none is changed or refused: newer code may have been there meanwhile.
    """

    worker: int
    definitions: list[ScheduleDefinition]
    at_ms: int
    again: bool = False


class SetSchedule(msgspec.Struct, gc=False):
    """A schedule of a caller: it stays until it is removed, whatever code declares.

    Gives True where that changed something, or an error as `DeclareSchedules` does. A paused one
    stays paused; with `paused` it is paused.
    """

    definition: ScheduleDefinition
    at_ms: int


class TickRun(msgspec.Struct, gc=False):
    """The run of a tick: its nominal instant, its id, and the seed of its random numbers."""

    ms: int
    id: str
    seed: int


class FireSchedule(msgspec.Struct, gc=False):
    """Ticks of a schedule are due: those that are held, then new ones, the oldest first. Gives
    `Fired`, or None where the row has another `version`, is paused or orphaned.

    `missed` others are counted. `next_ms` is the next tick, `fire_ms` when to look at it, `last_ms`
    the last one that this deals with. Where a run can't be started all stays due until `retry_ms`.
    """

    schedule: int
    version: int
    ticks: list[TickRun]
    missed: int
    next_ms: int | None
    fire_ms: int | None
    last_ms: int | None
    at_ms: int
    retry_ms: int


class StartTicks(msgspec.Struct, gc=False):
    """Start runs of a schedule now, whatever `overlap` says.

    Gives a list of `Started` or errors, or `ScheduleNotFound`. With `is_last` the last one becomes
    the schedule's last run.
    """

    name: str
    ticks: list[TickRun]
    at_ms: int
    is_last: bool = False


class ControlSchedule(msgspec.Struct, gc=False):
    """Pause a schedule, or resume it from the tick `next_ms` on. Gives True, or False where it is
    that already or `version` is another one; or `ScheduleNotFound`.
    """

    name: str
    verb: str
    version: int
    next_ms: int | None
    at_ms: int


class RemoveSchedule(msgspec.Struct, gc=False):
    """Remove a schedule; its runs stay. Gives None, or `ScheduleNotFound`."""

    name: str


# --- results of writes ----------------------------------------------------------------------------


class Fired(msgspec.Struct, gc=False):
    """What came of due ticks: ids of runs that were started, runs to wake because they are to be
    cancelled, and why the first one that could not be started was refused.
    """

    started: list[str]
    woken: list[int]
    refused: PerdureError | None = None


# --- results of reads -----------------------------------------------------------------------------


class DueSchedule(msgspec.Struct, gc=False):
    """What a plan of due ticks needs of a schedule."""

    schedule: int
    name: str
    expression: str
    tz: str
    version: int
    catch_up_ms: int
    catch_up_max: int
    jitter_ms: int
    next_ms: int | None
    last_ms: int | None
    held: list[int]


class ScheduleRow(msgspec.Struct, gc=False):
    """A schedule as it is stored.

    `held` ticks wait for the end of a run; `is_declared`: by the code of a worker that is there;
    `has_worker`: some worker is there that takes whatever is due.
    """

    schedule: int
    name: str
    expression: str
    tz: str
    workflow: str
    args: str
    overlap: str
    catch_up_ms: int
    catch_up_max: int
    jitter_ms: int
    queue: str | None
    paused: bool
    manual: bool
    version: int
    next_ms: int | None
    fire_ms: int | None
    last_ms: int | None
    last_run: str | None
    held: list[int]
    missed: int
    skipped: int
    error: str | None
    is_declared: bool
    has_worker: bool

    @property
    def status(self) -> Any:
        """Paused, orphaned, without a worker, or active."""
        if self.paused:
            return "paused"
        if not self.has_worker:
            return "no worker"
        return "active" if self.manual or self.is_declared else "orphaned"

"""Opening of an engine: replica, store, writer and scheduler, each with its way back.

Rules: what was opened is closed in the opposite order, also where opening fails half-way; a replica
is acquired before the store is touched, and its barrier is there before the first run is claimed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.process.clock import SystemClock
from perdure.runtime import validation
from perdure.runtime.control import Control
from perdure.runtime.durability import AnswerGate, DurabilityGate
from perdure.runtime.options import EngineOptions
from perdure.runtime.queries import Queries
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.requests import Requests
from perdure.runtime.results import Results
from perdure.runtime.retention import RetentionLoop
from perdure.runtime.scheduler import Scheduler, SchedulerConfig
from perdure.runtime.step_logs import RECORDS, StepLogs
from perdure.runtime.writer import Writer
from perdure.store.sqlite.driver import SqliteStore

if TYPE_CHECKING:
    from perdure.replica.replicate import Replication
    from perdure.runtime.schedules import Schedules


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """What an open engine consists of. `gate` holds back what it answers; None: nothing does."""

    store: SqliteStore
    writer: Writer
    scheduler: Scheduler
    gate: AnswerGate | None
    replica: Replication | None
    control: Control
    queries: Queries
    results: Results
    requests: Requests
    schedules: Schedules | None


async def open_engine(
    options: EngineOptions,
    open_store: Callable[[], SqliteStore],
    codec: JsonCodec,
    clock: SystemClock,
    workflows: dict[str, Workflow[..., Any]],
    stack: contextlib.AsyncExitStack,
) -> OpenEngine:
    """Open an engine. `stack` gets the way back from each part as soon as it is open."""
    acquired = None if options.replica is None else await _acquire(options, stack)
    store = open_store()
    stack.callback(store.close)
    codec.hides = store.redaction.hides
    reads = ReadExecutor(store)
    stack.callback(reads.close)
    await reads.get(validation.check_replica, store, acquired, options.execute)
    writer = Writer(store, options.limits.batch_writes_max, options.observer)
    replica = None if acquired is None else await _replicate(options, acquired, store, writer)
    gate = None
    if replica is not None:
        stack.push_async_callback(replica.end)
        gate = DurabilityGate(replica.barrier, options.durability)
    stack.callback(writer.close)
    for queue in options.queues:
        from perdure.runtime.queue_limits import declaration

        await writer.ask(declaration(queue, clock.now_ms()))
    scheduler = Scheduler(store, reads, writer, workflows, _config(options, codec, clock, gate))
    if options.execute and options.step_logs is not None:
        scheduler.steps.logs = StepLogs(options.step_logs, options.limits, clock, writer)
        RECORDS.watch()
        stack.callback(RECORDS.unwatch)
    await scheduler.open()
    if replica is not None:
        replica.on_lost(scheduler.give_up)
    stack.push_async_callback(scheduler.close, options.close_grace_s)
    if options.retention is not None:
        retention = RetentionLoop(store, reads, writer, clock, options.retention)
        retention.start()
        stack.push_async_callback(retention.stop)
    schedules = await _scheduling(options, scheduler, stack)
    answers: AnswerGate | None = gate
    if not options.execute:
        answers = validation.client_gate(store, options.durability)
    control = Control(scheduler, codec, options.limits, answers, options.answer_s)
    return OpenEngine(
        store,
        writer,
        scheduler,
        answers,
        replica,
        control,
        Queries(store),
        Results(store, scheduler, answers, workflows),
        Requests(scheduler, control, codec),
        schedules,
    )


async def _acquire(options: EngineOptions, stack: contextlib.AsyncExitStack) -> Any:
    """The replica, under its lease."""
    from perdure.replica.acquire import acquire

    assert options.replica is not None
    acquired = await acquire(
        options.path,
        options.replica,
        lease_ms=options.lease_ms,
        on_change=lambda change: _lease_changed(options, change),
    )
    stack.push_async_callback(acquired.release)
    return acquired


async def _scheduling(
    options: EngineOptions, scheduler: Scheduler, stack: contextlib.AsyncExitStack
) -> Schedules | None:
    """The schedules of an engine that takes whatever is due; None of others."""
    if options.execute is not True:
        return None
    from perdure.runtime.schedules import Schedules

    schedules = Schedules(scheduler, options.schedules, options.limits)
    stack.push_async_callback(schedules.stop)
    await schedules.start()
    return schedules


async def _replicate(
    options: EngineOptions, acquired: Any, store: SqliteStore, writer: Writer
) -> Replication:
    from perdure.replica.replicate import replicate

    most = options.limits.replica_bytes_max
    replica = await replicate(acquired, store, options.durability, writer.ask, bytes_max=most)
    if options.observer is not None:
        replica.barrier.on_confirmed = options.observer.confirmed
    return replica


def _lease_changed(options: EngineOptions, change: str) -> None:
    if options.observer is not None:
        options.observer.lease_changed("replica", change)


def _config(
    options: EngineOptions, codec: JsonCodec, clock: SystemClock, gate: DurabilityGate | None
) -> SchedulerConfig:
    return SchedulerConfig(
        codec=codec,
        clock=clock,
        limits=options.limits,
        lease_ms=options.lease_ms,
        name=options.name,
        execute=options.execute,
        gate=gate,
        moves=options.replica is not None,
        observer=options.observer,
    )

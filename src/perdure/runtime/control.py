"""Control of runs: what callers write about them, from start to fork.

Rules: a verb returns after its commit; what it says about a run, a refusal included, is said when
the commit is as durable as that run asks for; arguments are checked before anything is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

import msgspec

from perdure.api.definitions import Call, Workflow, starting_call
from perdure.api.options import Durability, changed, to_ms
from perdure.api.queues import checked_key, checked_name, checked_weight
from perdure.codec.json_codec import JsonCodec
from perdure.codec.secrets import places_of_masks, refuse_masks, restored
from perdure.codec.signature import signature_of
from perdure.core import lifecycle, names
from perdure.core.events import COMPLETED, STEP, Event
from perdure.core.limits import Limits
from perdure.errors import (
    DefinitionError,
    Nondeterminism,
    PerdureError,
    RunExists,
    StepNotWaiting,
    StoreError,
)
from perdure.runtime import recovery, validation
from perdure.runtime.durability import AnswerGate, stricter
from perdure.runtime.kernels import check_arguments, check_result, in_callback, kernel_of
from perdure.runtime.naming import new_seed
from perdure.runtime.outbox import start_in_queue
from perdure.runtime.registry import know_workflow
from perdure.runtime.retry import plan_retry
from perdure.runtime.scheduler import Scheduler
from perdure.runtime.start_options import put_off
from perdure.store.answer_writes import AnswerByLink
from perdure.store.rows import QueueRow, RunRow, Started
from perdure.store.writes import ControlRun, Deliver, ForkRun, SetQueue, StartAnd, StartRun, Write


class Resolution(msgspec.Struct):
    """What a caller decides about a step whose outcome is unknown."""

    data: bytes
    result: bytes | None
    retry: bool


def resolution(codec: JsonCodec, result: Any, error: str | None, *, retry: bool) -> Resolution:
    """The decision to retry a step, to fail it with an error, or to give it a result."""
    if retry or error is not None:
        answer: dict[str, Any] = {"retry": True} if retry else {"error": error}
        return Resolution(codec.encode(answer, "the resolution"), None, retry)
    data = codec.encode({"result": result}, "the resolution")
    return Resolution(data, codec.encode(result, "the result"), retry)


class Control:
    """The control of the runs of one open engine. `answer_s` is how long a verb waits for the
    replica.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        codec: JsonCodec,
        limits: Limits,
        gate: AnswerGate | None,
        answer_s: float,
    ) -> None:
        self._scheduler, self._codec, self._limits = scheduler, codec, limits
        self._workflows = scheduler.workflows
        self._gate, self._answer_s = gate, answer_s
        self._store, self._reads, self._clock = scheduler.store, scheduler.reads, scheduler.clock

    # --- answers ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def answering(self, run_id: str) -> AsyncIterator[None]:
        """Leave the block when what it says about a run is as durable as that run asks for."""
        validation.findable(run_id)
        try:
            yield
        except StoreError:
            raise
        except PerdureError:
            await self.confirmed(run_id)
            raise
        await self.confirmed(run_id)

    async def confirmed(self, run_id: str, asked: str | None = None) -> None:
        """Return when what is committed may be reported about a run. `asked` is the durability
        that the caller asks for.
        """
        if self._gate is not None:
            own = await self._reads.get(self._store.durability, run_id)
            await self._gate.answer(stricter(asked, own), self._answer_s)

    async def store_confirmed(self) -> None:
        """Return when what is committed may be reported about the store: at the engine's level."""
        if self._gate is not None:
            await self._gate.answer(None, self._answer_s)

    # --- starting ---------------------------------------------------------------------------------

    def new_run(
        self,
        call: Call[Any],
        *,
        id: str | None = None,
        queue: str | None = None,
        key: str | None = None,
        priority: int = 0,
        weight: int | None = None,
        at: datetime | None = None,
        debounce: float | timedelta | None = None,
        debounce_max: float | timedelta | None = None,
        tags: dict[str, Any] | None = None,
        timeout: float | timedelta | None = None,
        durability: Durability | None = None,
        known: bool = True,
    ) -> StartRun:
        """The start of a run, checked, and its workflow made known here; not `known`: the call only
        stands for that of a workflow whose code is elsewhere.
        """
        definition, options = cast("Workflow[..., Any]", call.definition), call.options
        validation.check_level(durability, self._gate)
        if not known:
            call.used()
        elif self._scheduler.execute:
            self._scheduler.register(definition)
        else:  # so that its result comes back as what it returns
            know_workflow(self._scheduler.workflows, definition)
        most = self._limits.payload_bytes_max
        args = signature_of(definition).encode_args(call.args, call.kwargs, limit_bytes=most)
        if self._gate is not None:
            self._gate.check_room()
        given, now_ms = options.id if id is None else id, self._clock.now_ms()
        level: Any = {} if durability is None else {"durability": durability}
        start = StartRun(
            names.checked_id(new_id(definition.name) if given is None else given),
            definition.name,
            args,
            0,
            now_ms,
            now_ms if at is None else validation.at_ms(at),
            tags=tags,
            queue=options.queue if queue is None else checked_name(queue),
            priority=validation.checked_priority(priority),
            timeout_ms=options.timeout_ms if timeout is None else to_ms(timeout, "timeout"),
            durability=changed(options, level, "start()").durability,
        )
        if tags is not None:
            self._codec.encode_tags(names.checked_tags(tags))
        in_queue = start_in_queue(call)
        start.key = in_queue[0] if key is None else checked_key(key)
        start.weight = in_queue[1] if weight is None else checked_weight(weight)
        if weight is not None and start.queue is None:
            raise DefinitionError(f"weight={weight!r} is of a run in a queue: give queue, too.")
        if debounce is not None or debounce_max is not None:
            put_off(start, debounce, debounce_max, has_id=given is not None, at=at)
        return start

    async def set_queue(self, write: SetQueue) -> QueueRow:
        """Make a queue, or change its limits."""
        row: QueueRow = await self._scheduler.writer.ask(write)
        await self._scheduler.queue_set()
        await self.store_confirmed()
        return row

    def run_for(self, call: Call[Any], run_id: str) -> StartRun:
        """The start of the run that a message or a request is for, where there is none yet."""
        start = self.new_run(starting_call(call, run_id), id=run_id)
        start.seed = new_seed()
        return start

    async def start(self, start: StartRun, definition: Workflow[..., Any]) -> Started:
        """Write a run, or find the one with its id. Executes it from now on."""
        try:
            started = await self._scheduler.start(start, definition, start.at_ms)
        except RunExists:
            await self.confirmed(start.id, start.durability)
            raise
        await self._scheduler.claims.ask_for(started.run)
        return started

    # --- verbs ------------------------------------------------------------------------------------

    async def send(
        self,
        run_id: str,
        channel: str,
        key: str | None,
        data: bytes,
        start: Call[Any] | None = None,
        sender: str | None = None,
    ) -> None:
        """Put a message into a run's inbox, which `start` begins where there is none."""
        begin = None if start is None else self.run_for(start, run_id)
        async with self.answering(run_id):
            now_ms = self._clock.now_ms()
            message = Deliver(run_id, "message", now_ms, channel, None, key, data, sender=sender)
            await self._deliver(message if begin is None else StartAnd(begin, message))
        if begin is not None:
            run = await self._reads.get(self._store.run_key, run_id)
            await self._scheduler.claims.ask_for(run)

    async def deliver(self, run_id: str, message: Deliver | AnswerByLink) -> None:
        """Put something into the inbox of a run, which executes it."""
        async with self.answering(run_id):
            await self._deliver(message)

    async def cancel(self, run_id: str) -> None:
        """Put a cancel into a run's inbox."""
        async with self.answering(run_id):
            await self._deliver(Deliver(run_id, "cancel", self._clock.now_ms(), verb="cancel"))

    async def control(self, run_id: str, verb: str) -> None:
        """Pause a run, or resume it."""
        async with self.answering(run_id):
            await self._control(run_id, verb)

    async def retry(
        self, run_id: str, seq: int | None = None, sender: str | None = None
    ) -> list[int]:
        """Retry a run that is blocked, or that failed or was cancelled; of another one begin the
        next attempt of the steps that wait for it, or of the one in row `seq`. Returns their rows.
        """
        async with self.answering(run_id):
            row = await self._row(run_id)
            if row.status in lifecycle.OWNABLE:
                waits = await self._waits(row, await self._history(row), seq)
                if waits:
                    return await self._retry_waits(row, waits, sender)
            if seq is not None:
                verb = "show" if row.status == lifecycle.COMPLETED else "retry"
                raise StepNotWaiting(run_id, seq, f"the run is {row.status}", f"perdure {verb}")
            if row.status not in (lifecycle.FAILED, lifecycle.CANCELLED):
                await self._control(run_id, "retry")
            elif "~" in run_id:
                raise DefinitionError(
                    f"{run_id!r} is an earlier generation of a run that goes on as "
                    f"{run_id.partition('~')[0]!r}: retry that, or fork this."
                )
            else:
                await self._fork(await self._planned_retry(row))
            return []

    async def _retry_waits(
        self, row: RunRow, waits: dict[int, int], sender: str | None
    ) -> list[int]:
        """Begin the next attempts of these steps. Those with another decision are left out, unless
        there are no others.
        """
        again, undecided = Resolution(b'{"retry":true}', None, True), []
        decided = (self._end_wait(row, *wait, again, sender) for wait in waits.items())
        done = await asyncio.gather(*decided, return_exceptions=True)
        for seq, error in zip(waits, done, strict=True):
            if error is None:
                undecided.append(seq)
            elif not isinstance(error, StepNotWaiting):
                raise error
        if not undecided and isinstance(done[0], BaseException):
            raise done[0]
        return undecided

    async def _waits(self, row: RunRow, rows: list[Event], seq: int | None) -> dict[int, int]:
        """The rows of the steps that wait for their next attempt, or the one that is asked for, and
        until when. Raises `StepNotWaiting`.
        """
        waits = recovery.waits_of_steps(rows, self._clock.now_ms())
        if seq is None or seq in waits:
            return waits if seq is None else {seq: waits[seq]}
        if seq not in recovery.open_steps(rows):
            is_step = any((one.seq, one.kind) == (seq, STEP) for one in rows)
            why = "it has ended" if is_step else "that row is no step"
        else:
            queue = await self._reads.get(self._store.line_of, row.run, seq)
            why = "an attempt has begun, or begins now"
            if queue is not None:
                why = f"it waits in queue {queue!r}, which decides when the attempt begins"
        raise StepNotWaiting(row.id, seq, why, "perdure show")

    async def _end_wait(
        self, row: RunRow, seq: int, again_ms: int, given: Resolution, sender: str | None
    ) -> None:
        """Deliver a decision on a step that waits until `again_ms`, which is void when it does not
        any more.
        """
        await self._decide(row.id, seq, b'{"wait":%d,' % again_ms, given, sender, "retry")

    async def _decide(
        self, run_id: str, seq: int, about: bytes, given: Resolution, sender: str | None, verb: str
    ) -> None:
        """Deliver a decision, which names what it is `about`: the start of a JSON object."""
        now_ms, data = self._clock.now_ms(), about + given.data[1:]
        await self._deliver(
            Deliver(run_id, "resolve", now_ms, ref=seq, data=data, verb=verb, sender=sender)
        )

    async def _planned_retry(self, row: RunRow) -> ForkRun:
        rows = await self._history(row)
        definition, now_ms = self._workflows.get(row.workflow), self._clock.now_ms()
        return await in_callback(lambda: plan_retry(row, rows, definition, self._codec, now_ms))

    async def resolve(
        self, run_id: str, seq: int | None, given: Resolution, sender: str | None = None
    ) -> None:
        """Decide about the step in row `seq`, or about the only one that asks."""
        async with self.answering(run_id):
            row = await self._row(run_id)
            asks = row.status == lifecycle.BLOCKED and row.blocked_by == "unknown_outcome"
            if row.status == lifecycle.BLOCKED and given.retry and not asks:
                await self._control(run_id, "retry")
                return
            if not asks:
                await self._resolve_wait(row, seq, given, sender)
                return
            rows = await self._history(row)
            ref = recovery.asked_step(rows, seq, run_id)
            if given.result is not None:
                await self._check_result(row, rows, ref, given.result)
            about = b'{"question":%d,' % recovery.question_of(rows, ref)
            await self._decide(run_id, ref, about, given, sender, "resolve")

    async def _resolve_wait(
        self, row: RunRow, seq: int | None, given: Resolution, sender: str | None
    ) -> None:
        """Decide about a step that waits for its next attempt."""
        rows: list[Event] = []
        waits: dict[int, int] = {}
        if row.status in lifecycle.OWNABLE:
            rows = await self._history(row)
            waits = await self._waits(row, rows, seq)
        if len(waits) != 1:
            which = f"; steps in rows {', '.join(map(str, waits))} wait: give one as --seq"
            raise DefinitionError(
                f"Run {row.id!r} does not ask what became of a step: it is {row.status}"
                f"{which if waits else ''}. `perdure show {row.id}` shows more."
            )
        ((ref, again_ms),) = waits.items()
        if given.result is not None:
            await self._check_result(row, rows, ref, given.result)
        await self._end_wait(row, ref, again_ms, given, sender)

    async def fork(
        self, run_id: str, at: int, new_id: str, result: bytes | None, args: bytes | None
    ) -> None:
        """Start a new run with the history before row `at`."""
        async with self.answering(run_id):
            from perdure.runtime import fork

            row = await self._row(run_id)
            rows, now_ms = await self._history(row), self._clock.now_ms()
            args = self._restored(args, _recorded(row, rows, at, at_row=True))
            result = self._restored(result, _recorded(row, rows, at, at_row=False))
            with contextlib.suppress(Nondeterminism, KeyError):  # code that was changed since
                await self._check_edit(row, rows, at, result, args)
            await self._fork(fork.fork(row, rows, at, new_id, now_ms, result, args))

    def _restored(self, edited: bytes | None, true: bytes) -> bytes | None:
        """What a person has edited, with the secrets again that were masked there."""
        if edited is None or not places_of_masks(edited):
            return edited
        each = (edited, self._codec.shown(true), true)
        whole = msgspec.json.encode(restored(*map(msgspec.json.decode, each)))
        refuse_masks(whole, "what was edited")
        return whole

    async def _check_edit(
        self, row: RunRow, rows: list[Event], at: int, result: bytes | None, args: bytes | None
    ) -> None:
        """Check what a fork edits where the code of the run is known."""
        definition = self._workflows.get(row.workflow)
        if definition is None or (result is None and args is None):
            return
        if args is not None and at == 1:
            signature_of(definition).decode_args(args)
            return
        until = next((one.seq for one in rows if one.ref == at), None)
        kept = [one for one in rows if until is None or one.seq < until]
        kernel = kernel_of(row, definition, self._codec)
        if result is not None:
            await check_result(kernel, kept, at, result)
        elif args is not None:
            await check_arguments(kernel, kept, at, args)

    async def _check_result(self, row: RunRow, rows: list[Event], seq: int, data: bytes) -> None:
        """Check a given result where the code of the run is known."""
        if (definition := self._workflows.get(row.workflow)) is not None:
            await check_result(kernel_of(row, definition, self._codec), rows, seq, data)

    # --- reads and writes -------------------------------------------------------------------------

    async def _row(self, run_id: str) -> RunRow:
        run = await self._reads.get(self._store.run_key, run_id)
        return await self._reads.get(partial(self._store.run_row, run, true=True))

    async def _history(self, row: RunRow) -> list[Event]:
        return await self._reads.get(self._store.history, row.run)

    async def _deliver(self, message: Deliver | StartAnd | AnswerByLink) -> None:
        await self._ask(message, lambda woken: self._scheduler.woken([woken.run, *woken.others]))

    async def _control(self, run_id: str, verb: str) -> None:
        control = ControlRun(run_id, verb, self._clock.now_ms())
        await self._ask(control, lambda woken: self._scheduler.controlled(woken.run))

    async def _fork(self, fork: ForkRun) -> None:
        await self._ask(fork, lambda started: self._scheduler.woken([started.run]))

    async def _ask(self, write: Write, then: Callable[[Any], None]) -> None:
        await self._scheduler.writer.ask(write, then)


def new_id(workflow: str) -> str:
    """An id that sorts by time within its workflow: new entries then land side by side in the
    index.
    """
    return f"{workflow}-{time.time_ns() // 1_000_000:011x}{os.urandom(4).hex()}"


def _recorded(row: RunRow, rows: list[Event], at: int, *, at_row: bool) -> bytes:
    """What is recorded of a row: its arguments, those of the run at row 1, or its result."""
    if at_row:
        found = next((one.data for one in rows if one.seq == at), None)
    else:
        found = next((one.data for one in rows if one.ref == at and one.kind == COMPLETED), None)
    if found is None:
        return row.args if at_row and at == 1 else b"null"
    return found if isinstance(found, bytes) else found.read()

"""Executes runs: claims what is due, loads it, parks it, and notices what other processes write.

Rules: kernels are entered from plain callbacks with an empty context only (Python 3.14 refuses to
enter one task from another, and a caller's context variables are no run's); what is parked leaves
memory when there is too much of it; a caller that waits for a run is answered after the commit,
never before.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextvars import Context
from typing import Any, Literal

from perdure.api.definitions import Workflow
from perdure.codec.signature import JsonCodec
from perdure.core import events as ev
from perdure.core.lifecycle import FINAL
from perdure.core.limits import Limits
from perdure.core.replay import Kernel
from perdure.errors import (
    PerdureError,
    RunExists,
    StoreCorrupt,
    StoreError,
    StoreReplaced,
    StoreTooNew,
)
from perdure.process.clock import SystemClock
from perdure.process.interpreter import PYTHON
from perdure.process.periodic import Loop, to_its_end
from perdure.process.slices import Slices
from perdure.runtime.claiming import IDLE_S_WHEN_LOST, Claims
from perdure.runtime.durability import DurabilityGate
from perdure.runtime.existing_run import found_again
from perdure.runtime.first_turn import FirstTurn
from perdure.runtime.kernels import kernel_of
from perdure.runtime.log import run_failed
from perdure.runtime.membership import Membership
from perdure.runtime.recovery import recover
from perdure.runtime.registry import add_workflow
from perdure.runtime.run import ActiveRun
from perdure.runtime.steps import Steps
from perdure.runtime.waiters import Waiters
from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.rows import RunRow, Started
from perdure.store.writes import ClockMovedBack, Finish, StartRun, Suspend, Turn, WakeBlocked

log = logging.getLogger("perdure")

WATCH_S, WATCH_S_AFTER_ERROR = 0.02, 1.0
SUSPECT_WAIT_MS = 500
STATUSES_AT_ONCE, RELEASES_AT_ONCE = 500, 100
CLOCK_JUMP_MS = 1_000


class Scheduler:
    """See the module's text. With `execute` False it only watches, for callers that wait; with
    "asked" it claims only what its engine is asked for; with `moves` the store goes from machine to
    machine under a lease that we hold, so that no process of another one executes it.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        codec: JsonCodec,
        clock: SystemClock,
        limits: Limits,
        *,
        workflows: dict[str, Workflow[..., Any]],
        execute: bool | Literal["asked"],
        lease_ms: int,
        name: str,
        gate: DurabilityGate | None = None,
        moves: bool = False,
    ) -> None:
        self.store, self.writer, self.codec, self.clock, self.limits = (
            store,
            writer,
            codec,
            clock,
            limits,
        )
        self.steps = Steps(codec, clock, limits, writer.touch)
        self.history_rows_max, self.gate = limits.history_rows_max, gate
        self.workflows, self.execute, self._moves = workflows, bool(execute), moves
        self.active: dict[int, ActiveRun] = {}
        self.unwritten: set[ActiveRun] = set()
        self.waiters = Waiters()
        self._loop = asyncio.get_running_loop()
        self._slices, self._news = Slices(self._loop), Slices(self._loop)
        self._watching: asyncio.TimerHandle | None = None
        self.claims, asked = Claims(self, execute == "asked"), execute == "asked"
        self._membership = Membership(
            store,
            writer,
            clock,
            lease_ms,
            limits.crashes_max,
            name,
            self._lost,
            self._others_left,
            workflows,
            asked=asked,
        )
        self._heart = Loop("lease", self._beat)
        self._offset_ms = self._clock_offset_ms()
        self.closing = False
        self.lost: asyncio.Future[StoreError] = self._loop.create_future()
        self.hurried: asyncio.Future[None] = (
            self._loop.create_future()
        )  # done when closing must not wait for attempts any more

    @property
    def owner(self) -> int:
        """Our number as a worker: what our runs belong to."""
        return self._membership.worker

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.workflows)

    # --- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Join, take over from the dead, give blocked runs another try, begin."""
        if self.execute:
            try:
                await self._membership.join()
                await self._membership.reap_dead_workers(elsewhere=self._moves)
                self._try_blocked(self.names)
                await self.writer.ask(ClockMovedBack(self.clock.now_ms()))
            except BaseException:
                await to_its_end(self._membership.stopped(), lambda: None)
                raise
            self.claims.start()
        self._heart.start()
        self._watching = self._loop.call_later(WATCH_S, self._watch, context=Context())

    async def close(self, grace_s: float) -> None:
        """Let attempts end within the grace, let go of every run, leave."""
        self.closing = True
        if self._watching is not None:
            self._watching.cancel()
        await self.claims.stop()
        for active in self.active.values():
            active.stopping = True
        self.steps.begin_no_more()
        under_way = [
            running.task
            for active in self.active.values()
            for running in active.inflight.values()
            if running.task
        ]
        if under_way and grace_s > 0:
            ended = asyncio.ensure_future(asyncio.wait(under_way, timeout=grace_s))
            both: tuple[asyncio.Future[Any], ...] = (ended, self.hurried)
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            # their outcomes are fed by callbacks of this turn, or, if they are many, of the next
            # ones
            await asyncio.sleep(0)
            # each turn reports more of them
            while self.steps.unreported and self.writer.last_error is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
        for number, active in enumerate(list(self.active.values())):
            active.release()
            if number % RELEASES_AT_ONCE == RELEASES_AT_ONCE - 1:
                await asyncio.sleep(0)
        await self.writer.drain()
        await self._heart.stop()
        await self._membership.stopped()
        if self.execute and self.writer.last_error is None:
            try:
                await self._membership.leave()
            except StoreError as error:  # closing has to let go of everything else all the same
                log.warning(
                    (
                        "the store could not be told that this engine closes; its lease will "
                        "run out: %s"
                    ),
                    error,
                )
        for active in self.unwritten:
            active.drop()  # the store took nothing to the end
        self.steps.close()
        for run in self.waiters.waited():
            self._notify(run)
        self.emitted()

    def hurry(self) -> None:
        """Whoever closes is cancelled: wait for no attempts any more."""
        if not self.hurried.done():
            self.hurried.set_result(None)

    def _others_left(self) -> None:
        self._try_blocked(self.names)
        self.claims.wake()

    def _lost(self) -> None:
        for active in list(self.active.values()):
            active.drop()
        self.active.clear()
        self.claims.clear()

    def register(self, definition: Workflow[..., Any]) -> None:
        """Make a workflow known here; runs of it that other code has blocked get another try.
        Raises `DefinitionError`.
        """
        if fresh := add_workflow(self.workflows, definition):
            self._try_blocked(fresh)

    def _try_blocked(self, names: tuple[str, ...]) -> None:
        """Code may have changed here, or a process with other code has left: runs that are blocked
        by their code may go on.
        """
        families = (None,) if self.claims.families is None else tuple(self.claims.families.values())
        for family in () if self.closing else families:
            self.writer.put(
                WakeBlocked(names, self.clock.now_ms(), family),
                lambda _: self.claims.wake(),
                keep=True,
            )

    async def _beat(self) -> float:
        self._see_to_the_clock()
        try:
            self.store.check_identity()
        except (StoreCorrupt, StoreReplaced, StoreTooNew) as error:
            self.give_up(error)
        return (
            IDLE_S_WHEN_LOST
            if self.lost.done()
            else await self._membership.beat()
            if self.execute
            else self._membership.beat_s
        )

    def give_up(self, error: StoreError) -> None:
        """The store is lost for good: execute and write nothing more, and tell
        everybody who waits.
        """
        if not self.lost.done():
            log.critical("%s", error)
            self.lost.set_result(error)
            self._membership.stop()
            self._lost()
            self.writer.shut(error)
            self.waiters.fail(error)

    def check_lost(self) -> None:
        """Raise what the store was lost for, if it was."""
        if self.lost.done():
            raise self.lost.result()

    def _clock_offset_ms(self) -> float:
        return self.clock.now_ms() - self._loop.time() * 1000

    def _see_to_the_clock(self) -> None:
        """The event loop counts seconds from its start; when the date is set, or the machine has
        slept, they no longer fit.
        """
        jump_ms, self._offset_ms = (
            self._clock_offset_ms() - self._offset_ms,
            self._clock_offset_ms(),
        )
        if abs(jump_ms) >= CLOCK_JUMP_MS:
            log.warning("the clock jumped by %+.1f s; timers are set anew by it", jump_ms / 1000)
            for active in list(self.active.values()):
                active.set_timer()
            if jump_ms < 0:
                self.writer.put(
                    ClockMovedBack(self.clock.now_ms()), lambda _: self.claims.wake(), keep=True
                )
            self.claims.wake()

    # --- claiming and loading ---------------------------------------------------------------------

    def executes(self, run: int) -> bool:
        """Whether a run is in memory here, so that its end will be told."""
        active = self.active.get(run)
        return active is not None and not active.gone

    async def start(self, start: StartRun, definition: Workflow[..., Any], now_ms: int) -> Started:
        """Write a new run; if it is ours to execute, its first turn is written with it and its
        steps begin after that commit.
        """
        start = self.new_run(start, now_ms)
        future: asyncio.Future[Any] = self._loop.create_future()

        def told(result: Any) -> None:
            if not future.done():  # else the caller has given up waiting
                future.set_result(result)
            if isinstance(result, Started) and result.created and not result.owned:
                self.claims.wake()

        if start.owner is None or self.store.has_run(start.id):
            self.writer.put(start, told, keep=False)
        else:
            self.claims.kept()
            self.writer.touch(FirstTurn(self, start, told))
        result: Started | PerdureError = await future
        if isinstance(result, RunExists):
            result = found_again(self.store, definition, start.args, result)
        if isinstance(result, PerdureError):
            raise result
        return result

    def load_soon(self, run: int) -> None:
        """Load a run that is ours in a callback of its own."""
        self._call(self._load, run)

    def _call(self, act: Callable[[Any], None], run: int) -> None:
        self._slices.add(self._safely, act, run)

    def _safely(self, act: Callable[[Any], None], run: Any) -> None:
        """Do something with a run that needs the store; if that can't be read, do it later."""
        try:
            act(run)
        except StoreError as error:
            if self.store.damaged is None and not self.closing:
                log.warning("can't read the store, trying again: %s", error)
                self._loop.call_later(WATCH_S_AFTER_ERROR, self._safely, act, run)

    def _load(self, run: int) -> None:
        if self.closing or self.lost.done() or run in self.active:
            # also while its last turn is being written: the file does not know yet what has
            # happened
            return
        row = self.store.run_row(run)
        if row.owner != self.owner or row.status in FINAL:
            return
        if len(self.active) + len(self.unwritten) >= self.limits.runs_loaded_max:
            self._put_off(run, 0)  # it waits in the file
        elif row.crashes >= self.limits.crashes_max - 1 and self._another_suspect():
            self._put_off(run, SUSPECT_WAIT_MS)
        else:
            self._begin(row)

    def _another_suspect(self) -> bool:
        """Whether a run that may kill the process is being tried: one at a time, so that the
        innocent are told apart.
        """
        last = self.limits.crashes_max - 1
        return any(
            active.crashes >= last and active.status == "running" and not active.gone
            for active in self.active.values()
        )

    def _put_off(self, run: int, wait_ms: int) -> None:
        now_ms = self.clock.now_ms()
        park = Suspend("pending", due_ms=now_ms + wait_ms, release=True)
        self.writer.put(
            Turn(run, self.owner, [], now_ms, suspend=park), lambda _: self.claims.wake(), keep=True
        )

    def _begin(self, row: RunRow) -> None:
        active = self.new_active(row)
        self.active[row.run] = active
        try:
            if row.history_rows > self.history_rows_max:
                active.block_by_length(row.history_rows)
                return
            history = self.store.history(row.run) if row.history_rows else []
            if history:
                recover(active, history, active.kernel.replay(history))
            else:
                active.input(ev.START)
                active.take_inbox()
        except StoreError:  # not the run's fault: nothing is to be written about it
            active.drop()
            del self.active[row.run]
            raise
        except Exception as error:
            active.block_by(error)

    def new_active(self, row: RunRow) -> ActiveRun:
        """The run in memory, at its very beginning."""
        return ActiveRun(self, row, self._kernel(row))

    def _kernel(self, row: RunRow) -> Kernel:
        return kernel_of(row, self.workflows[row.workflow], self.codec)

    async def check_result(self, row: RunRow, seq: int, data: bytes) -> None:
        """Raise what is wrong with a result that a person gives for a step, where its code is
        known.
        """
        future: asyncio.Future[None] = self._loop.create_future()

        def check() -> None:
            kernel = self._kernel(row)
            try:
                kernel.replay(self.store.history(row.run))
                kernel.codec.decode_result(kernel.open[seq].call, data)
                future.set_result(None)
            except Exception as error:
                future.set_exception(error)
            kernel.discard()

        if row.workflow in self.workflows:
            self._loop.call_soon(check, context=Context())
            await future

    def new_run(self, start: StartRun, at_ms: int) -> StartRun:
        """Complete a start: a seed, and ourselves as the owner where we can execute it at once."""
        here = self.execute and not self.closing and start.workflow in self.workflows
        now = here and (start.due_ms or 0) <= at_ms and self.claims.room() > 0
        start.seed = int.from_bytes(os.urandom(8)) >> 2
        if now:
            start.owner, start.due_ms, start.python = self.owner, None, PYTHON
            self.claims.promise()
        return start

    # --- what active runs report ------------------------------------------------------------------

    def woken(self, runs: list[int]) -> None:
        """These runs have news; they are looked at in callbacks of their own."""
        for run in runs:
            self._call(self._look_at, run)

    def _look_at(self, run: int) -> None:
        if self.closing or self.lost.done():
            return
        self._notify(run)
        active = self.active.get(run)
        if active is not None and not active.gone:
            if active.paused:
                self._steered(run)
            else:
                active.take_inbox()
            return
        status = self.store.statuses([run]).get(run)
        if self.execute and status is not None and status[2] == self.owner:
            self._load(run)
        else:
            self.claims.wake()

    def steered_soon(self, run: int) -> None:
        """Let a run that is in memory here go by what the file says of it: paused, or not; before
        whatever is scheduled after this call.
        """
        self._call(self._steered, run)

    def _steered(self, run: int) -> None:
        """Somebody paused or resumed a run, here or elsewhere."""
        active = self.active.get(run)
        if active is not None and not active.gone:
            paused = self.store.statuses([run])[run][0] == "paused"
            if paused and not active.paused:
                active.pause()
            elif active.paused and not paused:
                active.resume()
        self._notify(run)
        self.claims.wake()

    def parked(self, active: ActiveRun) -> None:
        self.claims.parked(active)

    def unparked(self, active: ActiveRun) -> None:
        self.claims.unparked(active.run)

    def ended(self, active: ActiveRun, how: Finish | bool = False) -> None:
        if isinstance(how, Finish) and how.error is not None:
            run_failed(
                active, how.error, child=active.child, told=self.waiters.wait_for(active.run)
            )
        if self.active.get(active.run) is active:
            del self.active[active.run]
            self.claims.unparked(active.run)
            self.claims.room_again()
            if active.kernel.outcome is None:  # it may be due
                self.claims.wake()
        self._notify(active.run)

    def lease_lost(self, active: ActiveRun) -> None:
        self.ended(active)
        self._heart.wake()

    # --- callers that wait ------------------------------------------------------------------------

    def _notify(self, run: int) -> None:
        self.waiters.notify(run)

    def emitted(self) -> None:
        """Something was committed that a reader of a stream may wait for."""
        self.waiters.emitted()

    def when_news(self, run: int, act: Callable[[], None]) -> None:
        """Call back, once, when there is news of a run, as `wait_for_news` would come back."""
        self.waiters.when(run, act)

    async def wait_for_news(self, run: int) -> None:
        """Until the run has ended, is blocked, or something else worth a look happened."""
        self.check_lost()
        await self.waiters.wait(run)

    # --- commits of other processes ---------------------------------------------------------------

    def _watch(self) -> None:
        """Look for commits of other processes, and whether damage was found; a plain callback that
        calls itself again.
        """
        if self.store.damaged is not None:
            self.give_up(self.store.damaged)
            return
        self._watching = self._loop.call_later(WATCH_S, self._watch, context=Context())
        if self.writer.busy or self._news.busy:
            return
        try:
            if self.store.changed_by_others():
                self._changed_by_others()
        except PerdureError as error:
            if self.store.damaged is None:
                log.warning("can't read the store: %s", error)
                self._watching.cancel()
                self._watching = self._loop.call_later(
                    WATCH_S_AFTER_ERROR, self._watch, context=Context()
                )

    def _changed_by_others(self) -> None:
        if self.execute:
            self.claims.wake()
            for run in self.store.inboxes_of(self.owner):
                if run in self.active:
                    self._news.add(self._safely, self._take_inbox, run)
            paused = set(self.store.paused_of(self.owner))
            for active in list(self.active.values()):
                if active.paused != (active.run in paused):
                    self._news.add(self._safely, self._steered, active.run)
        waited = self.waiters.waited()
        for first in range(0, len(waited), STATUSES_AT_ONCE):
            self._news.add(
                self._safely, self._look_at_waited, waited[first : first + STATUSES_AT_ONCE]
            )
        self.emitted()

    def _take_inbox(self, run: int) -> None:
        if run in self.active:
            self.active[run].take_inbox()

    def _look_at_waited(self, runs: list[int]) -> None:
        for run, status in self.store.statuses(runs).items():
            if status[0] in FINAL or status[0] == "blocked":
                self._notify(run)

"""Scheduler: claims runs that are due, loads, parks and evicts them.

Rules: kernels are entered from plain callbacks with an empty context only (Python 3.14 refuses to
enter one task from another, and a caller's context variables are no run's); what is parked leaves
memory when there is too much of it; a caller is answered after the commit, never before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.core import lifecycle
from perdure.core.lifecycle import BLOCKED
from perdure.core.limits import Limits
from perdure.core.replay import Kernel
from perdure.errors import (
    EngineClosed,
    PerdureError,
    StoreCorrupt,
    StoreError,
    StoreReplaced,
    StoreTooNew,
)
from perdure.process.clock import SystemClock
from perdure.process.periodic import Loop, to_its_end
from perdure.process.slices import Slices
from perdure.runtime.claiming import IDLE_S_WHEN_LOST, Claims
from perdure.runtime.declared import declaration
from perdure.runtime.durability import DurabilityGate
from perdure.runtime.kernels import kernel_of
from perdure.runtime.loading import Loader
from perdure.runtime.log import run_failed
from perdure.runtime.membership import Membership
from perdure.runtime.news import News, Statuses
from perdure.runtime.observer import Notifier
from perdure.runtime.plans import Block
from perdure.runtime.queues import Lines
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.registry import add_workflow
from perdure.runtime.run import ActiveRun
from perdure.runtime.run_host import HostedRun
from perdure.runtime.runs_in_memory import RunsInMemory
from perdure.runtime.starts import Starts
from perdure.runtime.steps import Steps
from perdure.runtime.waiters import Waiters
from perdure.runtime.watcher import Watcher
from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.rows import RunRow, Started, Written
from perdure.store.writes import ClockMovedBack, Finish, WakeBlocked

log = logging.getLogger("perdure")

T = TypeVar("T")

RELEASES_AT_ONCE = 100
CLOCK_JUMP_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """What a scheduler goes by.

    With `execute` False it only watches, for callers that wait; with "asked" it claims only the
    runs that its engine is asked for. With `moves` the store goes from machine to machine under a
    lease that this process holds, so that no process of another machine executes it.
    """

    codec: JsonCodec
    clock: SystemClock
    limits: Limits
    lease_ms: int
    name: str
    execute: bool | Literal["asked"] = True
    gate: DurabilityGate | None = None
    moves: bool = False
    observer: Notifier | None = None


class Scheduler:
    """Claims, loads, parks and ends the runs of one engine. `workflows` grows as workflows become
    known.
    """

    def __init__(
        self,
        store: Store,
        reads: ReadExecutor,
        writer: Writer,
        workflows: dict[str, Workflow[..., Any]],
        config: SchedulerConfig,
    ) -> None:
        self.store, self.reads, self.writer, self.workflows = store, reads, writer, workflows
        self.codec, self.clock, self.limits = config.codec, config.clock, config.limits
        self.history_rows_max, self.gate = config.limits.history_rows_max, config.gate
        self.execute, self._moves = bool(config.execute), config.moves
        self.observer = config.observer
        self.when_stale: Callable[[], None] | None = None
        self.when_changed: Callable[[], None] | None = None
        self.when_ended: Callable[[], None] | None = None
        """Called, if set: when this worker has another number or the clock has jumped, when another
        process has committed, and when there is news of a run.
        """
        self.steps = Steps(config.codec, config.clock, config.limits, writer.touch, config.observer)
        self.waiters = Waiters()
        self._loop = asyncio.get_running_loop()
        self._slices = Slices(self._loop)
        asked = config.execute == "asked"
        self.claims = Claims(self, asked_only=asked)
        self.memory = RunsInMemory(config.limits, self.claims.wake)
        self._loader, self._news = Loader(self), News(self)
        self.load_soon = self._loader.load_soon
        self.lines = Lines(self)
        starts = Starts(self)
        self.start, self.new_run = starts.start, starts.new_run
        self.run_ends = self.claims.run_ends
        self._heart = Loop("lease", self._beat)
        self.watcher = Watcher(
            store, reads, self._busy, self.changed_by_others, self._heart.wake, self.give_up
        )
        self._membership = Membership(
            store,
            writer,
            config.clock,
            config.lease_ms,
            config.limits.crashes_max,
            config.name,
            self._lost,
            self._others_left,
            self._owns_runs,
            workflows,
            reads=reads,
            asked=asked,
            observer=config.observer,
        )
        self._offset_ms = self._clock_offset_ms()
        self.closing = False
        self.lost: asyncio.Future[StoreError] = self._loop.create_future()
        # Done when closing must not wait for attempts any more.
        self._in_a_hurry: asyncio.Future[None] = self._loop.create_future()

    @property
    def owner(self) -> int:
        """Our number as a worker: what our runs belong to."""
        return self._membership.worker

    @property
    def ending(self) -> bool:
        """Whether nothing new is to be done with a run: the engine closes, or the store is lost."""
        return self.closing or self.lost.done()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.workflows)

    # --- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Join, take over from the dead, give blocked runs another try, begin."""
        if self.execute:
            try:
                self._try_blocked(self.names)  # in one transaction with those that follow
                self._declare(self.names)
                moved = ClockMovedBack(self.clock.now_ms())
                self.writer.put(moved, lambda _: self.claims.wake(), keep=True)
                await self._membership.join()
                await self._membership.reap_dead_workers(elsewhere=self._moves)
            except BaseException:  # also where it was cancelled while the store was written
                await to_its_end(self._leave(), lambda: None)
                raise
            self.claims.start()
        self._heart.start()
        self.watcher.start()

    async def close(self, grace_s: float) -> None:
        """Let attempts end within the grace, let go of every run, leave."""
        self.closing = True
        self.watcher.stop()
        self.reads.stop_trying()
        await self.claims.stop()
        for active in self.memory.active.values():
            active.begin_no_more()
        self.steps.begin_no_more()
        under_way = [
            task for active in self.memory.active.values() for task in active.attempts.tasks()
        ]
        if under_way and grace_s > 0:
            ended = asyncio.ensure_future(asyncio.wait(under_way, timeout=grace_s))
            both: tuple[asyncio.Future[Any], ...] = (ended, self._in_a_hurry)
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            # their outcomes are fed by callbacks of this turn, or, if they are many, of the next
            # ones
            await asyncio.sleep(0)
            # each turn reports more of them
            while self.steps.unreported and self.writer.last_error is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await self.reads.idle()
        for number, active in enumerate(list(self.memory.active.values())):
            active.release()
            if number % RELEASES_AT_ONCE == RELEASES_AT_ONCE - 1:
                await asyncio.sleep(0)
        await self.writer.drain()
        await self.reads.idle()
        await self._heart.stop()
        await self._leave()
        for active in self.memory.unwritten:
            active.drop()  # the store took nothing to the end
        self.steps.close()
        self.waiters.fail(EngineClosed())

    async def _leave(self) -> None:
        await self.writer.drain()
        await self._membership.stopped()
        if self._membership.worker and self.writer.last_error is None:
            try:
                await self._membership.leave()
            except StoreError as error:  # closing has to let go of everything else all the same
                log.warning("the lease could not be given back, it will expire: %s", error)

    def hurry(self) -> None:
        """Closing was cancelled: wait for no more attempts."""
        if not self._in_a_hurry.done():
            self._in_a_hurry.set_result(None)

    def _others_left(self) -> None:
        self._try_blocked(self.names)
        self.claims.wake()

    def _lost(self) -> None:
        for active in self.memory.clear():
            active.drop()

    def register(self, definition: Workflow[..., Any]) -> None:
        """Make a workflow known here; runs of it that other code has blocked get another try.
        Raises `DefinitionError`.
        """
        if fresh := add_workflow(self.workflows, definition):
            self._try_blocked(fresh)
            self._declare(fresh)

    def _declare(self, names: tuple[str, ...]) -> None:
        """Say what the arguments of workflows are, for forms where their code is not."""
        if not self.closing and names:
            declared = declaration(self.workflows, names, self.clock.now_ms(), self.codec.hides)
            self.writer.put(declared, lambda _: None, keep=False)

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
        self._adjust_to_clock()
        try:
            await self.reads.get(self.store.check_identity)
        except (StoreCorrupt, StoreReplaced, StoreTooNew) as error:
            self.give_up(error)
        self.watcher.look()
        if self.lost.done():
            return IDLE_S_WHEN_LOST
        if not self.execute:
            return self._membership.beat_s
        worker, wait_s = self.owner, await self._membership.look()
        if self.owner != worker and self.when_stale is not None:
            self.when_stale()
        return wait_s

    def give_up(self, error: StoreError) -> None:
        """The store is lost for good: execute and write nothing more; waiters get the error."""
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

    def _adjust_to_clock(self) -> None:
        """Set timers anew where the date was set or the machine has slept: the event loop counts
        seconds from its start.
        """
        now_ms, before_ms = self._clock_offset_ms(), self._offset_ms
        jump_ms, self._offset_ms = now_ms - before_ms, now_ms
        if abs(jump_ms) >= CLOCK_JUMP_MS:
            log.warning("the clock jumped by %+.1f s; timers are set anew by it", jump_ms / 1000)
            for active in list(self.memory.active.values()):
                active.set_timer()
            if jump_ms < 0:
                self.writer.put(
                    ClockMovedBack(self.clock.now_ms()), lambda _: self.claims.wake(), keep=True
                )
            self.claims.wake()
            if self.when_stale is not None:
                self.when_stale()

    # --- runs in memory ---------------------------------------------------------------------------

    def new_active(self, row: RunRow) -> ActiveRun:
        """The run in memory, at its very beginning."""
        return ActiveRun(self, row, self._kernel(row))

    def _kernel(self, row: RunRow) -> Kernel:
        return kernel_of(row, self.workflows[row.workflow], self.codec)

    def use_lease(self) -> None:
        """A run is about to become ours."""
        if self._membership.use():
            self._heart.wake()  # it looks more often from now on

    def idle(self) -> bool:
        """Nothing is due. Returns whether this worker rests."""
        return self._membership.idle()

    def _owns_runs(self) -> bool:
        memory = self.memory
        return bool(memory.active or memory.unwritten or memory.loading or self._loader.busy)

    # --- what active runs report ------------------------------------------------------------------

    def woken(self, runs: list[int]) -> None:
        """These runs have news; they are looked at in callbacks of their own."""
        for run in runs:
            self._slices.add(self.look_at, run)

    def look_at(self, run: int) -> None:
        """Let a run that has news take it, or load the run."""
        if self.ending:
            return
        self._notify(run)
        active = self.memory.active.get(run)
        if active is not None and not active.gone:
            if active.paused:
                self.pause_or_resume(run)
            else:
                active.read_inbox()
        elif (loading := self.memory.loading.get(run)) is not None:
            loading.news = True
        else:
            self.reads.then(partial(self._owner_known, run), self.store.statuses, [run])

    def _owner_known(self, run: int, found: Statuses) -> None:
        status = found.get(run)
        if self.execute and status is not None and status[2] == self.owner:
            self._loader.load(run)
        else:
            self.claims.wake()

    def controlled(self, run: int) -> None:
        """A run was paused, resumed or retried; it is looked at before whatever is scheduled after
        this call.
        """
        self._slices.add(self.pause_or_resume, run)

    def pause_or_resume(self, run: int) -> None:
        """Let a run that is in memory do what its row says: pause, or go on."""
        if self.memory.executes(run):
            self.reads.then(partial(self._status_known, run), self.store.statuses, [run])
            return
        if (loading := self.memory.loading.get(run)) is not None:
            loading.controlled = True
        self._notify(run)
        self.claims.wake()

    def _status_known(self, run: int, found: Statuses) -> None:
        active = self.memory.active.get(run)
        if active is not None and not active.gone:
            paused = found[run][0] == lifecycle.PAUSED
            if paused and not active.paused:
                active.pause()
            elif active.paused and not paused:
                active.resume()
        self._notify(run)
        self.claims.wake()

    def parked(self, active: HostedRun) -> None:
        self.memory.parked(active)

    def unparked(self, active: HostedRun) -> None:
        self.memory.unparked(active.run)

    def ended(self, active: HostedRun, how: Finish | Block | bool = False) -> None:
        is_end = isinstance(how, Finish | Block) or (how and active.blocked)
        if is_end and self.observer is not None:
            status = how.status if isinstance(how, Finish) else BLOCKED
            self.observer.run_ended(active.run_id, active.workflow, status)
        if isinstance(how, Finish) and how.error is not None:
            run_failed(
                active, how.error, child=active.child, reported=self.waiters.wait_for(active.run)
            )
        if self.memory.active.get(active.run) is active:
            del self.memory.active[active.run]
            self.memory.unparked(active.run)
            self.memory.room_again()
            if not active.at_its_end:  # it may be due
                self.claims.wake()
        self._notify(active.run)

    def lease_lost(self, active: HostedRun) -> None:
        self.ended(active)
        self._heart.wake()

    # --- callers that wait ------------------------------------------------------------------------

    def _notify(self, run: int) -> None:
        self.waiters.notify(run)
        if self.when_ended is not None:
            self.when_ended()

    async def queue_set(self) -> None:
        """A queue is new, or has other limits: what waits for it, or is blocked for want of it, may
        go on.
        """
        await self.writer.ask(WakeBlocked(self.names, self.clock.now_ms(), None))
        self.claims.wake()

    def released(self, result: Written | Started | PerdureError) -> None:
        """Places in queues were given back, so others may be admitted, some of them ours."""
        if isinstance(result, PerdureError):
            return
        if isinstance(result, Written) and result.admitted:
            self.lines.admitted(result.admitted)
        if result.queue_due:
            self.claims.wake()

    def spent(self, result: PerdureError | bool) -> None:
        """What an attempt has spent was committed, or refused; True: tokens are back for others."""
        if result is True:
            self.claims.wake()
        elif result is not False:
            log.error("what a step has spent can't be charged: %s", result)

    def emitted(self, replied: Sequence[int] = ()) -> None:
        """Something was committed that a reader of a stream may wait for, or an asker for the
        replies to these requests.
        """
        for request in replied:
            self.waiters.replied(request)
        self.waiters.emitted()

    def when_news(self, run: int, act: Callable[[], None]) -> None:
        """Call back, once, when there is news of a run, as `wait_for_news` would come back."""
        self.waiters.when(run, act)

    def expect_news(self, run: int) -> asyncio.Future[None]:
        """A future for the next news of a run; see `Waiters.expect`. Raises what the store was lost
        for.
        """
        self.check_lost()
        return self.waiters.expect(run)

    async def wait_for_news(self, run: int, news: asyncio.Future[None] | None = None) -> None:
        """Return when the run has ended, is blocked, or something else worth a look happened."""
        await self.waiters.wait(run, self.expect_news(run) if news is None else news)

    # --- commits of other processes ---------------------------------------------------------------

    def _busy(self) -> bool:
        """Whether the store is being written in a thread, or earlier news is still being read."""
        return self.writer.busy or self._news.busy

    def changed_by_others(self) -> None:
        """Another process has committed: look at what concerns our runs and our waiters."""
        if self.execute:
            if self._membership.alone:
                self._heart.wake()  # another worker may be there now
            self.claims.wake()
            if self.when_changed is not None:
                self.when_changed()
            self._news.look_at_runs()
            self.lines.others_committed()
        self._news.look_at_waited()

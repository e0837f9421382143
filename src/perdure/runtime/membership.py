"""Worker membership: registers this engine as a worker, keeps its lease, reaps dead workers.

Rules: a worker's number is never used twice, so it is the fencing token of the runs that it owns; a
worker is dead when its beats have not moved for as long as its lease, counted in looks of ours, or
at once when its process has ended on this machine; no two clocks are ever compared, so a clock that
jumps ends no lease; a worker that has lost its lease joins anew; the holder of a replica's lease
knows that every worker of another machine is dead.

A worker that owns no run rests: its lease is `REST_S` long and renewed by a write now and then. It
gets the short lease before it claims or starts a run, in the same queue of writes. The short lease
is renewed by a thread (docs/adr/0018), except where no other process can see the store or time is
virtual.
"""

from __future__ import annotations

import asyncio
import math
import os
import zlib
from collections.abc import Callable, Collection
from contextvars import Context

from perdure.process import identity
from perdure.process.clock import SystemClock
from perdure.runtime import log
from perdure.runtime.lease_renewal import LeaseRenewal
from perdure.runtime.observer import Notifier
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.unserved import Unserved
from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.rows import WorkerRow
from perdure.store.writes import EndWorker, JoinWorker, RenewLease

BEATS_PER_LEASE = 4
REST_S = 600.0
GIVE_BACK_S = 0.2


class Membership:
    """Membership of one engine. `worker` is its number.

    `on_lost` is called when others have ended its lease, `on_left` when another worker has left, or
    was dead and its runs are free; `owns_runs` says whether a run is in memory here; `known` are
    the workflows that the engine knows; with `asked` it executes only what it is asked for.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        clock: SystemClock,
        lease_ms: int,
        crashes_max: int,
        name: str,
        on_lost: Callable[[], None],
        on_left: Callable[[], None],
        owns_runs: Callable[[], bool],
        known: Collection[str],
        *,
        reads: ReadExecutor,
        asked: bool = False,
        observer: Notifier | None = None,
    ) -> None:
        self._store, self._reads, self._writer, self._clock = store, reads, writer, clock
        self._lease_ms, self._crashes_max, self._name = lease_ms, crashes_max, name
        self._on_lost, self._on_left, self._owns_runs = on_lost, on_left, owns_runs
        self._asked, self._observer = asked, observer
        self.worker = 0
        # of each other worker: its beats, and for how many looks of ours they have not moved
        self._silent: dict[int, tuple[int, int]] = {}
        self.beat_s = lease_ms / 1000 / BEATS_PER_LEASE
        self._next_count_s = self._rested_s = -math.inf
        self._threaded = clock.passes and store.path != ":memory:"
        self._rest_ms = max(round(REST_S * 1000), lease_ms) if clock.passes else lease_ms
        # not all engines of a process at once
        spread = 0.75 + zlib.crc32(store.path.encode(errors="replace")) / 2**34
        self._rest_beat_s = self._rest_ms / 1000 / BEATS_PER_LEASE * spread
        self.resting = self._used = False
        self._give_back_timer: asyncio.TimerHandle | None = None
        self._renewal: LeaseRenewal | None = None
        self._ended: list[LeaseRenewal] = []
        self._unserved = Unserved(store, known)

    async def join(self) -> None:
        """Become a worker of the store, one that rests."""
        pid = os.getpid()
        join = JoinWorker(
            self._name,
            identity.host(),
            pid,
            identity.born(pid),
            self._clock.now_ms(),
            self._rest_ms,
            self._asked,
        )
        self._stop_renewal()
        await self._writer.ask(join, self._joined)

    def _joined(self, worker: int) -> None:
        self.worker = worker
        self.resting, self._rested_s = True, asyncio.get_running_loop().time()
        self._report("taken")

    def _report(self, change: str) -> None:
        if self._observer is not None:
            self._observer.lease_changed("worker", change)

    # --- the lease --------------------------------------------------------------------------------

    def use(self) -> bool:
        """A run is about to be claimed or started here: keep the short lease from now on.

        The write that shortens it is put before the one that needs it. Returns whether there was
        one.
        """
        self._used = True
        if not self.resting:
            return False
        self.resting = False
        lease_ms = self._clock.now_ms() + self._lease_ms
        renew = RenewLease(self.worker, lease_ms, self._lease_ms)
        self._writer.put(renew, lambda _: None, keep=True)
        self._start_renewal()
        return True

    def _start_renewal(self) -> None:
        self._stop_renewal()
        if self._threaded:
            self._renewal = LeaseRenewal(
                self._store, self.worker, self._lease_ms, self.beat_s, self._clock.now_ms
            )

    def _stop_renewal(self) -> None:
        if self._renewal is not None:
            self._renewal.stop()
            self._ended = [one for one in self._ended if one.alive] + [self._renewal]
            self._renewal = None

    async def _rest(self) -> None:
        """Take the long lease; the store refuses it to a worker that owns a run."""
        if self.resting or self._used or self._owns_runs():
            self._used = False
            return
        self.resting = True
        lease_ms = self._clock.now_ms() + self._rest_ms
        rests = await self._writer.ask(RenewLease(self.worker, lease_ms, self._rest_ms))
        if not self.resting:
            return  # a run was started in the meantime, with a later lease
        self.resting = rests
        if rests:
            self._rested_s = asyncio.get_running_loop().time()
            self._stop_renewal()

    def idle(self) -> bool:
        """Nothing is due here: while the worker rests, its store gives back memory soon.

        Returns whether it rests.
        """
        if self.resting and self._give_back_timer is None:
            self._give_back_timer = asyncio.get_running_loop().call_later(
                GIVE_BACK_S, self._give_back, context=Context()
            )
        return self.resting

    def _give_back(self) -> None:
        self._give_back_timer = None
        if self.resting:
            self._writer.rest()
            self._store.rest()

    async def look(self) -> float:
        """See to it that the lease is ours and is renewed, look after the others.

        Returns the seconds until the next time.
        """
        if not await self._holds():
            log.lease_lost(self.worker)
            self._report("lost")
            self._on_lost()
            await self.join()
        if await self.reap_dead_workers():
            self._on_left()
        unknown = False
        if not self._asked:
            looks = 1 + BEATS_PER_LEASE if self._silent else 1
            unknown = await self._reads.get(
                self._unserved.look, self.worker, self._clock.now_ms(), looks
            )
        await self._rest()
        self.idle()
        return self._rest_beat_s if self.alone and self.resting and not unknown else self.beat_s

    @property
    def alone(self) -> bool:
        """Whether no other worker was there at the last look."""
        return not self._silent

    async def _holds(self) -> bool:
        """Whether our lease is still ours. Raises why it can't be renewed."""
        if not self.resting and self._threaded:
            if self._renewal is None or not self._renewal.alive:
                self._start_renewal()
            elif self._renewal.last_error is not None:
                raise self._renewal.last_error
        elif not self.resting or self._rests_long():
            length_ms = self._rest_ms if self.resting else self._lease_ms
            self._rested_s = asyncio.get_running_loop().time()
            renew = RenewLease(self.worker, self._clock.now_ms() + length_ms)
            return bool(await self._writer.ask(renew))
        workers = await self._reads.get(self._store.workers)
        return any(row.worker == self.worker for row in workers)

    def _rests_long(self) -> bool:
        return asyncio.get_running_loop().time() - self._rested_s >= 0.9 * self._rest_beat_s

    # --- the others -------------------------------------------------------------------------------

    async def reap_dead_workers(self, *, elsewhere: bool = False) -> bool:
        """Take the runs of dead workers away from them; True if there were any, or if some have
        left since the last time.

        With `elsewhere` all workers of other machines are dead.
        """
        workers = await self._reads.get(self._store.workers)
        others = [row for row in workers if row.worker != self.worker]
        now_s = asyncio.get_running_loop().time()
        counts = (
            now_s >= self._next_count_s
        )  # a beat that was woken early leaves the others no time for theirs
        if counts:
            self._next_count_s = now_s + 0.9 * self.beat_s
        left = self._silent.keys() - {row.worker for row in others}
        self._silent = {row.worker: (row.beats, self._silent_for(row, counts)) for row in others}
        here = identity.host()
        dead = [row for row in others if (elsewhere and row.host != here) or self._is_dead(row)]
        for row in dead:
            if ended := await self._writer.ask(
                EndWorker(row.worker, self._clock.now_ms(), True, self._crashes_max, row.beats)
            ):
                log.worker_dead(row, ended)
        return bool(dead or left)

    def _silent_for(self, row: WorkerRow, counts: bool) -> int:
        beats, silent = self._silent.get(row.worker, (-1, 0))
        return silent + counts if beats == row.beats else 0

    def _is_dead(self, row: WorkerRow) -> bool:
        """With a beat that it may have given just before we first looked, the silence is one lease
        at the most.
        """
        patience = math.ceil(row.ttl_ms * (BEATS_PER_LEASE - 1) / self._lease_ms)
        return self._silent[row.worker][1] >= patience or identity.is_dead(
            row.host, row.pid, row.born
        )

    def stop(self) -> None:
        """Renew the lease no more."""
        self._stop_renewal()
        if self._give_back_timer is not None:
            self._give_back_timer.cancel()

    async def stopped(self) -> None:
        """Come back when nothing of the store is in use for the lease any more."""
        self.stop()
        for one in self._ended:
            await one.stopped()

    async def leave(self) -> None:
        """Let go of the lease and of every run that is left."""
        await self._writer.ask(EndWorker(self.worker, self._clock.now_ms(), False))
        self._report("released")

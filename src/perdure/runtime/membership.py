"""This process among the others on the store: it joins, keeps its lease, and takes over from the
dead.

Rules: a worker's number is never used twice, so it is the fencing token of the runs that it owns; a
worker is dead when its beats have not moved for as long as its lease, counted in beats of ours, or
at once when its process is gone from this machine; no two clocks are ever compared, so one that
jumps kills nobody; who lost the lease joins anew; the holder of a replica's lease knows that every
worker of another machine is dead; beats are given by a thread of their own (docs/adr/0018), except
where no other process can see them or time is virtual.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Collection

from perdure.process import identity
from perdure.process.clock import SystemClock
from perdure.process.threads import in_thread
from perdure.runtime import log
from perdure.runtime.lease_renewal import LeaseRenewal
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.unserved import Unserved
from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.rows import WorkerRow
from perdure.store.writes import EndWorker, JoinWorker, RenewLease

BEATS_PER_LEASE = 4


class Membership:
    """Membership of one engine. `worker` is its number; `on_lost` is called when others took over
    from it, `on_left` when another worker has left, or was dead and its runs are free; `known` are
    the workflows that it knows; `asked` says that it executes only what its engine is asked for.
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
        known: Collection[str],
        *,
        reads: ReadExecutor,
        asked: bool = False,
    ) -> None:
        self._store, self._reads, self._writer, self._clock = store, reads, writer, clock
        self._lease_ms, self._crashes_max, self._name = lease_ms, crashes_max, name
        self._on_lost, self._on_left, self._asked = on_lost, on_left, asked
        self.worker = 0
        self._silent: dict[
            int, tuple[int, int]
        ] = {}  # of each other: its beats, and for how many of ours they have not moved
        self.beat_s = lease_ms / 1000 / BEATS_PER_LEASE
        self._next_count_s = -math.inf
        self._beats: LeaseRenewal | None = None
        self._unserved = Unserved(store, known)

    async def join(self) -> None:
        """Become a worker of the store."""
        pid = os.getpid()
        join = JoinWorker(
            self._name,
            identity.host(),
            pid,
            identity.born(pid),
            self._clock.now_ms(),
            self._lease_ms,
            self._asked,
        )
        self.worker = await self._writer.ask(join)
        if self._beats is None:
            self._start_beats()
        else:
            self._beats.worker = self.worker

    def _start_beats(self) -> None:
        connection = (
            self._store.lease_connection(round(self.beat_s * 1000)) if self._clock.passes else None
        )
        if connection is not None:
            self._beats = LeaseRenewal(
                connection, self.worker, self._lease_ms, self.beat_s, self._clock.now_ms
            )

    async def beat(self) -> float:
        """See to it that the lease is ours and is renewed, look after the others; seconds until the
        next time.
        """
        if not await self._holds():
            log.lease_lost(self.worker)
            self._on_lost()
            await self.join()
        if await self.reap_dead_workers():
            self._on_left()
        if not self._asked:
            looks = 1 + BEATS_PER_LEASE if self._silent else 1
            await self._reads.get(self._unserved.look, self.worker, self._clock.now_ms(), looks)
        return self.beat_s

    async def _holds(self) -> bool:
        """Whether our lease is still ours. Raises why it can't be renewed."""
        if self._beats is None:
            return bool(
                await self._writer.ask(
                    RenewLease(self.worker, self._clock.now_ms() + self._lease_ms)
                )
            )
        if not self._beats.alive:
            self._beats.stop()
            self._start_beats()
        if self._beats.last_error is not None:
            raise self._beats.last_error
        workers = await self._reads.get(self._store.workers)
        return any(row.worker == self.worker for row in workers)

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
        if self._beats is not None:
            self._beats.stop()

    async def stopped(self) -> None:
        """Come back when nothing of the store is in use for the lease any more."""
        if self._beats is not None:
            self._beats.stop()
            await in_thread(self._beats.join)

    async def leave(self) -> None:
        """Let go of the lease and of every run that is left."""
        await self._writer.ask(EndWorker(self.worker, self._clock.now_ms(), False))

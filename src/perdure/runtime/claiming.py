"""Claims: which due runs an engine takes, and when.

Rules: a claim takes no more runs than there is room for, the rest waits in the store; an engine
that executes only what it is asked for claims runs of the families of these
(`store.writes.Family`) and leaves every other due run to workers; while queues let runs on, what
follows a run is claimed in the transaction that ends it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from perdure.errors import PerdureError, StoreError
from perdure.process.clock import SystemClock
from perdure.process.periodic import Loop
from perdure.runtime.durability import DurabilityGate
from perdure.runtime.queues import Lines
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.runs_in_memory import RunsInMemory
from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.rows import Claimed
from perdure.store.writes import Claim, Family, WakeBlocked

CLAIM_RUNS_MAX = 200
EVICT_RUNS_MAX = 50
CLAIM_AGAIN_S = 0.05
IDLE_S_WHEN_LOST = 3_600.0
IDLE_S_RESTING = 600.0
FULL_S = 1.0  # until the next look whether the replica takes anything again


class ClaimHost(Protocol):
    """What claims need of their scheduler."""

    store: Store
    reads: ReadExecutor
    writer: Writer
    clock: SystemClock
    gate: DurabilityGate | None
    memory: RunsInMemory
    lines: Lines
    lost: asyncio.Future[StoreError]

    @property
    def owner(self) -> int: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def ending(self) -> bool: ...

    def load_soon(self, run: int) -> None: ...

    def use_lease(self) -> None: ...

    def idle(self) -> bool: ...


class Claims:
    """The claims of one scheduler. `families` are the runs that it was asked for, by key; None
    where it takes whatever is due.
    """

    def __init__(self, host: ClaimHost, *, asked_only: bool) -> None:
        self._host = host
        self.families: dict[int, Family] | None = {} if asked_only else None
        self._loop = Loop("schedule", self._claim_due)
        self.start, self.stop, self.wake = self._loop.start, self._loop.stop, self._loop.wake
        self._claimed = True
        self._queued = self._touched = False
        """Whether queues have let runs on at the last claim, and whether one is to be collected."""

    async def ask_for(self, run: int) -> None:
        """Execute this run, and what it starts, from now on. Returns when runs of the family that
        old code has blocked were given another try.
        """
        if self.families is None or run in self.families:
            return
        host = self._host
        self.families[run] = family = await host.reads.get(host.store.family, run)
        if not host.memory.executes(run):
            await host.writer.ask(WakeBlocked(host.names, host.clock.now_ms(), family))
        self.wake()

    def forget(self, run: int) -> None:
        """Claim no more runs of this run's family."""
        if self.families is not None:
            self.families.pop(run, None)

    async def _claim_due(self) -> float:
        host = self._host
        if host.lost.done():
            return IDLE_S_WHEN_LOST
        if host.gate is not None and host.gate.full:
            return FULL_S
        families = None if self.families is None else tuple(self.families.values())
        due_ms = await host.reads.get(host.store.next_due_ms, host.names, families, host.owner)
        room, now_ms = min(CLAIM_RUNS_MAX, host.memory.room()), host.clock.now_ms()
        if due_ms is None:
            # The watcher of the file wakes this loop; no timer is needed for what is not there.
            return max(IDLE_S_RESTING if host.idle() else 0.0, host.clock.idle_s_max)
        if due_ms > now_ms:
            return min((due_ms - now_ms) / 1000, host.clock.idle_s_max)
        if room <= 0:
            host.memory.no_room(EVICT_RUNS_MAX)
            if not len(host.lines):
                return host.clock.idle_s_max
        claim = self._claim(max(0, room), now_ms, families, insists=not self._claimed)
        claimed: Claimed = await host.writer.ask(claim)
        self._take(claimed)
        if room <= 0:
            return host.clock.idle_s_max
        # What our share left is for others to take; what they leave we take next time.
        self._claimed = bool(claimed.runs)
        return 0.0 if len(claimed.runs) == room else CLAIM_AGAIN_S

    def _claim(
        self, room: int, now_ms: int, families: tuple[Family, ...] | None = None, *, insists: bool
    ) -> Claim:
        host = self._host
        host.use_lease()
        return Claim(host.owner, host.names, room, now_ms, insists=insists, families=families)

    def _take(self, claimed: Claimed) -> None:
        self._queued = claimed.queued
        for run in claimed.runs:
            self._host.load_soon(run)
        self._host.lines.admitted_soon(claimed.admitted)

    # --- with the ends of runs --------------------------------------------------------------------

    def run_ends(self) -> None:
        """The end of a run is about to be written: those who wait behind it are claimed with it."""
        if self._queued and not self._touched and self.families is None:
            self._touched = True
            self._host.writer.touch(self)

    def collect(self) -> None:
        """Claim behind the ends of runs that have been put before."""
        host = self._host
        self._touched = False
        room = min(CLAIM_RUNS_MAX, host.memory.room())
        if room > 0 and not host.ending and not (host.gate is not None and host.gate.full):
            claim = self._claim(room, host.clock.now_ms(), insists=False)
            host.writer.put(claim, self._claimed_behind, keep=False)

    def _claimed_behind(self, claimed: Claimed | PerdureError) -> None:
        if isinstance(claimed, PerdureError):
            self.wake()
        else:
            self._take(claimed)

    def failed(self, error: BaseException) -> None:
        """Nothing was put: the loop claims."""
        self.wake()

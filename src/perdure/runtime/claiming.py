"""The claims of one engine: which runs that are due it takes, when, and for how many it has room.

Rules: a claim takes no more than there is room for, and the rest waits in the file; an engine that
executes what it is asked for only takes runs of the families of these (`store.base.Family`), and
leaves everything else that is due to workers.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextvars import Context
from typing import TYPE_CHECKING

from perdure.core import discard
from perdure.process.periodic import Loop
from perdure.store.writes import Claim, Family, WakeBlocked

if TYPE_CHECKING:
    from perdure.runtime.run import ActiveRun
    from perdure.runtime.scheduler import Scheduler

CLAIM_RUNS_MAX = 200
EVICT_RUNS_MAX = (
    50  # waiting runs that leave memory at once when others are due and there is no room
)
CLAIM_AGAIN_S = 0.05
IDLE_S_WHEN_LOST = 3_600.0
FULL_S = 1.0  # until the next look whether the replica takes anything again


class Claims:
    """Those of one scheduler. `families` are the runs that it was asked for, by key; None where it
    takes whatever is due.
    """

    def __init__(self, scheduler: Scheduler, asked_only: bool) -> None:
        self._scheduler, self._event_loop = scheduler, asyncio.get_running_loop()
        self.families: dict[int, Family] | None = {} if asked_only else None
        self._loop = Loop("schedule", self._claim_due)
        self.start, self.stop, self.wake = self._loop.start, self._loop.stop, self._loop.wake
        self._parked: OrderedDict[int, ActiveRun] = OrderedDict()
        self._crowded = False  # whether runs are due for which there was no room
        # runs that this turn of the event loop has started as ours, and that are loaded in a later
        # one
        self._promised = 0
        self._claimed = True

    # --- what to take -----------------------------------------------------------------------------

    async def ask_for(self, run: int) -> None:
        """Execute this run, and what it starts, from now on; what old code has blocked there has
        got another try when this comes back.
        """
        if self.families is not None and run not in self.families:
            scheduler = self._scheduler
            self.families[run] = family = scheduler.store.family(run)
            if not scheduler.executes(run):
                await scheduler.writer.ask(
                    WakeBlocked(scheduler.names, scheduler.clock.now_ms(), family)
                )
            self.wake()

    def not_any_more(self, run: int) -> None:
        """Nothing more of this run, or of what it has started, is claimed."""
        if self.families is not None:
            self.families.pop(run, None)

    async def _claim_due(self) -> float:
        scheduler = self._scheduler
        if scheduler.lost.done():
            return IDLE_S_WHEN_LOST
        if scheduler.gate is not None and scheduler.gate.full:
            return FULL_S
        room, now_ms = min(CLAIM_RUNS_MAX, self.room()), scheduler.clock.now_ms()
        families = None if self.families is None else tuple(self.families.values())
        due_ms = scheduler.store.next_due_ms(scheduler.names, families)
        if due_ms is None:
            return scheduler.clock.idle_s_max
        if due_ms > now_ms:
            return min((due_ms - now_ms) / 1000, scheduler.clock.idle_s_max)
        if room <= 0:
            self._crowded = True
            self._evict(
                EVICT_RUNS_MAX
            )  # a run that waits must not keep out the one that it waits for
            return scheduler.clock.idle_s_max
        claim = Claim(
            scheduler.owner,
            scheduler.names,
            room,
            now_ms,
            insists=not self._claimed,
            families=families,
        )
        runs: list[int] = await scheduler.writer.ask(claim)
        for run in runs:
            scheduler.load_soon(run)
        self._claimed = bool(
            runs
        )  # what our share left is for others to take; what they leave we take next time
        return 0.0 if len(runs) == room else CLAIM_AGAIN_S

    # --- room -------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more runs may be loaded."""
        scheduler = self._scheduler
        return (
            scheduler.limits.runs_loaded_max
            - len(scheduler.active)
            - len(scheduler.unwritten)
            - self._promised
        )

    def promise(self) -> None:
        """A run is started as ours: it is loaded in a later turn of the event loop."""
        if not self._promised:
            self._event_loop.call_soon(self._keep_promises, context=Context())
        self._promised += 1

    def kept(self) -> None:
        """A promised run counts as one that is still to be written from here on."""
        self._promised -= 1

    def _keep_promises(self) -> None:
        """The runs of the last turn are loaded from here on; where there is no room after all, the
        scheduler puts them off.
        """
        self._promised = 0
        self.room_again()

    def room_again(self) -> None:
        """Let those be claimed that are due and for which there was no room."""
        if self._crowded:
            self._crowded = False
            self.wake()

    def parked(self, active: ActiveRun) -> None:
        """A run waits: it may leave memory, those first that have waited longest."""
        self._parked[active.run] = active
        self._evict(len(self._parked) - self._scheduler.limits.runs_parked_max)
        self.room_again()  # or there may be, if it is evicted

    def unparked(self, run: int) -> None:
        """A run waits no longer, or has left memory."""
        self._parked.pop(run, None)

    def clear(self) -> None:
        """No run is in memory any more."""
        self._parked.clear()

    def _evict(self, runs: int) -> None:
        for _ in range(min(runs, len(self._parked)) if discard.supported else 0):
            _, oldest = self._parked.popitem(last=False)
            self._event_loop.call_soon(oldest.evict, context=Context())

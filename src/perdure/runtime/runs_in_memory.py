"""Runs in memory: which are loaded, which wait and may leave, and for how many more there is room.

Rules: runs that are being loaded or are still to be written count as loaded; waiting runs leave
memory in the order in which they began to wait.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context

from perdure.core import discard, lifecycle
from perdure.core.limits import Limits
from perdure.runtime.run import ActiveRun
from perdure.runtime.run_host import HostedRun


class Loading:
    """A run whose row and history are being read. `news` is set by what arrives meanwhile,
    `controlled` by a pause or a resume.
    """

    __slots__ = ("controlled", "news")

    def __init__(self) -> None:
        self.news = self.controlled = False


class RunsInMemory:
    """The runs of one engine, by key. `on_room` is called when there is room again for runs that
    are due.
    """

    def __init__(self, limits: Limits, on_room: Callable[[], None]) -> None:
        self._limits, self._on_room = limits, on_room
        self._event_loop = asyncio.get_running_loop()
        self.active: dict[int, ActiveRun] = {}
        self.unwritten: set[ActiveRun] = set()
        self.loading: dict[int, Loading] = {}
        self._waiting: OrderedDict[int, HostedRun] = OrderedDict()
        self._crowded = False  # runs are due for which there was no room
        self._promised = 0  # runs that this turn of the event loop has started as ours

    def executes(self, run: int) -> bool:
        """Whether a run is in memory, so that its end will be reported."""
        active = self.active.get(run)
        return active is not None and not active.gone

    def at_work(self) -> int:
        """How many runs are being executed: in memory, and not waiting."""
        return sum(run.status == lifecycle.RUNNING and not run.gone for run in self.active.values())

    def clear(self) -> list[ActiveRun]:
        """Forget all runs that are in the store; returns those that were loaded."""
        dropped = list(self.active.values())
        self.active.clear()
        self.loading.clear()
        self._waiting.clear()
        return dropped

    # --- room -------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more runs may be loaded."""
        loaded = len(self.active) + len(self.unwritten) + len(self.loading)
        return self._limits.runs_loaded_max - loaded - self._promised

    def promise(self) -> None:
        """Keep a place for a run that is started as ours and loaded in a later turn of the event
        loop.
        """
        if not self._promised:
            self._event_loop.call_soon(self._end_promises, context=Context())
        self._promised += 1

    def keep_promise(self) -> None:
        """A promised run counts among the unwritten ones from here on."""
        self._promised -= 1

    def _end_promises(self) -> None:
        """The runs of the last turn are loaded from here on. Where there is no room after all, the
        scheduler puts them off.
        """
        self._promised = 0
        self.room_again()

    def no_room(self, evicted_max: int) -> None:
        """Runs are due and there is no room: let waiting runs leave memory, since the runs that
        they wait for may be among those that are due.
        """
        self._crowded = True
        self._evict(evicted_max)

    def room_again(self) -> None:
        """There may be room for the runs that found none."""
        if self._crowded:
            self._crowded = False
            self._on_room()

    # --- waiting runs -----------------------------------------------------------------------------

    def parked(self, active: HostedRun) -> None:
        """A run waits, and may leave memory."""
        self._waiting[active.run] = active
        self._evict(len(self._waiting) - self._limits.runs_parked_max)
        self.room_again()  # or there may be, if it is evicted

    def unparked(self, run: int) -> None:
        """A run waits no longer, or has left memory."""
        self._waiting.pop(run, None)

    def _evict(self, runs: int) -> None:
        for _ in range(min(runs, len(self._waiting)) if discard.supported else 0):
            _, oldest = self._waiting.popitem(last=False)
            self._event_loop.call_soon(oldest.evict, context=Context())

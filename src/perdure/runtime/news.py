"""News of other processes: what their commits mean for the runs and the waiters of this one.

Rules: a look costs a fixed number of reads, and one for each hundreds of runs that are waited for;
news of a run that is being loaded is looked at when it is loaded.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from perdure.core import lifecycle
from perdure.process.slices import Slices
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.runs_in_memory import RunsInMemory
from perdure.runtime.waiters import Waiters
from perdure.store.base import Store

STATUSES_AT_ONCE = 500

Statuses = dict[int, tuple[str, int | None, int | None]]
"""Status, successor and owner of runs, by key."""


class NewsHost(Protocol):
    """What news needs of its scheduler."""

    store: Store
    reads: ReadExecutor
    memory: RunsInMemory
    waiters: Waiters

    @property
    def owner(self) -> int: ...

    def pause_or_resume(self, run: int) -> None: ...


class News:
    """Looks at what other processes have committed, for one scheduler."""

    def __init__(self, host: NewsHost) -> None:
        self._host = host
        self._slices = Slices(asyncio.get_running_loop())

    @property
    def busy(self) -> bool:
        """Whether the last look has not come to its end."""
        return self._slices.busy

    def look_at_runs(self) -> None:
        """Look for messages, cancels and pauses for the runs that are executed here."""
        self._host.reads.then(self._take, self._read, self._host.owner)

    def look_at_waited(self) -> None:
        """Look whether runs that are waited for have ended or are blocked, and requests that are
        waited for have a reply.
        """
        waited = self._host.waiters.waited()
        for first in range(0, len(waited), STATUSES_AT_ONCE):
            self._slices.add(self._read_statuses, waited[first : first + STATUSES_AT_ONCE])
        asked = self._host.waiters.asked()
        for first in range(0, len(asked), STATUSES_AT_ONCE):
            self._slices.add(self._read_replies, asked[first : first + STATUSES_AT_ONCE])
        self._host.waiters.emitted()

    def _read(self, owner: int) -> tuple[list[int], set[int]]:
        """Runs of a worker with something in their inbox, and those that are paused."""
        return self._host.store.inboxes_of(owner), set(self._host.store.paused_of(owner))

    def _take(self, news: tuple[list[int], set[int]]) -> None:
        inboxes, paused = news
        memory = self._host.memory
        for run in inboxes:
            self._slices.add(self._take_inbox, run)
        for active in list(memory.active.values()):
            if active.paused != (active.run in paused):
                self._slices.add(self._host.pause_or_resume, active.run)
        for run, loading in memory.loading.items():
            loading.controlled |= run in paused

    def _take_inbox(self, run: int) -> None:
        memory = self._host.memory
        if (active := memory.active.get(run)) is not None:
            active.read_inbox()
        elif (loading := memory.loading.get(run)) is not None:
            loading.news = True

    def _read_statuses(self, runs: list[int]) -> None:
        self._host.reads.then(self._notify_ended, self._host.store.statuses, runs)

    def _read_replies(self, requests: list[int]) -> None:
        self._host.reads.then(self._notify_askers, self._host.store.have_reply, requests)

    def _notify_askers(self, requests: list[int]) -> None:
        for request in requests:
            self._host.waiters.replied(request)

    def _notify_ended(self, found: Statuses) -> None:
        for run, (status, _, _) in found.items():
            if status in lifecycle.FINAL or status == lifecycle.BLOCKED:
                self._host.waiters.notify(run)

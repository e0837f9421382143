"""Lease renewals of all engines of the process, in one thread beside their event loops.

Rules: a renewal never waits for a lock: it says when it wants to be tried again, so one busy file
holds up no other; an error of one renewal ends that one only; the thread ends with the last one.
"""

from __future__ import annotations

import heapq
import logging
import threading
from contextvars import Context
from itertools import count
from time import monotonic
from typing import Protocol

from perdure.store.sqlite import forked

log = logging.getLogger("perdure")


class Renewal(Protocol):
    """One lease. All methods are called in the thread of the renewals."""

    def renew(self) -> float | None:
        """Renew it. Returns the seconds until the next time; None ends it."""

    def ended(self) -> None:
        """It is not called again: let go of what it uses."""


class Renewals:
    """The renewals of one process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Renewal]] = []
        self._number = count()
        self._called: set[Renewal] = set()
        self._thread: threading.Thread | None = None

    def add(self, renewal: Renewal, wait_s: float) -> None:
        """Renew from `wait_s` seconds on, until `renew` returns None."""
        with self._changed:
            heapq.heappush(self._due, (monotonic() + wait_s, next(self._number), renewal))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="perdure-leases", daemon=True
                )
                forked.watch(self)
                Context().run(self._thread.start)

    def soon(self, renewal: Renewal) -> None:
        """Call `renew` of one that was added as soon as possible."""
        with self._changed:
            self._called.add(renewal)  # it may be under way at this moment
            for place, (_, number, one) in enumerate(self._due):
                if one is renewal:
                    self._due[place] = (0.0, number, renewal)
                    heapq.heapify(self._due)
                    self._changed.notify()

    def in_child(self) -> None:
        """See `store.sqlite.forked`: the leases are the parent's."""
        self.__init__()  # type: ignore[misc]

    def _run(self) -> None:
        while (renewal := self._next()) is not None:
            wait_s = None
            try:
                wait_s = renewal.renew()
            except Exception:
                log.exception("a lease could not be renewed; that is begun anew")
            with self._changed:
                if wait_s is None:
                    self._called.discard(renewal)
                else:
                    due_s = 0.0 if renewal in self._called else monotonic() + wait_s
                    heapq.heappush(self._due, (due_s, next(self._number), renewal))
            if wait_s is None:
                try:
                    renewal.ended()
                except Exception:
                    log.exception("what a lease was renewed with could not be let go of")

    def _next(self) -> Renewal | None:
        """Wait for the next one that is due. None where none is left: the thread ends."""
        with self._changed:
            while self._due:
                wait_s = self._due[0][0] - monotonic()
                if wait_s <= 0:
                    renewal = heapq.heappop(self._due)[2]
                    self._called.discard(renewal)
                    return renewal
                self._changed.wait(wait_s)
            self._thread = None
            forked.unwatch(self)
            return None

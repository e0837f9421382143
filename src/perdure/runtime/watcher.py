"""Watcher of a store: notices commits of other processes, and damage.

Rules: it looks from a plain callback that calls itself again; it does not look while the store is
being written in a thread, nor before the result of the last look was handled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

from perdure.errors import StoreError
from perdure.runtime.read_executor import ReadExecutor
from perdure.store.base import Store

WATCH_S = 0.02


class Watcher:
    """Calls `changed` after commits of other processes, and `damaged` once, with what was found.
    While `busy` returns True it does not look.
    """

    def __init__(
        self,
        store: Store,
        reads: ReadExecutor,
        busy: Callable[[], bool],
        changed: Callable[[], None],
        damaged: Callable[[StoreError], None],
    ) -> None:
        self._store, self._reads, self._busy = store, reads, busy
        self._changed, self._damaged = changed, damaged
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._looking = False

    def start(self) -> None:
        """Look every 20 ms from here on."""
        self._timer = self._loop.call_later(WATCH_S, self._watch, context=Context())

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        if self._store.damaged is not None:
            self._damaged(self._store.damaged)
            return
        self.start()
        if not self._looking and not self._busy():
            self._looking = True
            self._reads.then(self._looked, self._store.changed_by_others)

    def _looked(self, changed: bool) -> None:
        self._looking = False
        if changed:
            self._changed()

"""Watcher of a store: notices commits of other processes, and damage.

Rules: it looks from a plain callback after each write to the files of the store, which the watcher
of the process reports; it does not look while the store is being written in a thread, nor before
the result of the last look was handled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

from perdure.errors import StoreError
from perdure.process import host
from perdure.process.file_watcher import LOOK_S, Watch
from perdure.runtime.read_executor import ReadExecutor
from perdure.store.base import Store


class Watcher:
    """Calls `changed` after commits of other processes, `moved` when a file of the store lost its
    name, and `damaged` once, with what was found. While `busy` returns True it does not look.
    """

    def __init__(
        self,
        store: Store,
        reads: ReadExecutor,
        busy: Callable[[], bool],
        changed: Callable[[], None],
        moved: Callable[[], None],
        damaged: Callable[[StoreError], None],
    ) -> None:
        self._store, self._reads, self._busy = store, reads, busy
        self._changed, self._moved, self._damaged = changed, moved, damaged
        self._loop = asyncio.get_running_loop()
        self._watch: Watch | None = None
        self._looking = False

    def start(self) -> None:
        """Look after each write from here on."""
        self._store.when_damaged = self._damage_soon
        if self._store.watched:
            self._watch = host.files.watch(self._store.watched, self._look, self._moved)
            self._watch.written()  # what was committed since the store was read

    def stop(self) -> None:
        """Look no more."""
        self._store.when_damaged = None
        if self._watch is not None:
            self._watch.cancel()

    def look(self) -> None:
        """Look now, in case that a report was lost."""
        if self._watch is not None and not self._watch.ended:
            self._look()

    def _look(self) -> None:
        if self._store.damaged is not None:
            self._damage()
        elif self._looking or self._busy():
            assert self._watch is not None
            self._watch.again(LOOK_S)
        else:
            self._looking = True
            self._reads.then(self._looked, self._store.changed_by_others)

    def _looked(self, changed: bool) -> None:
        self._looking = False
        if changed:
            self._changed()

    def _damage_soon(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._damage, context=Context())

    def _damage(self) -> None:
        if self._store.damaged is not None and self._store.when_damaged is not None:
            self._damaged(self._store.damaged)

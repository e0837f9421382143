"""A real SQLite store that behaves as a database over a network does: reads and writes take their
time, and refuse to be made on the event loop's thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from perdure import Engine
from perdure.store.sqlite.checksum import HistoryChecksum
from perdure.store.sqlite.driver import SqliteStore

ROUND_TRIP_S = 0.0005


class RemoteStore(SqliteStore):
    """`calls` counts reads and writes that were made in threads, `refused` has those that were
    tried on the thread that opened the store.
    """

    inline = False

    def __init__(self, path: str, **options: Any) -> None:
        self._lock = threading.RLock()
        self._thread: int | None = None
        self.calls = 0
        self.refused: list[str] = []
        super().__init__(path, **options)

    def opened(self) -> None:
        """From here on the thread that calls this is the event loop's."""
        self._thread = threading.get_ident()

    @contextlib.contextmanager
    def unguarded(self) -> Iterator[None]:
        """Let every thread read for a moment."""
        guarded, self._thread = self._thread, None
        try:
            yield
        finally:
            self._thread = guarded

    def _cross(self, what: str) -> None:
        if self._thread is None:
            return
        if threading.get_ident() == self._thread:
            self.refused.append(what)
            raise AssertionError(f"{what} on the event loop's thread")
        self.calls += 1
        time.sleep(ROUND_TRIP_S)

    def _all(self, name: str, *bindings: Any) -> list[Any]:
        self._cross(name)
        with self._lock:
            return super()._all(name, *bindings)

    def pragma(self, name: str, db: Any = None) -> Any:
        self._cross(name)
        with self._lock:
            return super().pragma(name, db)

    def write(self, batch: Sequence[Any], wait_for_lock: bool) -> list[Any]:
        self._cross(f"a write of {len(batch)}")
        with self._lock:
            return super().write(batch, wait_for_lock)

    def checksum(self) -> Any:
        """Of the file, which no database over a network has: read where it is asked for."""
        with self._lock:
            found = super()._all("read_checksum")
        return HistoryChecksum(*found[0]) if found else None

    def close(self) -> None:
        with self.unguarded():
            super().close()


class RemoteEngine(Engine):
    """An engine on a `RemoteStore`. `refused` has what was read or written on the event loop,
    `calls` is how often the store was called in a thread.
    """

    _remote: RemoteStore
    store_class = RemoteStore

    @property
    def refused(self) -> list[str]:
        return self._remote.refused

    @property
    def calls(self) -> int:
        return self._remote.calls

    def _open_store(self) -> RemoteStore:
        store = self.store_class(self.path, limits=self.limits, create=self._options.create)
        self._remote = store
        store.opened()
        return store

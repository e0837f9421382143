"""Export of runs: a new store in a file of its own, with copies of runs of another store.

Rules: the copies have the keys that they had, so that nothing in them has to be rewritten; the
store is only read, and no lock is held on it between two calls; a run that is there already is not
copied again; the file is whole only after `close`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from perdure.store import sql
from perdure.store.retention_writes import Prunable
from perdure.store.sqlite import connection, files, forked, new_file
from perdure.store.sqlite.error_map import BUSY_MS, translated
from perdure.store.sqlite.queries import PACKAGE

Q = sql.load("export.sql", PACKAGE)
COPIED = (
    "copy_run", "copy_tag", "copy_event", "copy_chunk", "copy_heartbeat", "copy_stream",
    "copy_inbox", "copy_exposed", "copy_request",
)  # fmt: skip
CACHE_KIB = -8_000


@contextlib.contextmanager
def exporting(source: str, path: str) -> Iterator[SqliteExport]:
    """See `base.Store.export`."""
    with translated(path):
        export = SqliteExport(source, path)
    try:
        yield export
    finally:
        export.abandon()


class SqliteExport:
    """See `base.Export`."""

    def __init__(self, source: str, path: str) -> None:
        self._path, self._open = path, True
        new_file.write(path, connection.new_pages())
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        self._db = forked.connection(path, flags, vfs=None)
        self._db.set_busy_timeout(BUSY_MS)
        self._db.pragma("synchronous", "off")  # what a crash leaves is thrown away
        self._db.pragma("cache_size", CACHE_KIB)
        uri = Path(source).absolute().as_uri().replace("file:///", "file:/") + "?mode=ro"
        self._db.execute(Q["attach_source"], (uri,))
        self._db.execute(Q["make_chosen"])
        self._db.execute(Q["mark"])

    def add(self, found: Sequence[Prunable]) -> int:
        """See `base.Export`."""
        runs = [run for one in found for run in (*one.earlier, one.run)]
        with translated(self._path), self._db:
            self._db.execute(Q["choose"], (msgspec.json.encode(runs).decode(),))
            for query in COPIED:
                self._db.execute(Q[query])
            self._db.execute(Q["forget_chosen"])
        return int(self._db.pragma("page_count")) * connection.PAGE_BYTES

    def add_runs(self, runs: Sequence[int], *, family: bool, secrets: bool) -> int:
        """Copy runs by their keys, with what goes with them; with `family` also those that went
        before them under their ids and all their children. Returns how many there are.
        """
        with translated(self._path), self._db:
            choose = Q["choose_family" if family else "choose_alone"]
            self._db.execute(choose, (msgspec.json.encode(runs).decode(),))
            for query in (*COPIED, "copy_open_inbox", *(("copy_secret",) if secrets else ())):
                self._db.execute(Q[query])
            if not secrets:
                self._db.execute(Q["blind_digests"])
            self._db.execute(Q["leave_owners"])
            copied: Any = self._db.execute(Q["count_chosen"]).get
            self._db.execute(Q["forget_chosen"])
        return int(copied)

    def close(self) -> None:
        """See `base.Export`."""
        with translated(self._path):
            self._db.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self.abandon()
        files.sync(self._path)

    def abandon(self) -> None:
        """Close the connection, whatever the state of the file."""
        if self._open:
            self._open = False
            self._db.close()

"""A connection that does nothing but renew a worker's lease, for a thread of its own.

Rules: it never makes a file; it syncs only for a checkpoint, because a lease is worth nothing after
a power failure; it leaves the checkpoints of a replicated file to Litestream, and those at the end
to the store; one thread uses and closes it, before the store is closed.
"""

from __future__ import annotations

from time import sleep

import apsw

from perdure.errors import StoreReplaced
from perdure.store.sqlite import checksum, files, forked
from perdure.store.sqlite.error_map import translated
from perdure.store.sqlite.queries import Q
from perdure.store.sqlite.reader import Reader

TRY_AGAIN_S = 0.002


class SqliteLeaseConnection:
    """See `base.LeaseConnection`. `opened` are the files of the store, by path.

    Raises `StoreReplaced` where a path names another file by now, and any other `StoreError`.
    """

    def __init__(self, store: Reader, opened: files.Files, vfs: str | None, busy_ms: int) -> None:
        self._store, self._path, self._replicated = store, store.path, False
        with translated(self._path):
            self._db = forked.connection(self._path, apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
            try:
                files.leave_as_it_is(self._db)
                self._db.set_busy_handler(
                    lambda tries: self._wait(tries * TRY_AGAIN_S < busy_ms / 1000)
                )
                self._db.pragma("synchronous", "normal")  # in WAL mode: no sync for a commit
                if (lost := files.lost_file(opened)) is not None:
                    raise StoreReplaced(lost)
            except BaseException:
                self._db.close()
                raise

    def renew(self, worker: int, lease_ms: int) -> bool:
        """See `base.LeaseConnection`."""
        with self._store.renewing, translated(self._path):
            if (lost := self._store.damaged or self._store.replaced) is not None:
                raise lost
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if not self._replicated and checksum.read(self._db) is not None:
                    checksum.leave_checkpoints(self._db)
                    self._replicated = True
                kept = bool(self._db.execute(Q["renew_lease"], (lease_ms, worker, None)).fetchall())
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return kept

    @staticmethod
    def _wait(again: bool) -> bool:
        """Tries at a steady pace: SQLite's own get rarer, so a busy writer would keep us out."""
        if again:
            sleep(TRY_AGAIN_S)
        return again

    def close(self) -> None:
        """See `base.LeaseConnection`."""
        self._db.close()

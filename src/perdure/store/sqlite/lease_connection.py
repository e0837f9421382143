"""A connection that writes nothing but a worker's sign of life, for a thread beside the store's own
connections.

Rules: it never makes a file, and syncs only for a checkpoint: a sign of life is worth nothing after
a power cut; it leaves the checkpoints of a sealed file to Litestream, and those at the end to the
store; one thread uses and closes it, before the store is closed.
"""

from __future__ import annotations

from time import sleep

import apsw

from perdure.errors import StoreReplaced
from perdure.store.sqlite import checksum, connection
from perdure.store.sqlite.queries import Q
from perdure.store.sqlite.reader import Reader

LOOK_AGAIN_S = 0.002


class SqliteLeaseConnection:
    """`files` is what the store has open by path; `busy_ms` how long a beat waits for another
    writer.

    Raises `StoreReplaced` where the path names another file by now, and what SQLite fails with as
    Perdure's errors.
    """

    def __init__(
        self, store: Reader, files: connection.Files, vfs: str | None, busy_ms: int
    ) -> None:
        self._store, self._path, self._sealed = store, store.path, False
        with connection.translated(self._path):
            self._db = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
            try:
                connection.leave_as_it_is(self._db)
                self._db.set_busy_handler(
                    lambda tries: self._wait(tries * LOOK_AGAIN_S < busy_ms / 1000)
                )
                self._db.pragma("synchronous", "normal")  # in WAL mode: no sync for a commit
                if (lost := connection.lost_file(files)) is not None:
                    raise StoreReplaced(lost)
            except BaseException:
                self._db.close()
                raise

    def renew(self, worker: int, lease_ms: int) -> bool:
        """Extend a worker's lease to `lease_ms`; False if others have ended it."""
        with self._store.renewing, connection.translated(self._path):
            if (lost := self._store.damaged or self._store.replaced) is not None:
                raise lost
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if not self._sealed and checksum.read(self._db) is not None:
                    checksum.leave_checkpoints(self._db)
                    self._sealed = True
                kept = bool(self._db.execute(Q["renew_lease"], (lease_ms, worker, None)).fetchall())
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return kept

    @staticmethod
    def _wait(again: bool) -> bool:
        """SQLite's own waiting looks less and less often, so that a busy writer would keep us out
        for long.
        """
        if again:
            sleep(LOOK_AGAIN_S)
        return again

    def close(self) -> None:
        self._db.close()

"""A hold on the WAL: a read transaction that keeps it from beginning anew while no Litestream runs.

Rules: it is taken when Litestream has ended, and released after the first good sync of the next
one; all of it happens in one thread; it goes by SQLite's own locks, and never opens a file of the
store by itself, because closing that would drop the locks of this process.
"""

from __future__ import annotations

import contextlib

import apsw

from perdure.store import sql
from perdure.store.sqlite import connection, files, forked

Q = sql.load("verify.sql", "perdure.replica")


class WalHold:
    """A hold on the WAL of the store at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: apsw.Connection | None = None

    def take(self) -> bool:
        """Hold it, if possible.

        False: all that is in the WAL is in the database already, so it may have begun anew, or may
        at once. A frame that a reader needs stays in the WAL; a reader that needs none holds up no
        other.
        """
        self.release()
        try:
            self._db = self._connect()
            self._db.set_busy_timeout(connection.FOLD_MS)
            self._db.execute(Q["hold"]).fetchall()
            with contextlib.closing(self._connect()) as other:
                other.execute(Q["look"]).fetchall()  # else it does not know of the WAL
                frames, moved = other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        except apsw.Error:
            return True  # nothing is known; what Litestream reads next has to prove it
        return frames <= 0 or moved < frames

    def _connect(self) -> apsw.Connection:
        db = forked.connection(self._path, apsw.SQLITE_OPEN_READWRITE, vfs=None)
        files.leave_as_it_is(db)
        return db

    def release(self) -> None:
        """Let the WAL begin anew."""
        if self._db is not None:
            with contextlib.suppress(apsw.Error):
                self._db.close()
        self._db = None

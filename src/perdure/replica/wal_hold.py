"""A read transaction that keeps the WAL from beginning anew while no Litestream is there to do so.

Rules: it is taken when Litestream has ended and let go after the first good sync of the next one;
all of it happens in one thread; it goes by SQLite's own locks, and never opens a file of the store
by itself, because closing that would drop the locks of this process.
"""

from __future__ import annotations

import contextlib

import apsw

from perdure.store import sql
from perdure.store.sqlite import connection

Q = sql.load("verify.sql", "perdure.replica")


class Hold:
    """See the module's text."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: apsw.Connection | None = None

    def take(self) -> bool:
        """Hold it, if possible. False: all that is in the WAL is in the database already, so it may
        have begun anew, or may at once.

        A frame that a reader needs from the WAL stays there; a reader that needs none holds up
        nobody.
        """
        self.release()
        try:
            self._db = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READWRITE)
            connection.leave_as_it_is(self._db)
            self._db.set_busy_timeout(connection.FOLD_MS)
            self._db.execute(Q["hold"]).fetchall()
            with contextlib.closing(
                apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READWRITE)
            ) as other:
                connection.leave_as_it_is(other)
                other.execute(
                    Q["look"]
                ).fetchall()  # a connection that has read nothing does not know of the WAL
                frames, moved = other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        except apsw.Error:
            return True  # nothing is known; what Litestream reads next has to prove it
        return frames <= 0 or moved < frames

    def release(self) -> None:
        """Let the WAL go its way."""
        if self._db is not None:
            with contextlib.suppress(apsw.Error):
                self._db.close()
        self._db = None

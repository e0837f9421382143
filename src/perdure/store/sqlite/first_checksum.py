"""The first checksum of a file that has history, computed while others write.

Rules: all rows are read in a snapshot, which locks no writer out; what was committed meanwhile is
in runs that were open then, or are newer, because the history of an ended run never changes; only
the last read of those is in the transaction that stores the checksum; where runs were pruned
meanwhile, all is read anew.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import apsw

from perdure.errors import StoreUnavailable
from perdure.store.sqlite import checksum, connection, error_map
from perdure.store.sqlite.queries import Q

# while others keep writing; then the last one keeps them out, which it may, because there is little
# left to read
LOOKS_MAX = 5
KEY_MAX = (1 << 63) - 1


class FirstChecksum:
    """Computes the checksum of a file.

    `rows` is how many it has read. Another thread may set `stopped` to end it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.rows, self._digest, self.stopped = 0, 0, False
        self._swept = 0
        """Rows that had been pruned when the first one was read."""
        self._newest_run = -1
        self._open_ends = array(
            "q"
        )  # the last keys of the runs that may still grow; the run is the upper part of a key

    def put(self, store_id: str, address: str, epoch: int) -> None:
        """Give the file its checksum, unless it has one by then; blocks.

        Raises a `StoreError`; `StoreUnavailable` if stopped.
        """
        with (
            error_map.translated(self._path),
            closing(connection.open_reader(self._path)) as reader,
            closing(connection.open_writer(self._path, create=False)) as writer,
        ):
            for left in reversed(range(LOOKS_MAX)):
                version = self._catch_up(reader)
                writer.execute("BEGIN IMMEDIATE")
                try:
                    if reader.pragma("data_version") != version:
                        if left:
                            continue  # more was committed: read it while others may write
                        self._catch_up(reader)
                    if checksum.read(writer) is None:
                        writer.execute(Q["insert_checksum"], (store_id, address, epoch))
                        writer.execute(Q["set_checksum"], (self.rows, self._digest))
                        checksum.leave_checkpoints(writer)
                        writer.execute("COMMIT")
                    return
                finally:
                    if writer.in_transaction:
                        writer.execute("ROLLBACK")

    def _catch_up(self, db: apsw.Connection) -> int:
        """Add what was committed since the last call. Returns SQLite's version of what was read."""
        db.execute("BEGIN")
        try:
            version = int(db.pragma("data_version"))
            self._look_at_pruned(db)
            rows, digest = checksum.total(self._counted(self._new_rows(db)))
            self.rows, self._digest = rows + self._before, checksum.added(self._digest, digest)
            ((newest,),) = db.execute(Q["newest_run"])
            self._newest_run = newest or 0
            self._open_ends = array("q", (end for (end,) in db.execute(Q["open_ends"])))
        finally:
            db.execute("COMMIT")
        return version

    def _look_at_pruned(self, db: apsw.Connection) -> None:
        ((swept,),) = db.execute(Q["swept_rows"])
        if swept != self._swept:
            self._swept, self.rows, self._digest = swept, 0, 0
            self._newest_run, self._open_ends = -1, array("q")

    def _new_rows(self, db: apsw.Connection) -> Iterator[tuple[Any, ...]]:
        for end in self._open_ends:
            yield from db.execute(Q["history_of_run"], (end + 1, end | 0xFFFFFF))
        yield from db.execute(Q["history_of_run"], (self._newest_run + 1 << 24, KEY_MAX))

    def _counted(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        self._before = self.rows
        for row in rows:
            if self.stopped:
                raise StoreUnavailable(
                    self._path, "the engine ended while it read the history for the first copy"
                )
            self.rows += 1
            yield row

"""The checksum of a replicated file's history: how many rows it has, and the sum of their hashes.

Rules: the transaction that writes rows adds them to the checksum; a copy whose history does not
match its own checksum has holes, even where SQLite's integrity check finds none; a sum does not
depend on the order of rows, so a writer adds without reading, and takes off what it deletes;
Litestream alone checkpoints a replicated file (docs/adr/0012).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import apsw
import msgspec

from perdure.store.sqlite.queries import Q

_MASK = (1 << 62) - 1  # two of them still fit SQLite's integers


class HistoryChecksum(msgspec.Struct, frozen=True):
    """The record of a replicated file: its store, address and last epoch, and the checksum.

    `rows` counts all rows that were ever written, so that it never falls, and `pruned` those of
    them that have been deleted since. `digest` is of those that are there. `commits` counts
    transactions, except those that only renewed a lease.
    """

    store_id: str
    address: str
    epoch: int
    rows: int
    digest: int
    commits: int
    pruned: int = 0

    @property
    def rows_there(self) -> int:
        """How many rows the history has."""
        return self.rows - self.pruned


def digest(
    key: int,
    kind: str,
    at_ms: int,
    ref: int | None,
    name: str | None,
    data: Any,
    took_ms: int | None,
    edited: Any,
) -> int:
    """The hash of a row of history, 62 bits."""
    body = b"" if data is None else data.encode() if type(data) is str else data
    head = f"{key} {kind} {at_ms} {ref} {name} {took_ms} {1 if edited else 0} ".encode()
    return int.from_bytes(blake2b(head + body, digest_size=8).digest()) & _MASK


def total(rows: Iterable[tuple[Any, ...]]) -> tuple[int, int]:
    """The number of rows and the sum of their hashes; rows as `history_of_all` gives them."""
    count = sums = 0
    for row in rows:
        count, sums = count + 1, (sums + digest(*row)) & _MASK
    return count, sums


def added(digest: int, more: int) -> int:
    """The sum of two digests."""
    return (digest + more) & _MASK


def read(db: apsw.Connection) -> HistoryChecksum | None:
    """The checksum of a file; None where it is not replicated. Earlier schemas have none."""
    if not db.execute(Q["has_checksum"], can_cache=False).fetchone():
        return None
    row = db.execute(Q["read_checksum"], can_cache=False).fetchone()
    return None if row is None else HistoryChecksum(*row)


class Additions:
    """What one transaction adds to the checksum, and takes off it."""

    def __init__(self) -> None:
        self._rows = self._digest = self._pruned = 0

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows as `insert_event` takes them."""
        self._count(total((first | seq, *rest) for first, seq, *rest in rows))

    def add_run(self, db: apsw.Connection, run: int) -> None:
        """Add the rows of a run, which the database has copied."""
        self._count(total(db.execute(Q["history_of_run"], (run << 24, run << 24 | 0xFFFFFF))))

    def take_off(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Take off rows that were deleted, as `history_of_all` gives them. Returns their number."""
        pruned, digest = total(rows)
        self._pruned, self._digest = self._pruned + pruned, (self._digest - digest) & _MASK
        return pruned

    def _count(self, found: tuple[int, int]) -> None:
        self._rows, self._digest = self._rows + found[0], (self._digest + found[1]) & _MASK

    def write(self, db: apsw.Connection) -> None:
        """Write it, at the end of the transaction, and begin anew."""
        db.execute(Q["add_to_checksum"], (self._rows, self._digest, _MASK, self._pruned))
        self.forget()

    def forget(self) -> None:
        self._rows = self._digest = self._pruned = 0


def put(db: apsw.Connection, store_id: str, address: str, epoch: int) -> None:
    """Give a small file its checksum, or set the epoch and address of a replicated one.

    A large file gets its checksum from `FirstChecksum` before.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        known = read(db)
        if known is None:
            db.execute(Q["insert_checksum"], (store_id, address, epoch))
            db.execute(Q["set_checksum"], total(db.execute(Q["history_of_all"])))
        else:
            db.execute(Q["begin_epoch"], (store_id, address, epoch))
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    leave_checkpoints(db)


def leave_checkpoints(db: apsw.Connection) -> None:
    """Checkpoint on this connection neither now nor on closing.

    WAL frames that Litestream has not read would be in no copy.
    """
    db.pragma("wal_autocheckpoint", 0)
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

"""What a copy is worth: whether it is whole, whether another file has all that is in it, and how a file is set aside.

Rules: a copy is trusted only when SQLite finds it intact, its history gives its own seal, and it is not behind what was confirmed;
nothing here overwrites or deletes a store, it is renamed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import apsw

from perdure.errors import PerdureError, ReplicaDamaged
from perdure.store import connection, queries, sealing

Q = queries.load("copies.sql", "perdure.replica")
SIDES = ("", "-wal", "-shm")


def verified(copy: Path, where: str, rows_min: int = 0) -> sealing.Seal:
    """The seal of a whole copy. Raises `ReplicaDamaged` for one that has holes, is damaged or lacks what was confirmed."""
    try:
        db = connection.open_reader(str(copy))
    except PerdureError as error:
        raise ReplicaDamaged(where, str(error)) from error
    try:
        found = db.pragma("integrity_check")
        if found != "ok":
            raise ReplicaDamaged(where, f"SQLite finds it damaged: {' '.join(str(found).split())[:200]}")
        seal = sealing.read(db)
        if seal is None:
            raise ReplicaDamaged(where, "it is not of a file that Perdure replicates")
        rows, digest = sealing.total(db.execute(Q["history"]))
        if (rows, digest) != (seal.rows, seal.digest):
            raise ReplicaDamaged(
                where, f"it has holes: {rows:,} rows of history, and its seal is for {seal.rows:,}, or their content differs"
            )
        if seal.rows < rows_min:
            raise ReplicaDamaged(where, f"it lacks {rows_min - seal.rows:,} rows of history that were confirmed to be in it")
    except apsw.Error as error:
        raise ReplicaDamaged(where, f"it can't be read: {error}") from error
    finally:
        db.close()
    return seal


def missing_rows(local: str, copy: Path) -> int:
    """How many rows of a copy's history a local file lacks, or has with another content; 0: it is the same or newer."""
    db = connection.open_reader(local)
    try:
        db.execute(Q["attach"], (str(copy),))
        ((missing,),) = db.execute(Q["missing"])
        db.execute(Q["detach"])
        return int(missing)
    finally:
        db.close()


def set_aside(path: str, mark: str) -> str:
    """Rename a store with all that belongs to it, so that nothing stands at its path. Gives the new name."""
    to = f"{path}.{mark}"
    for n in range(2, 1_000):
        if not any(os.path.exists(to + side) for side in SIDES):
            break
        to = f"{path}.{mark}-{n}"
    for side in SIDES:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + side, to + side)
    return to


def put_in_place(copy: Path, path: str) -> None:
    """Make a verified copy the store at a path where nothing is."""
    db = apsw.Connection(str(copy))
    db.pragma("schema_version")  # a connection that has read nothing does not know of the WAL
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    with open(copy, "rb") as file:
        os.fsync(file.fileno())
    os.rename(copy, path)
    for side in SIDES[1:]:
        Path(str(copy) + side).unlink(missing_ok=True)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def differs(place: object, missing: int) -> ReplicaDamaged:
    """What to say of a copy that has rows which the live file has not."""
    return ReplicaDamaged(str(place), f"{missing:,} rows of its history are not those of the file that it was made from")


def lacks(place: object, transactions: int) -> ReplicaDamaged:
    """What to say of a copy that ends too early."""
    return ReplicaDamaged(str(place), f"it lacks the last {transactions:,} transactions that were confirmed to be in it")


def rename(copy: Path, to: Path) -> None:
    """Move a copy with what belongs to it."""
    for side in SIDES:
        with contextlib.suppress(FileNotFoundError):
            os.rename(str(copy) + side, str(to) + side)


def unsealed(copy: Path) -> None:
    """Make a copy a store of its own, in one file, which nobody takes for a replicated one."""
    db = apsw.Connection(str(copy))
    try:
        db.execute(Q["unseal"])
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        db.close()


def discard(copy: Path) -> None:
    """Remove a temporary copy."""
    for side in SIDES:
        Path(str(copy) + side).unlink(missing_ok=True)

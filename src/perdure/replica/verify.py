"""Verification of copies: whether one is whole, what a file lacks of it, how it becomes the store.

Rules: a copy is trusted only when SQLite finds it intact, its history gives its own checksum, and
it is not behind what was confirmed; nothing here overwrites or deletes a store, it is renamed;
SQLite takes a `-wal` beside a file for that file's, so none may be there.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import apsw

from perdure.errors import PerdureError, ReplicaDamaged, StoreUnavailable
from perdure.store import sql
from perdure.store.sqlite import checksum as checksums
from perdure.store.sqlite import connection, files, forked

Q = sql.load("verify.sql", "perdure.replica")
TEMPORARY = "tmp-"
"""How the names of temporary folders beside a store begin."""
SIDES = ("", "-wal", "-shm", "-journal")
"""What belongs to a store, by the end of its name.

SQLite reads those beside a file by their names, whatever file they were made for.
"""


def verified(copy: Path, where: str, rows_min: int = 0) -> checksums.HistoryChecksum:
    """The checksum of a whole copy.

    Raises `ReplicaDamaged` for one that has holes, is damaged or lacks what was confirmed.
    """
    try:
        db = connection.open_reader(str(copy))
    except PerdureError as error:
        raise ReplicaDamaged(where, str(error)) from error
    try:
        db.execute("BEGIN")  # one moment of it: a live file may be written meanwhile
        found = db.pragma("integrity_check")
        if found != "ok":
            finding = " ".join(str(found).split())[:200]
            raise ReplicaDamaged(where, f"SQLite finds it damaged: {finding}")
        checksum = checksums.read(db)
        if checksum is None:
            raise ReplicaDamaged(where, "it is not of a file that Perdure replicates")
        rows, digest = checksums.total(db.execute(Q["history"]))
        if (rows, digest) != (checksum.rows_there, checksum.digest):
            wanted = f"its checksum is for {checksum.rows_there:,}, or their content differs"
            raise ReplicaDamaged(where, f"it has holes: {rows:,} rows of history, and {wanted}")
        if checksum.rows < rows_min:
            lacking = f"it lacks {rows_min - checksum.rows:,} rows of history"
            raise ReplicaDamaged(where, f"{lacking} that were confirmed to be in it")
    except apsw.Error as error:
        raise ReplicaDamaged(where, f"it can't be read: {error}") from error
    finally:
        db.close()
    return checksum


def missing_rows(local: str, copy: Path) -> int:
    """How many rows of a copy's history a local file lacks, or has with another content.

    0: the file has the same history or a newer one. Rows of runs that the file has deleted since,
    because they ended long ago, are not missing.
    """
    db = connection.open_reader(local)
    try:
        db.execute(Q["attach"], (str(copy),))
        ((missing,),) = db.execute(Q["missing"])
        db.execute(Q["detach"])
        return int(missing)
    finally:
        db.close()


def lacks_of(local: str, copy: Path) -> str:
    """Why a local file can't be used instead of a copy that is not newer; "" if it can be.

    It lacks rows of the copy, or is no whole file: a main file and a `-wal` of different files look
    like one to SQLite, and only the checksum and the integrity check find that.
    """
    try:
        verified(Path(local), local)
        missing = missing_rows(local, copy)
    except ReplicaDamaged as error:
        return error.detail
    return f"it lacks {missing:,} rows of the replica's history, or has others" if missing else ""


def contents(store: Path) -> tuple[int, int]:
    """How many runs a store has, and when its last event was, in milliseconds UTC."""
    db = connection.open_reader(str(store))
    try:
        ((runs, last_ms),) = db.execute(Q["contents"])
        return runs, last_ms or 0
    finally:
        db.close()


def standing_at(path: str | os.PathLike[str]) -> list[str]:
    """The files that are there already, of all that would belong to a store at this path."""
    return [os.fspath(path) + side for side in SIDES if os.path.lexists(os.fspath(path) + side)]


def set_aside(path: str, mark: str) -> str:
    """Rename a store with all that belongs to it, so that nothing is at its path.

    Returns the new name. All files have their new names before the first one loses its old one: a
    machine that stops in between leaves a whole store.
    """
    to = f"{path}.{mark}"
    for n in range(2, 1_000):
        if not standing_at(to):
            break
        to = f"{path}.{mark}-{n}"
    linked = [side for side in SIDES if _link(path + side, to + side)]
    for side in SIDES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + side) if side in linked else os.rename(path + side, to + side)
    return to


def _link(path: str, to: str) -> bool:
    """Give a file a second name; False where there is no file, or the file system has no links."""
    try:
        os.link(path, to)
    except OSError:
        return False
    return True


def identity(path: str | os.PathLike[str]) -> files.Identity | None:
    """Which file a path names at this moment, if any."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def put_in_place(copy: Path, path: str, expected: files.Identity | None = None) -> None:
    """Make a verified copy the store at a path where nothing is.

    `expected` is the file that was verified. Raises `StoreUnavailable` if another file has come
    there, or to the copy's path; then nothing has changed.
    """
    if expected is not None and identity(copy) != expected:
        replaced = f"the restored file {str(copy)!r} was replaced after it had been verified"
        raise StoreUnavailable(path, replaced)
    db = forked.connection(str(copy), vfs=None)
    db.pragma("schema_version")  # a connection that has read nothing does not know of the WAL
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    files.sync(copy)
    if there := standing_at(path):
        taken = f"{there[0]!r} has come to where a restored file was to be put; try again"
        raise StoreUnavailable(path, taken)
    try:
        os.link(copy, path)  # unlike a rename it never replaces a file
    except FileExistsError:
        made = "another process has made a file there while it was being restored; try again"
        raise StoreUnavailable(path, made) from None
    except OSError:  # a file system without links
        os.rename(copy, path)
    discard(copy)
    files.sync(files.folder_of(path))


def differs(place: object, missing: int) -> ReplicaDamaged:
    """The error for a copy that has rows which the live file has not."""
    differ = f"{missing:,} rows of its history are not those of the file that it was made from"
    return ReplicaDamaged(str(place), differ)


def lacks(place: object, transactions: int) -> ReplicaDamaged:
    """The error for a copy that ends too early."""
    lacking = f"it lacks the last {transactions:,} transactions"
    return ReplicaDamaged(str(place), f"{lacking} that were confirmed to be in it")


def make_plain(copy: Path) -> None:
    """Make a copy a store of its own, in one file, that is not tied to the replica."""
    db = forked.connection(str(copy), vfs=None)
    try:
        db.execute(Q["make_plain"])
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        db.close()


def discard(copy: Path) -> None:
    """Remove a temporary copy."""
    for side in SIDES:
        Path(str(copy) + side).unlink(missing_ok=True)

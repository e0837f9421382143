"""The files of an SQLite store: the database, its WAL and its shared memory.

Rules: a file is known by device and number, whatever its path names by now; a file that is not
SQLite's, or that has lost its end, is refused before SQLite touches it; what another file needs is
never deleted by its name.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import apsw

from perdure.errors import StoreCorrupt, StoreReadOnly, StoreUnavailable

MEMORY = ":memory:"
Identity = tuple[int, int]
"""A file: its device, and its number there."""
Files = dict[str, Identity | None]
"""What a store has open, by path."""

_JOURNAL = bytes.fromhex("d9d505f920a163d7")


def folder_of(path: str) -> str:
    """The folder of a file, as an absolute path."""
    return os.path.dirname(os.path.abspath(path))


def size(path: str) -> int:
    """The bytes of a file; 0 where there is none, or it can't be looked at."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def sync(path: str | Path) -> None:
    """Return when a file, or the names in a folder, are on the disk. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- identity -------------------------------------------------------------------------------------


def files_of(path: str) -> Files:
    """The database, its WAL and its shared memory, by absolute paths: a process may change its
    folder.
    """
    if path == MEMORY:
        return {}
    path = os.path.abspath(path)
    return {name: _identity_of(name) for name in (path, path + "-wal", path + "-shm")}


def lost_file(files: Files) -> str | None:
    """The first of these paths that names no file or another file by now; None where none does."""
    for name, identity in files.items():
        if identity is not None and _is_another(name, identity):
            return name
    return None


def _identity_of(path: str) -> Identity | None:
    """None where there is no file. Raises other `OSError`s."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _is_another(path: str, identity: Identity | None) -> bool:
    """Whether a path names no file or another file; False where the system does not say."""
    try:
        return _identity_of(path) != identity
    except OSError:
        return False


# --- the WAL of a file that is left ---------------------------------------------------------------


def leave_as_it_is(connection: apsw.Connection) -> None:
    """Closing the connection will neither checkpoint the WAL nor delete it."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def abandon(connection: apsw.Connection, files: Files) -> None:
    """Checkpoint into our file, wherever it is now, and touch nothing by its name from then on.

    A file in our place would otherwise find a WAL and shared memory beside it that SQLite takes for
    its own; and closing would delete a WAL that may be the other file's.
    """
    leave_as_it_is(connection)
    with contextlib.suppress(apsw.Error):  # a last transaction is open: tried again on closing
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    path, _, shm = files
    if _is_another(path, files[path]) and not _is_another(shm, files[shm]):
        with contextlib.suppress(OSError):
            os.unlink(shm)


# --- before it is opened --------------------------------------------------------------------------


def check_header(path: str, vfs: str | None) -> None:
    """Raise `StoreCorrupt` for a file that is not SQLite's, or that has lost its end."""
    if path == MEMORY or _is_half_made(path):
        return
    if not _has_bytes(path):
        if _has_bytes(path + "-wal"):  # SQLite would delete it
            wal = path + "-wal"
            reason = f"it is missing or empty, but its {wal!r} is there and may hold what was "
            raise StoreCorrupt(path, reason + "recorded last")
        return
    header = _read_header(path, vfs)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\x00"):
        raise StoreCorrupt(path, "it is not an SQLite database")
    page_bytes = struct.unpack(">H", header[16:18])[0]
    expected = (65536 if page_bytes == 1 else page_bytes) * struct.unpack(">I", header[28:32])[0]
    size = os.path.getsize(path)
    if size < expected and not _has_bytes(path + "-wal"):
        raise StoreCorrupt(path, f"it is truncated: {size:,} of {expected:,} bytes are left")


def check_not_empty(path: str) -> None:
    """Raise `StoreUnavailable` for a file that no engine has made a store yet."""
    if os.path.isfile(path) and not _has_bytes(path) and not _has_bytes(path + "-wal"):
        raise StoreUnavailable(path, "it is empty; no engine has made it a store", opened=False)


def _has_bytes(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) > 0


def _is_half_made(path: str) -> bool:
    """Whether the power failed while the file was made: SQLite undoes that by its journal."""
    try:
        with open(path + "-journal", "rb") as file:
            return file.read(len(_JOURNAL)) == _JOURNAL
    except OSError:
        return False


def _read_header(path: str, vfs: str | None) -> bytes:
    """Read through SQLite: a plain open and close would drop the locks of this process."""
    flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
    try:
        file = apsw.VFSFile(vfs or "", os.path.abspath(path), flags)
    except apsw.Error as error:
        raise StoreReadOnly(path) from error
    try:
        return file.xRead(min(100, os.path.getsize(path)), 0)
    finally:
        file.xClose()

"""Single files, looked at as they are: a store on this machine, or a copy of one.

Rules: nothing is written, neither to the file nor beside it where that can be avoided: a file
without a WAL is opened as one that does not change, and opened again once a WAL is there; a WAL
that SQLite can't use where it lies is read from a copy in a temporary folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import apsw

from perdure.errors import StoreNotFound, StoreUnavailable
from perdure.observe import vfs
from perdure.replica.temporary_folders import TempFolder
from perdure.store.sqlite import connection, files, forked

COPY_BYTES_MAX = 1 << 30
State = tuple[int, int, int, bool]


def state_of(path: str) -> State:
    """What decides how a file is opened: which file it is, whether it has a WAL, and, where it has
    none, its size and time. Raises `StoreNotFound`.
    """
    try:
        about = os.stat(path)
    except OSError as error:
        raise StoreNotFound(path) from error
    has_wal = _has_wal(path)
    return about.st_dev, about.st_ino, 0 if has_wal else about.st_mtime_ns, has_wal


def _has_wal(path: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.getsize(f"{path}-wal") > 0
    return False


def _check_kind(path: str) -> None:
    """Raise `StoreUnavailable` for a folder, and for what reading could wait for without end."""
    if os.path.isdir(path):
        raise StoreUnavailable(path, "it is a folder; name a file in it", opened=False)
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreUnavailable(path, "it is a device, a pipe or a socket", opened=False)
    files.check_not_empty(path)


class File:
    """A file that is looked at; `close` removes what had to be copied."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.state = state_of(self.path)
        self._copy: TempFolder | None = None

    @property
    def changed(self) -> bool:
        """Whether it has to be opened anew."""
        return state_of(self.path) != self.state

    def connect(self) -> apsw.Connection:
        """A connection that can't write. Raises a `StoreError`."""
        _check_kind(self.path)
        files.check_header(self.path, None)
        return connection.open_foreign(self.path, self._open)

    def _open(self) -> apsw.Connection:
        if not self.state[3]:
            return _query_only(f"{self._uri(self.path)}?immutable=1")
        if self._copy is None:
            try:
                return _query_only(f"{self._uri(self.path)}?mode=ro")
            except (apsw.CantOpenError, apsw.ReadOnlyError):
                self._copy = self._copied()
        return _query_only(f"{self._uri(str(self._copy.path / 'copy.db'))}?mode=ro")

    def _copied(self) -> TempFolder:
        size = sum(os.path.getsize(self.path + side) for side in ("", "-wal"))
        if size > COPY_BYTES_MAX:
            why = "its WAL can't be read in a folder that can't be written; copy both elsewhere"
            raise StoreUnavailable(self.path, why, opened=False)
        folder = TempFolder()
        for side in ("", "-wal"):
            shutil.copyfile(self.path + side, folder.path / f"copy.db{side}")
        return folder

    @staticmethod
    def _uri(path: str) -> str:
        return Path(path).as_uri()

    def close(self) -> None:
        """Remove the copy, if there is one; behind the last connection."""
        if self._copy is not None:
            self._copy.remove()


def _query_only(uri: str) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    db = forked.connection(uri, flags, vfs=None)
    try:
        files.leave_as_it_is(db)
        db.pragma("query_only", 1)
        db.pragma("cache_size", -vfs.CACHE_KIB)
        db.pragma("user_version")  # the WAL is opened by a read
    except BaseException:
        db.close()
        raise
    return db

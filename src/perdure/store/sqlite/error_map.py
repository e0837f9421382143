"""SQLite's errors as Perdure's."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import apsw

from perdure.errors import (
    PerdureError,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)
from perdure.store.sqlite.files import folder_of

BUSY_MS = 10_000
"""How long a connection waits for another writer."""
_NO_ROOM = {errno.EDQUOT, errno.EFBIG, errno.ENOSPC}


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """A context in which SQLite's errors are raised as Perdure's."""
    try:
        yield
    except apsw.Error as error:
        raise error_for(error, path) from error


def error_for(error: apsw.Error, path: str, system: int = 0) -> PerdureError:
    """The Perdure error for an SQLite error; `system` is the operating system's number."""
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return StoreLocked(path, BUSY_MS)
        case apsw.FullError():
            return StoreFull(path)
        case apsw.IOError() if system in _NO_ROOM or _is_full(path):
            return StoreFull(path)
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            return StoreReadOnly(path)
        case apsw.CorruptError():
            return StoreCorrupt(path, f"it is damaged ({error})")
        case apsw.NotADBError():
            return StoreCorrupt(path, "it is not an SQLite database")
        case apsw.CantOpenError():
            return _cant_open(path)
        case _:
            return StoreUnavailable(path, str(error))


def _is_full(path: str) -> bool:
    try:
        return os.statvfs(folder_of(path)).f_bavail == 0
    except (AttributeError, OSError):  # Windows has no statvfs
        return False


def _cant_open(path: str) -> PerdureError:
    folder = folder_of(path)
    if not os.path.isdir(folder):
        reason = f"its folder {folder!r} does not exist; create it first"
        return StoreUnavailable(path, reason, opened=False)
    if os.path.isdir(path):
        return StoreUnavailable(path, "it is a folder; name a file in it", opened=False)
    if not os.access(folder, os.W_OK) or (os.path.exists(path) and not os.access(path, os.W_OK)):
        return StoreReadOnly(path)
    return StoreUnavailable(path, "look at its permissions", opened=False)

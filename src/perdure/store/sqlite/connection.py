"""Opens SQLite files the way Perdure needs them, and refuses what it must not touch.

Rules: apsw's SQLite only (docs/adr/0002); a file that is damaged, foreign or newer is refused
before anything is written to it; every SQLite error leaves here as one of our own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import struct
from collections.abc import Iterator
from time import monotonic, sleep

import apsw

from perdure.core.numbers import shown
from perdure.errors import (
    DefinitionError,
    PerdureError,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreNotFound,
    StoreReadOnly,
    StoreTooNew,
    StoreUnavailable,
)
from perdure.store import sql
from perdure.store.sqlite import checksum, forked
from perdure.store.sqlite.queries import PACKAGE, Q

APPLICATION_ID = 0x50657264  # "Perd"
SCHEMA_VERSION = 6
PAGE_BYTES = 4096
WAL_KEPT_BYTES_MAX = 64 * 1024 * 1024
BUSY_MS = 10_000
FOLD_MS = 1_000

_WRITE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
_MEMORY = ":memory:"
_JOURNAL = bytes.fromhex("d9d505f920a163d7")


def path_of(store: str | os.PathLike[str]) -> str:
    """The file behind a store's name: a path, or `sqlite:///path`. Raises `DefinitionError` for
    what names no file.
    """
    text = os.fspath(store) if isinstance(store, str | os.PathLike) else ""
    if not text or not isinstance(text, str) or "\0" in text:
        raise DefinitionError(
            f'store is the path of a file, such as "perdure.db", or ":memory:", not {shown(store)}.'
        )
    return text.removeprefix("sqlite:///") if text.startswith("sqlite:///") else text


def open_writer(path: str, *, create: bool = True, vfs: str | None = None) -> apsw.Connection:
    """The one connection that writes; makes the file and its tables, or brings them up to date.
    `vfs` is SQLite's file layer.
    """
    forked.check(path)
    if not create and not os.path.exists(path):
        raise StoreNotFound(path)
    with translated(path):
        _check_header(path, vfs)
        connection = apsw.Connection(path, flags=_WRITE, vfs=vfs)
        connection.set_busy_timeout(BUSY_MS)
        try:
            _check_identity(connection, path)
            _configure(connection)
            _migrate(connection, path)
            _leave_to_litestream(connection)
        except BaseException:
            _refuse(connection)
            raise
        return connection


def open_reader(path: str, *, vfs: str | None = None) -> apsw.Connection:
    """A connection for queries, which can't write. Raises `StoreNotFound` where no file is."""
    forked.check(path)
    if not os.path.exists(path):
        raise StoreNotFound(path)
    with translated(path):
        _check_header(path, vfs)
        connection = _open_query_only(path, vfs)
        try:
            _check_identity(connection, path)
            _leave_to_litestream(connection)
        except BaseException:
            _refuse(connection)
            raise
        return connection


def _leave_to_litestream(connection: apsw.Connection) -> None:
    if checksum.read(connection) is not None:
        checksum.leave_checkpoints(connection)


def fold_wal(path: str) -> None:
    """Put what is in the WAL into the file, as far as readers let us; only while no Litestream
    copies it.
    """
    with contextlib.closing(open_reader(path)) as db, contextlib.suppress(apsw.BusyError):
        db.set_busy_timeout(FOLD_MS)
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def detach(path: str) -> None:
    """Make a replicated file a plain one. Nobody may be copying it."""
    with contextlib.closing(open_writer(path, create=False)) as db:
        db.execute(Q["drop_checksum"])
    fold_wal(path)


def _refuse(connection: apsw.Connection) -> None:
    """Let go of a file that we can't use, and of what is left in its WAL, as they are."""
    leave_as_it_is(connection)
    connection.close()


def _open_query_only(path: str, vfs: str | None) -> apsw.Connection:
    """Read-write at the file system where that is allowed (a WAL needs its shared memory),
    query-only in SQL.
    """
    writable = os.access(path, os.W_OK) and os.access(_folder_of(path), os.W_OK)
    if writable:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    elif os.path.exists(path + "-wal"):
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
    else:
        from pathlib import Path  # slow to import, and this is rare

        uri = f"file:{Path(path).absolute().as_uri().removeprefix('file://')}?immutable=1"
        connection = apsw.Connection(
            uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs=vfs
        )
    connection.set_busy_timeout(BUSY_MS)
    connection.execute("PRAGMA query_only = 1")
    return connection


def connect(store: str | os.PathLike[str]) -> apsw.Connection:
    """A read-only connection to a store, for your own queries.

    It is an apsw connection, because two SQLite libraries must not open one file in the same
    process. The views `perdure_runs`, `perdure_steps`, `perdure_events`, `perdure_messages` and
    `perdure_streams` are made for people.
    Raises `StoreNotFound` where no file is, `StoreCorrupt` or `StoreTooNew` where it can't be read.

    >>> for run in connect("perdure.db").execute(
    ...     "SELECT id, status FROM perdure_runs"
    ... ):  # doctest: +SKIP
    ...     print(run)
    """
    return open_reader(path_of(store))


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """SQLite's errors as Perdure's."""
    try:
        yield
    except PerdureError:
        raise
    except apsw.Error as error:
        raise error_for(error, path) from error


_NO_ROOM = {errno.EDQUOT, errno.EFBIG, errno.ENOSPC}


def error_for(error: apsw.Error, path: str, system: int = 0) -> PerdureError:
    """The Perdure error that says what an SQLite error means for this store; `system` is the
    operating system's number.
    """
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
        return os.statvfs(_folder_of(path)).f_bavail == 0
    except (AttributeError, OSError):  # Windows has no statvfs
        return False


Identity = tuple[int, int]
"""A file, whatever it is called: its device, and its number there."""
Files = dict[str, Identity | None]
"""What a store has open, by path."""


def files_of(path: str) -> Files:
    """The database, its WAL and its shared memory, as their paths name them at this moment; the
    process may go elsewhere.
    """
    path = path if path == _MEMORY else os.path.abspath(path)
    return (
        {}
        if path == _MEMORY
        else {name: _identity_of(name) for name in (path, path + "-wal", path + "-shm")}
    )


def lost_file(files: Files) -> str | None:
    """The first of these paths that names no file or another one by now."""
    return next(
        (
            name
            for name, identity in files.items()
            if identity is not None and _is_another(name, identity)
        ),
        None,
    )


def _identity_of(path: str) -> Identity | None:
    """None where there is no file. Raises other `OSError`s where nobody can tell."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _is_another(path: str, identity: Identity | None) -> bool:
    """Whether the path names no file or another one; where nobody can tell, it does not."""
    try:
        return _identity_of(path) != identity
    except OSError:
        return False


def leave_as_it_is(connection: apsw.Connection) -> None:
    """Closing it will not put the WAL into the file, and will not delete it."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def abandon(connection: apsw.Connection, files: Files) -> None:
    """Put what is in our WAL into our file, wherever that is now, and from here on touch nothing by
    its name.

    Whoever has put a file in our place would else find a WAL and shared memory beside it that
    SQLite takes for its own; and to close would delete a WAL that may be the other file's.
    """
    leave_as_it_is(connection)
    with contextlib.suppress(
        apsw.Error
    ):  # busy with a last transaction: it is tried again when we close
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    path, _, shm = files
    if _is_another(path, files[path]) and not _is_another(shm, files[shm]):
        with contextlib.suppress(OSError):
            os.unlink(shm)


def _folder_of(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def _cant_open(path: str) -> PerdureError:
    folder = _folder_of(path)
    if not os.path.isdir(folder):
        return StoreUnavailable(
            path, f"its folder {folder!r} does not exist; create it first", opened=False
        )
    if os.path.isdir(path):
        return StoreUnavailable(path, "it is a folder; name a file in it", opened=False)
    if not os.access(folder, os.W_OK) or (os.path.exists(path) and not os.access(path, os.W_OK)):
        return StoreReadOnly(path)
    return StoreUnavailable(path, "look at its permissions", opened=False)


def _check_header(path: str, vfs: str | None) -> None:
    """Refuse what is not SQLite, and a file that has lost its tail, before SQLite gets
    to touch it.
    """
    if path == _MEMORY or _is_half_written(path):
        # where the power went while the file was made, SQLite puts it right, and says itself what
        # it can't read
        return
    if not _has_bytes(path):
        if _has_bytes(path + "-wal"):  # SQLite would delete it
            raise StoreCorrupt(
                path,
                (
                    f"it is missing or empty, but its {path + '-wal'!r} is there and may hold "
                    f"what was recorded last"
                ),
            )
        return
    header = _read_header(path, vfs)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\x00"):
        raise StoreCorrupt(path, "it is not an SQLite database")
    page_bytes = struct.unpack(">H", header[16:18])[0]
    expected = (65536 if page_bytes == 1 else page_bytes) * struct.unpack(">I", header[28:32])[0]
    if os.path.getsize(path) < expected and not _has_bytes(path + "-wal"):
        raise StoreCorrupt(
            path, f"it is truncated: {os.path.getsize(path):,} of {expected:,} bytes are left"
        )


def _has_bytes(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) > 0


def _is_half_written(path: str) -> bool:
    """Whether the machine died in a transaction without a WAL, as when the file was made: SQLite
    undoes it by its journal.
    """
    try:
        with open(path + "-journal", "rb") as file:
            return file.read(len(_JOURNAL)) == _JOURNAL
    except OSError:
        return False


def _read_header(path: str, vfs: str | None) -> bytes:
    """Through SQLite's file layer: a plain open and close would drop the locks that this process
    holds on the file.
    """
    flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
    try:
        file = apsw.VFSFile(vfs or "", os.path.abspath(path), flags)
    except apsw.Error as error:
        raise StoreReadOnly(path) from error
    try:
        return file.xRead(min(100, os.path.getsize(path)), 0)
    finally:
        file.xClose()


def _check_identity(connection: apsw.Connection, path: str) -> None:
    ours = not connection.in_transaction
    if ours:
        connection.execute(
            "BEGIN"
        )  # one look: another process may be making the file at this moment
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    tables = [name for (name,) in connection.execute(Q["foreign_tables"])]
    if ours:
        connection.execute(
            "COMMIT"
        )  # after an error the connection is closed: to end what it may have ended would hide it
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise StoreTooNew(path, version, SCHEMA_VERSION)
        return
    if application or version or tables:
        raise StoreCorrupt(
            path,
            f"it belongs to another program (it has {', '.join(tables) or 'a foreign header'})",
        )


def _configure(connection: apsw.Connection) -> None:
    connection.pragma("page_size", PAGE_BYTES)  # counts only before the first table, and before WAL
    _switch_to_wal(connection)
    connection.pragma("synchronous", "full")
    connection.pragma("fullfsync", True)
    connection.pragma("temp_store", "memory")
    connection.pragma("cache_size", -32_000)
    # The WAL is written over from its start after a checkpoint; it is cut only when something made
    # it huge.
    connection.pragma("journal_size_limit", WAL_KEPT_BYTES_MAX)


def _switch_to_wal(connection: apsw.Connection) -> None:
    """Where several processes make one file, SQLite says "busy" to this at once, whatever its
    timeout is: so we wait.
    """
    until_s = monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.pragma("journal_mode", "wal")
            return
        except apsw.BusyError:
            if monotonic() > until_s:
                raise
            sleep(0.005)


_WHOLE = re.compile(r"\{\{whole (\S+) of (\S+)\}\}")


def _expand(found: re.Match[str]) -> str:
    """`{{whole column of run}}` in a migration: the payload with its chunks joined."""
    return Q["whole"].replace("$column", found[1]).replace("$run", found[2])


def _migrate(connection: apsw.Connection, path: str) -> None:
    """Bring the file to our schema version, in one transaction."""
    if connection.pragma("user_version") == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _check_identity(connection, path)  # another process may have been faster
        for version in range(connection.pragma("user_version") + 1, SCHEMA_VERSION + 1):
            text = sql.text_of(f"migrations/{version:04}.sql", PACKAGE)
            connection.execute(_WHOLE.sub(_expand, text))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", SCHEMA_VERSION)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise

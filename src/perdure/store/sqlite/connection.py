"""Connections to SQLite files: opening, settings, migrations.

Rules: apsw's SQLite only (docs/adr/0002); a file that is damaged, foreign or newer is refused
before anything is written to it; SQLite's errors are raised as Perdure's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable
from time import monotonic, sleep

import apsw

from perdure.core.numbers import shown
from perdure.errors import (
    DefinitionError,
    StoreCorrupt,
    StoreNotFound,
    StoreReadOnly,
    StoreReplaced,
    StoreTooNew,
)
from perdure.store import sql
from perdure.store.sqlite import checksum, files, forked, new_file
from perdure.store.sqlite.error_map import BUSY_MS, translated
from perdure.store.sqlite.queries import PACKAGE, Q

APPLICATION_ID = 0x50657264  # "Perd"
SCHEMA_VERSION = 14
PAGE_BYTES = 4096
WAL_KEPT_BYTES_MAX = 64 * 1024 * 1024
FOLD_MS = 1_000
CACHE_SIZE = -32_000
"""KiB, which SQLite takes as needed."""
CACHE_PAGES_AT_REST = 4

_WRITE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


def path_of(store: str | os.PathLike[str]) -> str:
    """The file of a store, given as a path or as `sqlite:///path`; of a symbolic link the file that
    it names, because the WAL lies beside that. Raises `DefinitionError`.
    """
    text = os.fspath(store) if isinstance(store, str | os.PathLike) else ""
    if not text or not isinstance(text, str) or "\0" in text:
        raise DefinitionError(
            f'store is the path of a file, such as "perdure.db", or ":memory:", not {shown(store)}.'
        )
    path = text.removeprefix("sqlite:///")
    return os.path.realpath(path) if os.path.islink(path) else path


def open_writer(path: str, *, create: bool = True, vfs: str | None = None) -> apsw.Connection:
    """The connection that writes; makes the file and its tables, or migrates them.

    `vfs` names SQLite's file layer. Raises a `StoreError`.
    """
    forked.check(path)
    if not create and not os.path.exists(path):
        raise StoreNotFound(path)
    with translated(path):
        files.check_header(path, vfs)
        if not create:
            files.check_not_empty(path)
        if vfs is None:
            new_file.make(path, new_pages)
        connection = forked.connection(path, _WRITE, vfs=vfs)
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
    """A connection that can't write. Raises a `StoreError`; `StoreNotFound` where no file is."""
    forked.check(path)
    if not os.path.exists(path):
        raise StoreNotFound(path)
    with translated(path):
        files.check_header(path, vfs)
        files.check_not_empty(path)
        connection = _open_query_only(path, vfs)
        try:
            _check_identity(connection, path)
            _leave_to_litestream(connection)
        except (apsw.ReadOnlyError, apsw.CantOpenError) as error:
            _refuse(connection)
            if os.path.exists(path + "-wal") and not os.path.exists(path + "-shm"):
                raise StoreReadOnly(path, wal=True) from error
            raise
        except BaseException:
            _refuse(connection)
            raise
        return connection


def open_foreign(name: str, connect: Callable[[], apsw.Connection]) -> apsw.Connection:
    """A connection that `connect` opens over a file layer of its own, for a store called `name`
    that is only looked at. Raises what `connect` raises, `StoreCorrupt` or `StoreTooNew`.
    """
    with translated(name):
        connection = connect()
        try:
            connection.set_busy_timeout(BUSY_MS)
            _check_identity(connection, name)
        except BaseException:
            connection.close()
            raise
        return connection


def open_second(path: str, opened: files.Files, *, vfs: str | None = None) -> apsw.Connection:
    """Another connection for queries to a store that has these files open.

    Raises `StoreReplaced` where the path names another file by now.
    """
    with translated(path):
        connection = _open_query_only(path, vfs)
        try:
            if (lost := files.lost_file(opened)) is not None:
                raise StoreReplaced(lost)
            _leave_to_litestream(connection)
        except BaseException:
            _refuse(connection)
            raise
        return connection


def _leave_to_litestream(connection: apsw.Connection) -> None:
    if checksum.read(connection) is not None:
        checksum.leave_checkpoints(connection)


def fold_wal(path: str) -> None:
    """Checkpoint as far as readers allow it; only while no Litestream copies the file."""
    with contextlib.closing(open_reader(path)) as db, contextlib.suppress(apsw.BusyError):
        db.set_busy_timeout(FOLD_MS)
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def detach(path: str) -> None:
    """Make a replicated file a plain one; only while no Litestream copies it."""
    with contextlib.closing(open_writer(path, create=False)) as db:
        db.execute(Q["drop_checksum"])
    fold_wal(path)


def _refuse(connection: apsw.Connection) -> None:
    """Close a file that can't be used, and leave it and its WAL as they are."""
    files.leave_as_it_is(connection)
    connection.close()


def _open_query_only(path: str, vfs: str | None) -> apsw.Connection:
    """Query-only in SQL, but read-write for the system where it may: a WAL needs shared memory."""
    writable = os.access(path, os.W_OK) and os.access(files.folder_of(path), os.W_OK)
    if writable:
        connection = forked.connection(path, apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    elif os.path.exists(path + "-wal"):
        connection = forked.connection(path, apsw.SQLITE_OPEN_READONLY, vfs=vfs)
    else:
        from pathlib import Path  # slow to import, and this is rare

        uri = f"file:{Path(path).absolute().as_uri().removeprefix('file://')}?immutable=1"
        connection = forked.connection(
            uri, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs=vfs
        )
    connection.set_busy_timeout(BUSY_MS)
    connection.execute("PRAGMA query_only = 1")
    return connection


def connect(store: str | os.PathLike[str]) -> apsw.Connection:
    """A read-only connection to a store, for your own queries.

    It is an apsw connection, because two SQLite libraries must not open one file in the same
    process. The views `perdure_runs`, `perdure_steps`, `perdure_events`, `perdure_messages` and
    `perdure_streams` are made to be read.
    Raises `StoreNotFound` where no file is, `StoreCorrupt` or `StoreTooNew` where it can't be read.

    >>> for run in connect("perdure.db").execute(
    ...     "SELECT id, status FROM perdure_runs"
    ... ):  # doctest: +SKIP
    ...     print(run)
    """
    return open_reader(path_of(store))


def _check_identity(connection: apsw.Connection, path: str) -> None:
    ours = not connection.in_transaction
    if ours:
        connection.execute(
            "BEGIN", can_cache=False
        )  # another process may be making the file at this moment
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    tables = [name for (name,) in connection.execute(Q["foreign_tables"], can_cache=False)]
    if ours:
        connection.execute(
            "COMMIT", can_cache=False
        )  # not after an error: the connection is closed then
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise StoreTooNew(path, version, SCHEMA_VERSION)
        if version < 0:
            raise StoreCorrupt(path, f"it is damaged (its schema version is {version})")
        return
    if application or version or tables:
        raise StoreCorrupt(
            path,
            f"it belongs to another program (it has {', '.join(tables) or 'a foreign header'})",
        )


def _configure(connection: apsw.Connection) -> None:
    connection.pragma("page_size", PAGE_BYTES)  # counts only before the first table, and before WAL
    if not connection.pragma("page_count"):
        connection.pragma("auto_vacuum", "incremental")  # in a file that exists it would be a write
    _switch_to_wal(connection)
    connection.pragma("synchronous", "full")
    connection.pragma("fullfsync", True)
    connection.pragma("temp_store", "memory")
    connection.pragma("cache_size", CACHE_SIZE)
    # A checkpoint makes SQLite write the WAL over from its start; it is cut only when it is huge.
    connection.pragma("journal_size_limit", WAL_KEPT_BYTES_MAX)


def _switch_to_wal(connection: apsw.Connection) -> None:
    """SQLite does not wait here where several processes make one file, whatever its timeout is."""
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
    """Migrate the file to this schema version, in one transaction."""
    if connection.pragma("user_version") == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _check_identity(connection, path)  # another process may have been faster
        _bring_up_to_date(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _bring_up_to_date(connection: apsw.Connection) -> None:
    for version in range(connection.pragma("user_version") + 1, SCHEMA_VERSION + 1):
        text = _WHOLE.sub(_expand, sql.text_of(f"migrations/{version:04}.sql", PACKAGE))
        connection.execute(text, can_cache=False)
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", SCHEMA_VERSION)


def vacuum(path: str) -> int:
    """Write the whole file anew without its free pages, so that they can be given back in small
    parts from then on. Returns the bytes that it is shorter. Takes as much disk again, and no other
    process can write meanwhile.
    """
    with translated(path), contextlib.closing(open_writer(path, create=False)) as db:
        before = db.pragma("page_count")
        db.pragma("auto_vacuum", "incremental")
        db.execute("VACUUM")
        after = db.pragma("page_count")
    fold_wal(path)
    return (int(before) - int(after)) * PAGE_BYTES


@functools.cache
def new_pages() -> bytes:
    """The pages of a file without runs: the same pages for every store of a process."""
    with contextlib.closing(forked.connection(":memory:", vfs=None)) as db:
        db.pragma("page_size", PAGE_BYTES)
        db.pragma("auto_vacuum", "incremental")
        _bring_up_to_date(db)
        return new_file.in_wal_mode(db.serialize("main"))

"""A file with runs of another store, opened to be imported or shown as JSON.

Rules: the file is not written, nor is its WAL, and it is read as of one moment; one of an earlier
schema is copied, and the copy is migrated; what is foreign, newer or damaged is refused before
anything is read of it, and nothing that it has in its schema is executed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec

from perdure.errors import ImportRefused, StoreCorrupt, StoreNotFound, StoreUnavailable
from perdure.store import sql
from perdure.store.import_writes import JSON, PLAIN, PLAIN_TYPES, TABLES
from perdure.store.parcels import Head
from perdure.store.sqlite import connection, files, forked
from perdure.store.sqlite.error_map import translated
from perdure.store.sqlite.queries import PACKAGE
from perdure.store.sqlite.reader import Reader

Q = sql.load("export_file.sql", PACKAGE)
CHECKS_MAX = 1
VALUE_BYTES_MAX = 256 << 20
"""A text that is longer is not read: no store takes it."""
PAGES_AT_ONCE = 1_000
SQL_TABLES = {
    "request": "perdure_request", "message": "inbox", "exposed": "perdure_exposed_value",
    "secret": "perdure_secret",
}  # fmt: skip
"""The names of tables that have another one in an export."""
_OURS = msgspec.json.encode([SQL_TABLES.get(name, name) for name in TABLES]).decode()


def regular(path: str) -> str:
    """The file that a path names. Raises `ImportRefused`: a pipe could be read for ever."""
    real = os.path.realpath(path)
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        raise StoreNotFound(path) from None
    except OSError as error:
        raise ImportRefused(path, error.strerror or str(error)) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise ImportRefused(path, f"it is {kind}, not a file")
    return real


@contextlib.contextmanager
def opened(path: str) -> Iterator[ExportFile]:
    """The file. Raises a `StoreError`; `ImportRefused` where it is damaged."""
    with current(path) as file, _reading(file) as db:
        _check_schema(db, path)
        with translated(path):
            ((found,),) = db.execute(f"PRAGMA quick_check({CHECKS_MAX})").fetchall()
        if found != "ok":
            raise ImportRefused(path, f"it is damaged ({found})")
        source = ExportFile(db, path)
        if source.is_export and next(source.ask("orphans"))[0]:
            raise ImportRefused(path, "it has a history without its run")
        yield source


@contextlib.contextmanager
def _reading(path: str) -> Iterator[apsw.Connection]:
    """A connection that sees the file as of this moment, and leaves it as it is."""
    with contextlib.closing(connection.open_reader(path)) as db:
        files.leave_as_it_is(db)
        db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
        db.limit(apsw.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
        with translated(path):
            db.execute("BEGIN")
        yield db


def _check_schema(db: apsw.Connection, path: str) -> None:
    with translated(path):
        faults = db.execute(Q["faults_of_schema"], (_OURS,)).fetchall()
        computed = db.execute(Q["computed_columns"], (_OURS,)).fetchall()
    for name, fault in [*faults, *((name, "is computed") for (name,) in computed)]:
        raise ImportRefused(path, f"its {name!r} {fault}")


@contextlib.contextmanager
def current(path: str) -> Iterator[str]:
    """A file of this schema version with what the file at `path` has: itself, or a copy."""
    with contextlib.ExitStack() as stack:
        with _reading(path) as db:
            if db.pragma("user_version") == connection.SCHEMA_VERSION:
                file = path
            else:
                _check_schema(db, path)
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="perdure-"))
                file = os.path.join(folder, Path(path).name)
                _copy(db, file)
        if file != path:
            _migrate(file, path)
        yield file


def _migrate(copy: str, name: str) -> None:
    try:
        connection.open_writer(copy, create=False).close()
    except (apsw.Error, StoreUnavailable) as error:
        raise ImportRefused(name, f"its tables are not those of a store ({error})") from error


def _copy(db: apsw.Connection, path: str) -> None:
    """Copy a file by SQLite, which has its locks: a plain copy of one that is written has holes."""
    with (
        contextlib.closing(forked.connection(path, vfs=None)) as copy,
        copy.backup("main", db, "main") as backup,
    ):
        while not backup.done:
            backup.step(PAGES_AT_ONCE)


class ExportFile:
    """See `import_writes.RunSource`."""

    def __init__(self, db: apsw.Connection, name: str) -> None:
        self._db, self.name = db, name
        self._reader = Reader(db, name)
        self.is_export = next(self.ask("is_export"), None) is not None

    def heads(self) -> list[Head]:
        return [Head(*row) for row in self.ask("heads")]

    def rows_of(self, table: str, run: int) -> Iterator[tuple[Any, ...]]:
        return self.ask(table, run)

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """The rows of all runs in a table."""
        for head in self.heads():
            yield from self.rows_of(table, head.run)

    def ask(self, query: str, *bindings: Any) -> Iterator[tuple[Any, ...]]:
        """The rows of a query of `export_file.sql`."""
        try:
            with translated(self.name):
                yield from self._db.execute(Q[query], bindings)
        except UnicodeDecodeError as error:
            raise ImportRefused(self.name, "a text in it is not what was recorded") from error

    def check_payloads(self, table: str, row: tuple[Any, ...]) -> None:
        """What is stored and is not what was recorded makes a store damaged, and is refused."""
        columns = TABLES[table]
        run = row[_RUN_AT[table]]
        try:
            texts = [text for kind, text in zip(columns.values(), row, strict=True) if kind is JSON]
            for raw in self._reader.all_whole([(run, text) for text in texts]):
                msgspec.json.decode(raw or b"null")
            for (name, kind), text in zip(columns.items(), row, strict=True):
                if kind is PLAIN:
                    msgspec.json.decode(text or "null", type=PLAIN_TYPES[name])
        except (StoreCorrupt, msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            detail = f"a payload in {table!r} is not what was recorded"
            raise ImportRefused(self.name, detail) from error


_RUN_AT = {name: list(columns).index("run") for name, columns in TABLES.items()}

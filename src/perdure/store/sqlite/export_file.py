"""A file with runs of another store, opened to be imported or shown as JSON.

Rules: the file is not written, nor is its WAL: one of an earlier schema is copied, and the copy is
migrated; what is foreign, newer or damaged is refused before anything is read of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec

from perdure.errors import ImportRefused, StoreCorrupt
from perdure.store import sql
from perdure.store.import_writes import JSON, PLAIN, PLAIN_TYPES, TABLES
from perdure.store.sqlite import connection
from perdure.store.sqlite.error_map import translated
from perdure.store.sqlite.queries import PACKAGE
from perdure.store.sqlite.reader import Reader

Q = sql.load("export_file.sql", PACKAGE)
CHECKS_MAX = 1


@contextlib.contextmanager
def opened(path: str) -> Iterator[ExportFile]:
    """The file. Raises a `StoreError`; `ImportRefused` where it is damaged."""
    with current(path) as file, contextlib.closing(connection.open_reader(file)) as db:
        with translated(path):
            ((found,),) = db.execute(f"PRAGMA quick_check({CHECKS_MAX})").fetchall()
        if found != "ok":
            raise ImportRefused(path, f"it is damaged ({found})")
        source = ExportFile(db, path)
        _check_tables(source)
        _check_payloads(source, Reader(db, path))
        yield source


def _check_tables(source: ExportFile) -> None:
    """A view in the place of a table could be read for ever, by the thread that writes."""
    if odd := [name for (name,) in source.ask("no_tables")]:
        raise ImportRefused(source.name, f"its {odd[0]!r} is no table")


def _check_payloads(source: ExportFile, reader: Reader) -> None:
    """What is stored and is not what was recorded makes a store damaged, and it is refused then."""
    for table, columns in TABLES.items():
        names = list(columns)
        payloads = [names.index(name) for name in names if columns[name] is JSON]
        plain = [names.index(name) for name in names if columns[name] is PLAIN]
        for row in source.rows(table) if payloads else ():
            run = row[names.index("run")]
            try:
                for raw in reader.all_whole([(run, row[at]) for at in payloads]):
                    msgspec.json.decode(raw or b"null")
                for at in plain:
                    msgspec.json.decode(row[at] or "null", type=PLAIN_TYPES[names[at]])
            except (StoreCorrupt, msgspec.MsgspecError, TypeError, ValueError) as error:
                detail = f"a payload in {table!r} is not what was recorded"
                raise ImportRefused(source.name, detail) from error


@contextlib.contextmanager
def current(path: str) -> Iterator[str]:
    """A file of this schema version with what the file at `path` has: itself, or a copy."""
    with contextlib.closing(connection.open_reader(path)) as db:
        version = db.pragma("user_version")
    if version == connection.SCHEMA_VERSION:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
        copy = os.path.join(folder, Path(path).name)
        for end in ("", "-wal"):
            if os.path.exists(path + end):
                shutil.copyfile(path + end, copy + end)
        connection.open_writer(copy, create=False).close()
        yield copy


class ExportFile:
    """See `import_writes.RunSource`."""

    def __init__(self, db: apsw.Connection, name: str) -> None:
        self._db, self.name = db, name

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        return self.ask(table)

    def ask(self, query: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a query of `carried.sql`."""
        with translated(self.name):
            yield from self._db.execute(Q[query])

    def without_secrets(self) -> set[int]:
        with translated(self.name):
            return {run for (run,) in self._db.execute(Q["without_secrets"])}

    def without_children(self) -> list[str]:
        with translated(self.name):
            return [run_id for (run_id,) in self._db.execute(Q["without_children"])]

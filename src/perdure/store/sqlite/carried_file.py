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

from perdure.errors import ImportRefused
from perdure.store import sql
from perdure.store.sqlite import connection
from perdure.store.sqlite.error_map import translated
from perdure.store.sqlite.queries import PACKAGE

Q = sql.load("carried.sql", PACKAGE)
CHECKS_MAX = 1


@contextlib.contextmanager
def opened(path: str) -> Iterator[CarriedFile]:
    """The file. Raises a `StoreError`; `ImportRefused` where it is damaged."""
    with current(path) as file, contextlib.closing(connection.open_reader(file)) as db:
        with translated(path):
            ((found,),) = db.execute(f"PRAGMA quick_check({CHECKS_MAX})").fetchall()
        if found != "ok":
            raise ImportRefused(path, f"it is damaged ({found})")
        yield CarriedFile(db, path)


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


class CarriedFile:
    """See `import_writes.RunSource`."""

    def __init__(self, db: apsw.Connection, name: str) -> None:
        self._db, self.name = db, name

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        with translated(self.name):
            yield from self._db.execute(Q[table])

    def without_secrets(self) -> set[int]:
        with translated(self.name):
            return {run for (run,) in self._db.execute(Q["without_secrets"])}

    def without_children(self) -> list[str]:
        with translated(self.name):
            return [run_id for (run_id,) in self._db.execute(Q["without_children"])]

"""Exports and imports: runs in a file of their own, and back into a store.

Rules: the store that is exported is only read; a file appears under its name whole, or not at all,
and replaces none; secrets stay where they are unless they are asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from perdure.errors import ExportRefused, ImportRefused
from perdure.store.export_json import ExportJson, document
from perdure.store.import_writes import RunSource
from perdure.store.sqlite import connection, export_file, files
from perdure.store.sqlite.export import exporting
from perdure.store.sqlite.reader import Reader

DRAFT = ".perdure-export-"
SUFFIXES = (".db", ".json")


class Exported(msgspec.Struct, frozen=True):
    """A file that was written: its path, how many runs it has, its size in bytes."""

    path: str
    runs: int
    bytes: int


class Imported(msgspec.Struct, frozen=True):
    """What was imported: the ids of the runs, and how many of them have not ended."""

    ids: list[str]
    open: int


def export(store: str, runs: Sequence[int], path: str, *, family: bool, secrets: bool) -> Exported:
    """Write runs of a store to a new file, by their keys. For a thread of its own.

    Raises `ExportRefused`, and other `StoreError`s.
    """
    check(store, path, secrets=secrets)
    try:
        with tempfile.TemporaryDirectory(prefix=DRAFT, dir=files.folder_of(path)) as folder:
            draft = os.path.join(folder, "runs.db")
            with export_file.current(store) as source, exporting(source, draft) as out:
                copied = out.add_runs(runs, family=family, secrets=secrets)
                out.close()
            if path.endswith(".json"):
                draft = _as_json(draft, folder)
            size_bytes = os.path.getsize(draft)
            os.link(draft, path)
    except FileExistsError:
        raise ExportRefused(path, "there is a file of this name") from None
    except OSError as error:
        raise ExportRefused(path, error.strerror or str(error)) from error
    return Exported(path, copied, size_bytes)


def check(store: str, path: str, *, secrets: bool) -> None:
    """Raise `ExportRefused` where it is clear that the file can't be written."""
    if store == files.MEMORY:
        raise ExportRefused(path, "the store is in memory, and only files are copied from")
    if not path.endswith(SUFFIXES):
        raise ExportRefused(path, "its name ends neither with .db nor with .json")
    if secrets and path.endswith(".json"):
        raise ExportRefused(path, "secrets are kept in a .db file only")
    if os.path.lexists(path):
        raise ExportRefused(path, "there is a file of this name")
    if not os.path.isdir(files.folder_of(path)):
        raise ExportRefused(path, os.strerror(errno.ENOENT))


def _as_json(draft: str, folder: str) -> str:
    with contextlib.closing(connection.open_reader(draft)) as db:
        reader = Reader(db, draft)
        source = export_file.ExportFile(db, draft)
        made = document(source.rows, reader.all_whole, connection.SCHEMA_VERSION)
    to = os.path.join(folder, "runs.json")
    with open(to, "wb") as file:
        file.write(made)
        file.flush()
        os.fsync(file.fileno())
    return to


@contextlib.contextmanager
def opened(path: str) -> Iterator[RunSource]:
    """The runs of a file that an export has made. Raises `ImportRefused`, other `StoreError`s."""
    if path.endswith(".json"):
        try:
            raw = Path(path).read_bytes()
        except OSError as error:
            raise ImportRefused(path, error.strerror or str(error)) from error
        yield ExportJson(raw, path, connection.SCHEMA_VERSION)
    else:
        with export_file.opened(path) as found:
            yield found

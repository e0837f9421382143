"""Exports and imports: runs in a file of their own, and back into a store.

Rules: the store that is exported is only read; a file appears under its name whole, or not at all,
and replaces none; secrets stay where they are unless they are asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from perdure.errors import ExportRefused, ImportRefused
from perdure.store.export_json import ExportJson, document
from perdure.store.import_plan import Survey, chosen, families_of, fault_of_runs, parcels
from perdure.store.import_writes import RunSource
from perdure.store.parcels import Head, Parcel
from perdure.store.sqlite import connection, export_file, files
from perdure.store.sqlite.export import exporting
from perdure.store.sqlite.reader import Reader

DRAFT = ".perdure-export-"
SUFFIXES = (".db", ".json")
JSON_BYTES_MAX = 256 << 20
"""Text is read whole; more of it is for files of the other kind."""
NO_EXPORT = (
    "it is a store, and no export has chosen its runs: name those that are wanted "
    "(perdure import FILE --run ID), or export them (perdure export ID... --store FILE -o NEW.db)"
)


class Exported(msgspec.Struct, frozen=True):
    """A file that was written: its path, how many runs it has, its size in bytes."""

    path: str
    runs: int
    bytes: int


class Imported(msgspec.Struct, frozen=True):
    """What was imported: the ids of the runs, and how many of them have not ended. `already` are
    the ids of those that were here before, and were left as they are.
    """

    ids: list[str]
    open: int
    already: list[str] = []


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
                draft = _as_json(draft, folder, path)
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


def _as_json(draft: str, folder: str, path: str) -> str:
    with contextlib.closing(connection.open_reader(draft)) as db:
        reader = Reader(db, draft)
        source = export_file.ExportFile(db, draft)
        made = document(source.rows, reader.all_whole, connection.SCHEMA_VERSION)
    if len(made) > JSON_BYTES_MAX:
        limit = f"{len(made):,} bytes of text; the limit is {JSON_BYTES_MAX:,}"
        raise ExportRefused(path, f"it would have {limit}: export the runs as .db")
    to = os.path.join(folder, "runs.json")
    with open(to, "wb") as file:
        file.write(made)
        file.flush()
        os.fsync(file.fileno())
    return to


class Source:
    """The runs of a file, for one thread: checked when it is opened, then given in parcels.

    `runs` are ids: those with their families are taken, else all, if an export has made the file.
    """

    def __init__(self, path: str, store: str, runs: Iterable[str] | None, *, go_on: bool) -> None:
        self.name, self._stack = path, contextlib.ExitStack()
        self.go_on = go_on
        self.without: frozenset[int] = frozenset()
        try:
            self._source = self._stack.enter_context(_opened(path, store))
            self.families = self._checked(runs)
        except BaseException:
            self._stack.close()
            raise
        self._parcels = parcels(self._source, self.families)

    def _checked(self, runs: Iterable[str] | None) -> list[list[Head]]:
        """The families that are wanted, looked at in full. Raises `ImportRefused`."""
        if runs is None and not self._source.is_export:
            raise ImportRefused(self.name, NO_EXPORT)
        heads = self._source.heads()
        fault = fault_of_runs(heads)
        families, missing = chosen(families_of(heads), runs)
        if fault is None and missing is not None:
            fault = f"it has no run {missing!r}"
        if fault is None:
            survey = Survey(self._source, [head for family in families for head in family])
            self.without = frozenset(survey.without_secrets)
            fault = survey.fault_of_going_on() if self.go_on else None
        if fault is not None:
            raise ImportRefused(self.name, fault)
        return families

    def next(self) -> Parcel | None:
        """The next families with all their rows; None at the end."""
        return next(self._parcels, None)

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def _opened(path: str, store: str) -> Iterator[RunSource]:
    """The runs of a file. Raises `ImportRefused`, other `StoreError`s."""
    real = export_file.regular(path)
    if store != files.MEMORY and os.path.exists(store) and os.path.samefile(real, store):
        raise ImportRefused(path, "it is the store itself")
    if path.endswith(".json"):
        yield ExportJson(_text(path, real), path, connection.SCHEMA_VERSION)
    else:
        with export_file.opened(real) as found:
            yield found


def _text(path: str, real: str) -> bytes:
    try:
        with open(real, "rb") as file:
            raw = file.read(JSON_BYTES_MAX + 1)
    except OSError as error:
        raise ImportRefused(path, error.strerror or str(error)) from error
    if len(raw) > JSON_BYTES_MAX:
        detail = f"it has more than {JSON_BYTES_MAX >> 20} MiB of text: export the runs as .db"
        raise ImportRefused(path, detail)
    return raw

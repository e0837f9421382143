"""Archives of runs: where a file goes that has the runs of one day, in a folder or a bucket.

Rules: a file appears under its name whole and durable, or not at all; a name is given once, so that
no file replaces another, whatever other processes write there; files that a killed process has left
half made are removed by the next one; every failure is an `ArchiveUnavailable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from perdure.errors import ArchiveUnavailable, BadArchiveAddress, BadReplicaAddress, StoreError
from perdure.replica.address import Address, parse
from perdure.replica.temporary_folders import TempFolder, sweep
from perdure.store.sqlite import files

if TYPE_CHECKING:
    from perdure.replica.s3_bucket import S3Bucket

T = TypeVar("T")

DAY_MS = 86_400_000
TEMPORARY = ".perdure-archive-"
DRAFT = "copy.db"
REQUEST_S = 60.0
NO_LIBRARY = "a bucket needs one more library: pip install 'perdure[replica]'"


class Archive(Protocol):
    """A place for files with runs."""

    where: str
    drafts: Path
    """The folder in which files are made, on the disk that they need space on."""

    async def check(self) -> None:
        """Write nothing, and raise `ArchiveUnavailable` where it is clear that nothing can be."""

    async def publish(self, draft: Path, name: str) -> str:
        """Make a file durable under a name that begins with `name`. Returns the whole name."""


def address_of(text: str) -> Address:
    """The address of an archive. Raises `BadArchiveAddress`."""
    try:
        return parse(text)
    except BadReplicaAddress as error:
        detail = str(error).partition(" can't be used: ")[2].partition(". Right ones")[0]
        raise BadArchiveAddress(
            "(not shown)" if "credentials" in detail else text, detail
        ) from None


def open_archive(text: str, store: str) -> Archive:
    """The archive at an address, for a store at a path."""
    address = address_of(text)
    if address.folder is not None:
        return FolderArchive(address.folder)
    return BucketArchive(address, Path(store).absolute().parent)


def day_of(at_ms: int) -> str:
    """The day of a time, UTC.

    >>> day_of(1_764_374_400_000)
    '2025-11-29'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")


def name_of(store: str, day: str) -> str:
    """How the name of a file begins that has the runs of a store that ended on a day.

    >>> name_of("/data/agents.db", "2026-11-29")
    'agents-2026-11-29'
    """
    return f"{Path(store).stem}-{day}"


def draft_folder(archive: Archive) -> TempFolder:
    """A folder for a file that is being made; those of killed processes are removed."""
    try:
        _make_folder(archive.drafts)
        sweep(archive.drafts, TEMPORARY)
        return TempFolder(archive.drafts, TEMPORARY)
    except OSError as error:
        raise ArchiveUnavailable(archive.where, _text_of(error)) from error


def discard(draft: Path) -> None:
    """Remove a file that was made, with what SQLite keeps beside it."""
    for side in ("", "-wal", "-shm"):
        Path(f"{draft}{side}").unlink(missing_ok=True)


def guarded(archive: Archive, work: Callable[[], T]) -> T:
    """What `work` gives. Raises `ArchiveUnavailable` where the disk of the draft fails it."""
    try:
        return work()
    except OSError as error:
        raise ArchiveUnavailable(archive.where, _text_of(error)) from error
    except StoreError as error:
        if isinstance(error, ArchiveUnavailable):
            raise
        raise ArchiveUnavailable(archive.where, str(error)) from error


class FolderArchive:
    """See `Archive`."""

    def __init__(self, folder: str) -> None:
        self.where, self._folder = f"file://{folder}", Path(folder)
        self.drafts = self._folder

    async def check(self) -> None:
        there = next(one for one in (self._folder, *self._folder.parents) if one.exists())
        if not there.is_dir():
            raise ArchiveUnavailable(self.where, f"Not a directory: {there}")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ArchiveUnavailable(self.where, f"Permission denied: {there}")

    async def publish(self, draft: Path, name: str) -> str:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "perdure-archive") as thread:  # the default one may be full
            return await loop.run_in_executor(thread, self._publish, draft, name)

    def _publish(self, draft: Path, name: str) -> str:
        try:
            for found in _names(name):
                try:
                    _place(draft, self._folder / found)
                except FileExistsError:
                    continue
                files.sync(self._folder)
                return found
        except OSError as error:
            raise ArchiveUnavailable(self.where, _text_of(error)) from error
        raise AssertionError


class BucketArchive:
    """See `Archive`. A name is taken by an empty object, on a condition, before the file is sent:
    so two processes never send to one name.
    """

    def __init__(self, address: Address, drafts: Path) -> None:
        self.where, self.drafts, self._address = str(address), drafts, address

    async def check(self) -> None:
        from perdure.errors import BucketUnusable

        with self._opened() as bucket:
            try:
                await bucket.get(f"{TEMPORARY}check")
            except BucketUnusable as error:
                if "AccessDenied" not in str(error):  # who may only write is told that, too
                    raise

    async def publish(self, draft: Path, name: str) -> str:
        with self._opened() as bucket:
            for found in _names(name):
                if await bucket.put_new(found, b"") is not None:
                    await bucket.put_file(found, draft)
                    return found
        raise AssertionError

    @contextlib.contextmanager
    def _opened(self) -> Iterator[S3Bucket]:
        """The bucket; its errors are raised as `ArchiveUnavailable`."""
        from perdure.replica.s3_bucket import S3Bucket

        try:
            yield S3Bucket(self._address, timeout_s=REQUEST_S)
        except ImportError as error:
            raise ArchiveUnavailable(self.where, NO_LIBRARY) from error
        except StoreError as error:
            detail = getattr(error, "detail", "") or str(error)
            raise ArchiveUnavailable(self.where, detail) from error


def _names(name: str) -> Iterator[str]:
    """Names to try: of the first file of a day, and of more parts of it."""
    yield f"{name}.db"
    yield from (f"{name}.{part}.db" for part in count(2))


def _text_of(error: OSError) -> str:
    return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)


def _place(draft: Path, path: Path) -> None:
    """Give a file another name. Raises `FileExistsError` where there is one of that name."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        if path.exists():  # a file system without links
            raise FileExistsError from error
        os.rename(draft, path)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, as durable as the files that will be in it."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        files.sync(one.parent)

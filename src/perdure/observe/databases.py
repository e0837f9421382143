"""Databases at some places, listed by their summaries, and opened on demand.

Rules: nothing is written and no lease is taken; a database is opened when it is asked for, at most
`OPENED_MAX` are open, and one that nobody asks for is closed after `IDLE_S`; its pages are read
where they lie, and only where that fails a verified copy is restored to a temporary folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

import apsw
import msgspec

from perdure.errors import (
    DatabaseNotFound,
    PerdureError,
    ReplicaDamaged,
    ReplicaEmpty,
    SeveralDatabases,
    StoreCorrupt,
    StoreNotFound,
)
from perdure.observe import files, vfs
from perdure.observe.blocks import Blocks
from perdure.observe.catalogue import Catalogue, Entry
from perdure.observe.objects import Objects, open_objects
from perdure.observe.pages import Pages
from perdure.process.threads import in_thread
from perdure.reader import StoreReader
from perdure.reader.values import RunQuery
from perdure.replica import restore, summary
from perdure.replica.address import Address, parse
from perdure.replica.summary import Summary, name_of
from perdure.replica.temporary_folders import TempFolder
from perdure.runtime.info import RunSummary
from perdure.store import sql
from perdure.store.sqlite import connection
from perdure.store.sqlite.error_map import translated
from perdure.store.sqlite.reader import Reader
from perdure.views.format import count

log = logging.getLogger("perdure")
Q = sql.load("observe.sql", "perdure.observe")

OPENED_MAX, IDLE_S = 32, 600.0
LOOK_S = 4.0
"""The age at which a listing is made again, when it is asked for."""
FOUND_MAX = 20
"""How many runs of one database a search gives."""


class Opened:
    """A database that is open. `used_s` is when it was last asked for; `about` says in a sentence
    how it is read and how old that is.
    """

    def __init__(
        self, name: str, reader: StoreReader, how: str, pages: Pages | None = None,
        file: files.File | None = None, copy: TempFolder | None = None,
    ) -> None:  # fmt: skip
        self.name, self.reader, self.used_s = name, reader, time.monotonic()
        self.pages, self.file = pages, file
        self._how, self._copy = how, copy
        self._users = 0

    @property
    def about(self) -> str:
        """How it is read, and how old that is."""
        version = None if self.pages is None else self.pages.known
        if self.pages is None or version is None:
            return self._how
        at = datetime.fromtimestamp(version.newest.at_ms / 1000, UTC)
        state = f"{self._how} Transaction {version.txid:,}, of {at:%Y-%m-%d %H:%M:%S} UTC."
        if self.pages.behind:
            state += f" {count(self.pages.behind, 'newer one')} will be read next."
        if self.pages.failing is not None:
            state += f" What is newer can't be read now: {self.pages.failing}"
        return state

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """A context in which it is not closed for being idle: an answer may take long."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self.used_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """For how long nothing was asked of it."""
        return 0.0 if self._users else time.monotonic() - self.used_s

    @property
    def outdated(self) -> bool:
        """Whether it has to be opened anew."""
        try:
            return self.file is not None and self.file.changed
        except StoreNotFound:
            return True

    def close(self) -> None:
        self.reader.close()
        if self.file is not None:
            self.file.close()
        if self._copy is not None:
            self._copy.remove()


class Place:
    """An address with databases below it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.objects: Objects = open_objects(address)
        self.blocks = Blocks(self.objects)
        self.catalogue = Catalogue(self.objects, name_of(address) or address.bucket)
        self.problem: PerdureError | None = None

    def refresh(self) -> list[Entry]:
        try:
            found = self.catalogue.refresh()
            self.problem = None
        except PerdureError as error:
            self.problem = error
            if not self.catalogue.looked_ms:
                raise
            found = self.catalogue.entries()
        return found

    def pages(self, entry: Entry) -> Pages:
        return Pages(self.objects, entry.folder, self.blocks)


class Databases:
    """Databases at `targets`: paths of files, `s3://bucket/prefix` and `file:///folder`.

    Raises `BadReplicaAddress`, `StoreNotFound`, and `BucketUnusable` where the library for buckets
    is not installed.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        self.targets = list(targets)
        self._places = [Place(parse(one)) for one in targets if is_address(one)]
        paths = [os.path.abspath(one) for one in targets if not is_address(one)]
        self._files = _named(paths)
        for path in paths:
            files.state_of(path)
        self._counted: list[Entry] = []
        self._opened: dict[str, Opened] = {}
        self._opening: dict[str, asyncio.Task[Opened]] = {}
        self._refreshing = asyncio.Lock()
        self._listed_s: float | None = None
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what is open, and what is being opened."""
        tasks = [*self._opening.values(), *([self._closing] if self._closing else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        opened, self._opened = list(self._opened.values()), {}
        for one in opened:
            await in_thread(one.close)

    # --- the list ---------------------------------------------------------------------------------

    async def entries(self) -> list[Entry]:
        """All databases, as they were listed at most `LOOK_S` ago.

        Raises what the first list fails with; later ones leave the old list, and `problems`.
        """
        async with self._refreshing:
            now_s = time.monotonic()
            if self._listed_s is None or now_s >= self._listed_s + LOOK_S:
                await asyncio.gather(*[in_thread(place.refresh) for place in self._places])
                self._counted = await in_thread(_entries_of, self._files)
                self._listed_s = time.monotonic()
        found = [entry for place in self._places for entry in place.catalogue.entries()]
        return [*self._counted, *found]

    @property
    def problems(self) -> list[str]:
        """Why a list is older than it should be, and what was left off."""
        failed = [str(place.problem) for place in self._places if place.problem is not None]
        return failed + [
            f"{place.address} has more folders than were looked into; name one of them."
            for place in self._places
            if place.catalogue.truncated
        ]

    @property
    def listed_ago_s(self) -> float:
        """How old the list is."""
        return 0.0 if self._listed_s is None else time.monotonic() - self._listed_s

    @property
    def requests(self) -> dict[str, int]:
        """Requests to buckets and folders so far, by method."""
        return {
            method: sum(place.objects.counts[method] for place in self._places)
            for method in ("GET", "LIST")
        }

    # --- single databases -------------------------------------------------------------------------

    @property
    def opened(self) -> list[Opened]:
        """Those that are open."""
        return list(self._opened.values())

    async def open(self, name: str) -> Opened:
        """A database, open. Raises `DatabaseNotFound`, and what it can't be read for."""
        found = self._opened.get(name)
        if found is None or found.outdated:
            opening = self._opening.get(name)
            if opening is None:
                opening = self._opening[name] = asyncio.create_task(self._open_anew(name))
                opening.add_done_callback(partial(self._has_opened, name))
            found = await asyncio.shield(opening)  # others may wait for it, too
        found.used_s = time.monotonic()
        return found

    def _has_opened(self, name: str, opening: asyncio.Task[Opened]) -> None:
        del self._opening[name]
        if not opening.cancelled():
            opening.exception()  # raised to those that wait, if any are left

    async def _open_anew(self, name: str) -> Opened:
        if (old := self._opened.pop(name, None)) is not None:
            await in_thread(old.close)
        found = await self._open(name)
        await self._make_room(OPENED_MAX - 1)
        self._opened[name] = found
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_idle(), name="perdure-observe")
        return found

    async def only(self) -> Opened:
        """The only database that there is, open. Raises `ReplicaEmpty`, `SeveralDatabases`."""
        found = await self.entries()
        if not found:
            raise ReplicaEmpty(self.targets[0])
        if len(found) > 1:
            raise SeveralDatabases(self.targets[0], [one.name for one in found])
        return await self.open(found[0].name)

    async def _open(self, name: str) -> Opened:
        if (path := self._files.get(name)) is not None:
            return await in_thread(_open_file, name, path)
        for place in self._places:
            if (entry := place.catalogue.find(name)) is None:
                await self.entries()
                entry = place.catalogue.find(name)
            if entry is not None:
                return await _open_replica(place, entry)
        raise DatabaseNotFound(name, ", ".join(self.targets))

    async def _make_room(self, most: int) -> None:
        by_use = sorted(self._opened.values(), key=lambda one: -one.idle_s)
        for one in by_use[: max(0, len(by_use) - most)]:
            await in_thread(self._opened.pop(one.name).close)

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(IDLE_S / 10)
            for one in self.opened:
                if one.idle_s >= IDLE_S and self._opened.get(one.name) is one:
                    await in_thread(self._opened.pop(one.name).close)

    # --- search -----------------------------------------------------------------------------------

    async def search(self, text: str) -> list[Found]:
        """Runs with this text in their id, tags or error, in every database that is open."""
        return list(await asyncio.gather(*[_found(one, text) for one in self.opened]))


class Found(msgspec.Struct):
    """What a search has found in one database, or why it could not be searched. `searched` is how
    many runs were looked at, where not all were.
    """

    name: str
    runs: list[RunSummary] = []
    searched: int | None = None
    problem: str = ""


async def _found(opened: Opened, text: str) -> Found:
    try:
        page = await opened.reader.runs(RunQuery(text=text, limit=FOUND_MAX))
    except PerdureError as error:
        return Found(opened.name, problem=str(error))
    return Found(opened.name, page.runs, page.searched)


def is_address(text: str) -> bool:
    """Whether a text names a bucket or a folder of replicas, and not a file; so it does with a
    scheme that nobody knows, which `parse` refuses.

    >>> is_address("ftp://host/agents"), is_address("agents.db")
    (True, False)
    """
    return "://" in text


def _named(paths: Sequence[str]) -> dict[str, str]:
    """Names for files: their last part, or the whole path where two have the same one."""
    last = [Path(path).name for path in paths]
    return {
        name if last.count(name) == 1 else path: path
        for name, path in zip(last, paths, strict=True)
    }


def _entries_of(paths: dict[str, str]) -> list[Entry]:
    """What can be said of files without a page of theirs."""
    return [_entry_of(name, path) for name, path in paths.items()]


def _entry_of(name: str, path: str) -> Entry:
    """A file with its counts, or with why it has none. Bounded, however many runs are in it."""
    entry = Entry(name, path, 0, is_file=True)
    try:
        about = os.stat(path)
        entry.seen_ms, entry.size_bytes = about.st_mtime_ns // 1_000_000, about.st_size
        found = Summary(name, entry.seen_ms, "", 0, 0, 0, 0, about.st_size, "file")
        file = files.File(path)
        with contextlib.closing(file), contextlib.closing(file.connect()) as db, translated(path):
            summary.count(db, found)
            if not found.more and sum(found.counts.values()) <= summary.COUNT_MAX:
                Reader(db, path).check_runs()  # damage is not always met by counting
        entry.summary = found
    except OSError as error:
        entry.problem = f"{path} can't be read: {error.strerror or error}"
    except PerdureError as error:
        early = isinstance(error.__cause__, apsw.SQLError)  # it opens all the same
        entry.problem = "" if early else str(error)
    return entry


def _open_file(name: str, path: str) -> Opened:
    file = files.File(path)
    file.connect().close()
    about = f"Read-only, from the file {path} as it is."
    return Opened(name, StoreReader(path, file.connect), about, file=file)


async def _open_replica(place: Place, entry: Entry) -> Opened:
    pages = place.pages(entry)
    connect: Callable[[], apsw.Connection] = partial(
        connection.open_foreign, pages.where, partial(vfs.connect, pages)
    )
    reader = StoreReader(pages.where, connect)
    try:
        await in_thread(_warm, pages, connect)
    except (ReplicaDamaged, StoreCorrupt) as error:
        await in_thread(reader.close)
        return await _restored(place, entry, error)
    except BaseException:
        await in_thread(reader.close)
        raise
    about = "Read-only, from the replica, which is followed."
    return Opened(entry.name, reader, about, pages)


def _warm(pages: Pages, connect: Callable[[], apsw.Connection]) -> None:
    """Look whether it can be read, and read ahead. Raises what it can't be read for."""
    with contextlib.closing(connect()) as db, translated(pages.where):
        pages.warm([root for (root,) in db.execute(Q["roots"])])


async def _restored(place: Place, entry: Entry, error: PerdureError) -> Opened:
    """A verified copy, where pages can't be read. Raises `error` where there is none either."""
    address = place.address.child(entry.folder) if entry.folder else place.address
    log.warning("%s can't be read page by page, so a copy is restored: %s", address, error)
    folder = TempFolder()
    try:
        await restore.fetch(address, folder.path / "copy.db")
    except PerdureError as failure:
        folder.remove()
        log.warning("%s", failure)
        raise error from failure
    except BaseException:
        folder.remove()
        raise
    path = str(folder.path / "copy.db")
    about = "Read-only, from a restored copy, which does not follow what is written since."
    return Opened(entry.name, StoreReader(path), about, copy=folder)

"""Pages of a replicated database, read from Litestream's files where they lie.

Rules: a version never changes, so that a reader sees one state from beginning to end; a look for a
newer one is taken when a reader begins, and not more often than every `FOLLOW_S`; while the bucket
does not answer, what is known stays readable. Nothing is written, and no lease is taken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from perdure.errors import PerdureError, ReplicaDamaged, ReplicaEmpty, ReplicaUnreadable
from perdure.observe import chain, ltx
from perdure.observe.blocks import BLOCK_BYTES, Blocks
from perdure.observe.chain import File
from perdure.observe.objects import Gone, Objects
from perdure.replica.epochs import folder_of
from perdure.replica.lease import NAME as LEASE
from perdure.replica.lease_rules import LeaseRow

FOLLOW_S = 2.0
LAYERS_MAX = 400
"""How many files a state is read from; of an engine that writes faster than Litestream merges, an
older state is shown.
"""
ADDED_MAX = 400
"""How many new files are read at one look."""
MERGED_S = 30.0
"""How often Litestream merges files, so that a state can be read from fewer of them."""
THREADS = 16
INDEX_BYTES_MAX = 64 * 1024 * 1024
TAIL_BYTES_MIN = 4_096
TAIL_SHARE = 80
"""A page index takes less than this part of its file, nearly always."""
TRIES = 3
SMALL_BYTES = 4 * 1024 * 1024
ROOTS_MAX, DEPTH_MAX = 100, 4
_INTERIOR = (2, 5)
"""Kinds of SQLite's pages that have children: of an index, and of a table."""


class Layer(msgspec.Struct, frozen=True):
    """A file, and where its pages are."""

    file: File
    header: ltx.Header
    index: dict[int, ltx.Place]


_NONE: Mapping[str, Layer] = {}


class Version(msgspec.Struct, frozen=True):
    """A state of a database: the newest layer first. `number` grows with every newer one."""

    number: int
    epoch: int
    layers: tuple[Layer, ...]

    @property
    def newest(self) -> ltx.Header:
        return self.layers[0].header

    @property
    def txid(self) -> int:
        return self.newest.last

    def find(self, page: int) -> tuple[File, ltx.Place] | None:
        """The newest frame of a page."""
        for layer in self.layers:
            if (place := layer.index.get(page)) is not None:
                return layer.file, place
        return None


class Pages:
    """Pages of the replica in a folder of `objects` ("" for their own address).

    `lease` is the lease as it was last seen; `failing` is the error of the last look, if it failed.
    """

    def __init__(
        self,
        objects: Objects,
        folder: str,
        blocks: Blocks,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects, self._blocks, self._clock_s = objects, blocks, clock_s
        self._folder = folder
        self.where = f"{objects.where.partition('?')[0]}/{folder}" if folder else objects.where
        self._lock = threading.Lock()
        self._levels: dict[int, str] = {}
        self._version: Version | None = None
        self._looked_s = self._loaded_s = 0.0
        self.lease = LeaseRow()
        self.failing: PerdureError | None = None

    @property
    def behind(self) -> int:
        """How many transactions of the replica are newer than what was read, at the last look."""
        return 0 if self._version is None else max(0, self.lease.txid - self._version.txid)

    @property
    def known(self) -> Version | None:
        """The newest version that was read, without a look."""
        return self._version

    # --- versions ---------------------------------------------------------------------------------

    def current(self) -> Version:
        """The newest version as far as it is known, after a look if the last one is too long ago.

        Raises `ReplicaEmpty`, `ReplicaDamaged`, `ReplicaUnreadable`, `BucketUnusable` where none
        is known yet.
        """
        with self._lock:
            if self._version is not None and self._clock_s() < self._looked_s + FOLLOW_S:
                return self._version
            try:
                self._version = self._newer(self._version)
                self.failing = None
            except PerdureError as error:
                self.failing = error
                if self._version is None:
                    raise
            self._looked_s = self._clock_s()
            return self._version

    def _newer(self, known: Version | None) -> Version:
        """What is there now."""
        self.lease = lease = self._read_lease()
        if lease.base is None:
            raise ReplicaEmpty(self.where)
        if known is None or known.epoch != lease.base:
            return self._load(lease.base, known)
        if len(known.layers) > LAYERS_MAX and self._clock_s() >= self._loaded_s + MERGED_S:
            merged = self._load(lease.base, known)
            known = merged if merged.txid >= known.txid else known
        if lease.txid <= known.txid:
            return known
        try:
            added = chain.files_of(self._objects, self._levels, 0, known.txid)
            followed = _following(added, known.txid)
            if chain.reach(followed) < lease.txid:  # merged already
                return self._load(lease.base, known)
            layers = (*reversed(self._layers(followed[:ADDED_MAX])), *known.layers)
        except Gone:
            return self._load(lease.base, known)
        return Version(known.number + 1, known.epoch, layers)

    def _read_lease(self) -> LeaseRow:
        found = self._objects.get(self._name(LEASE))
        if found is None:
            raise ReplicaEmpty(self.where)
        try:
            return msgspec.json.decode(found.data, type=LeaseRow)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ReplicaDamaged.lease(self.where, str(error)) from error

    def _load(self, epoch: int, known: Version | None) -> Version:
        number, self._loaded_s = known.number + 1 if known else 1, self._clock_s()
        return Version(number, epoch, self._layers_of(epoch, None, known))

    def _layers_of(self, epoch: int, upto: int | None, known: Version | None) -> tuple[Layer, ...]:
        """The newest first. Files may be merged and removed between the list and the read."""
        have = {layer.file.name: layer for layer in known.layers} if known else {}
        for _ in range(TRIES):
            self._levels = chain.levels_below(self._objects, self._name(folder_of(epoch)))
            files = chain.choose(chain.files_below(self._objects, self._levels), upto)
            if not files or (upto is not None and chain.reach(files) != upto):
                break
            if upto is None and (missing := self.lease.txid - chain.reach(files)) > 0:
                lacking = f"it lacks the last {missing:,} transactions"
                raise ReplicaDamaged(self.where, f"{lacking} that were confirmed to be in it")
            try:
                few = files if upto is not None else _affordable(files, have)
                return tuple(reversed(self._layers(few, have)))
            except Gone:
                continue
        else:
            raise ReplicaUnreadable(self.where, "its files change while they are read")
        if upto is not None:
            merged = f"what transaction {upto} was made of is merged with newer ones; try again"
            raise ReplicaUnreadable(self.where, merged)
        raise ReplicaDamaged(self.where, f"epoch {epoch} has no whole copy")

    def _layers(self, files: list[File], have: Mapping[str, Layer] = _NONE) -> list[Layer]:
        """Read the indexes of those that were not read yet, side by side."""
        unread = [one for one in files if one.name not in have]
        ends = [self._tail(one) for one in unread]
        ends += [(one, 0, ltx.HEADER_BYTES) for one in unread if one.size > BLOCK_BYTES]
        with ThreadPoolExecutor(THREADS, "perdure-observe") as threads:
            list(threads.map(lambda end: self._read(*end), ends))
        return [have.get(one.name) or self._layer(one) for one in files]  # from the cache

    def _tail(self, file: File) -> tuple[File, int, int]:
        size = min(file.size, max(TAIL_BYTES_MIN, file.size // TAIL_SHARE))
        return file, file.size - size, file.size

    def _layer(self, file: File) -> Layer:
        try:
            header = ltx.header(self._read(file, 0, min(file.size, ltx.HEADER_BYTES)))
            tail = self._read(*self._tail(file))
            length = ltx.index_bytes(tail)
            end = file.size - ltx.TAIL_BYTES
            if length > min(INDEX_BYTES_MAX, end - ltx.HEADER_BYTES):
                raise ltx.BadFile(f"its page index is said to have {length:,} bytes")
            index = ltx.page_index(self._read(file, end - length, end), file.size)
            if (header.first, header.last) != (file.first, file.last):
                raise ltx.BadFile(f"it holds transactions {header.first} to {header.last}")
        except ltx.BadFile as error:
            raise ReplicaDamaged(self.where, f"{file.name}: {error}") from error
        return Layer(file, header, index)

    # --- pages ------------------------------------------------------------------------------------

    def page(self, version: Version, number: int) -> bytes:
        """A page as it is in that version. Raises `ReplicaDamaged`, `ReplicaUnreadable`."""
        try:
            return self._page(version, number)
        except Gone:
            version = self._found_again(version)
        try:
            return self._page(version, number)
        except Gone:
            raise ReplicaUnreadable(self.where, "its files change while they are read") from None

    def _page(self, version: Version, number: int) -> bytes:
        page_bytes = version.newest.page_bytes
        found = version.find(number)
        if found is None:
            if number == (1 << 30) // page_bytes + 1:
                return bytes(page_bytes)  # SQLite locks there and writes nothing
            raise ReplicaDamaged(self.where, f"page {number} is in none of its files")
        file, place = found
        frame = self._read(file, place.offset, place.offset + place.size)
        try:
            return ltx.page(frame, number, page_bytes)
        except ltx.BadFile as error:
            raise ReplicaDamaged(self.where, f"{file.name}: {error}") from error

    def _found_again(self, version: Version) -> Version:
        """The same state in the files that are there now."""
        layers = self._layers_of(version.epoch, version.txid, None)
        again = Version(version.number, version.epoch, layers)
        with self._lock:
            if self._version is not None and self._version.number == version.number:
                self._version = again
        return again

    def warm(self, roots: Iterable[int]) -> None:
        """Read ahead, side by side, what the first queries will ask for: all of a small database;
        else the way from these roots of trees to their first and to their last rows.
        """
        version = self.current()
        files = [layer.file for layer in version.layers]
        with ThreadPoolExecutor(THREADS, "perdure-observe") as threads:
            if sum(file.size for file in files) <= SMALL_BYTES:
                parts = [(one, at) for one in files for at in range(0, one.size, BLOCK_BYTES)]
                list(threads.map(lambda part: self._read(part[0], part[1], part[1] + 1), parts))
                return
            level = list(roots)[:ROOTS_MAX]
            for _ in range(DEPTH_MAX):
                read = list(threads.map(lambda number: self.page(version, number), level))
                level = sorted({n for data in read for n in children(data)} - set(level))

    def _read(self, file: File, start: int, end: int) -> bytes:
        return self._blocks.read(file.name, file.size, start, end)

    def _name(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name


def _affordable(files: list[File], have: Mapping[str, Layer]) -> list[File]:
    """The beginning of a chain, with at most `LAYERS_MAX` files that were not read yet."""
    few, unread = [], 0
    for file in files:
        unread += file.name not in have
        if unread > LAYERS_MAX:
            break
        few.append(file)
    return few


def _following(files: list[File], txid: int) -> list[File]:
    """Those that follow that transaction without a gap."""
    followed: list[File] = []
    for file in sorted(files, key=lambda one: one.first):
        if file.first != txid + 1:
            break
        followed.append(file)
        txid = file.last
    return followed


def children(page: bytes) -> list[int]:
    """The first and the last child of a page of a tree; none of a leaf."""
    if page[0] not in _INTERIOR or not int.from_bytes(page[3:5]):
        return []
    cell = int.from_bytes(page[12:14])
    return [int.from_bytes(page[cell : cell + 4]), int.from_bytes(page[8:12])]

"""Catalogue: the databases that lie below an address, by their summaries.

Rules: one list of a folder of summaries shows which of them changed, and only those are read again;
folders without one are looked into, a few levels deep; a database without a summary is known by its
lease. Nothing is opened or restored for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from perdure.errors import BucketUnusable
from perdure.observe.objects import Objects, Read
from perdure.replica import summary as summaries
from perdure.replica.bucket import Found
from perdure.replica.lease import NAME as LEASE
from perdure.replica.lease_rules import LeaseRow
from perdure.replica.summary import AT_REST_S, BYTES_MAX, FOLDER, Summary

THREADS = 64
DEPTH_MAX = 4
DATABASES_MAX, LOOKS_MAX = 20_000, 2_000
FOLDERS_S = 60.0
"""How often folders are looked into for databases that were not there before."""
SIZE_MAX = 16 * BYTES_MAX
SILENT_S = 2.5 * AT_REST_S
_OF_A_REPLICA = {"taken", ".perdure-probe"}


class Entry(msgspec.Struct):
    """A database. `folder` is its replica's below the address, "" for the address itself; `name` is
    what it is called. `seen_ms` is when its summary, or else its lease, was written, by the
    bucket's clock; `problem` says why its summary can't be read. For a file `folder` is its path,
    and `seen_ms` and `size_bytes` are its own.
    """

    name: str
    folder: str
    seen_ms: int
    summary: Summary | None = None
    lease: LeaseRow | None = None
    problem: str = ""
    size_bytes: int | None = None
    is_file: bool = False

    def state(self, now_ms: int) -> str:
        """`ended`, `silent` where its engine should have written again, or the replica's state; for
        a file `file` or `unreadable`.

        >>> Entry("a", "a", 0).state(1_000)
        'unknown'
        """
        if self.is_file:
            return "unreadable" if self.problem else "file"
        if self.summary is None:
            return "unknown" if self.lease is None else _state_of(self.lease, self.seen_ms, now_ms)
        if self.summary.ended:
            return "ended"
        return "silent" if now_ms > self.seen_ms + SILENT_S * 1000 else self.summary.state


def _state_of(lease: LeaseRow, seen_ms: int, now_ms: int) -> str:
    if lease.holder is None:
        return "ended"
    if now_ms > seen_ms + lease.ttl_ms + SILENT_S * 1000:
        return "silent"
    return str(lease.notes.get("state", "unknown"))


class _Known(msgspec.Struct):
    """The object that a database is known by, as it was when it was read."""

    found: Found
    entry: Entry


class _Folder(msgspec.Struct):
    """What a look into a folder has found: whether it is a replica, the summaries of those in it by
    their folders, and other folders to look into.
    """

    is_replica: bool
    summaries: dict[str, Found] | None
    below: list[str]


class Catalogue:
    """The databases below one address. `looked_ms` is when they were last looked for; `truncated`
    says that there may be more, deeper or beyond the limit.
    """

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects, self._name = objects, name
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._summary_folders: list[str] = []
        self._single: list[str] = []
        self._searched_s: float | None = None
        self.looked_ms = 0
        self.truncated = False

    def entries(self) -> list[Entry]:
        """Those that are known, by name."""
        known = dict(self._known)
        return [known[folder].entry for folder in sorted(known)]

    def find(self, name: str) -> Entry | None:
        """The database of that name."""
        known = self._known.get("" if name == self._name else name) or self._known.get(name)
        return None if known is None else known.entry

    def refresh(self, clock_s: Callable[[], float] = time.monotonic) -> list[Entry]:
        """Look again. Costs a list, and a read for each summary that changed.

        Raises `BucketUnusable` where the bucket is missing or forbids it, `ReplicaUnavailable`.
        """
        with self._lock, ThreadPoolExecutor(THREADS, "perdure-observe") as threads:
            if self._searched_s is None or clock_s() >= self._searched_s + FOLDERS_S:
                self._search(threads)
                self._searched_s = clock_s()
            else:
                self._look_at_summaries(threads)
            self._read_single(threads)
            self.looked_ms = time.time_ns() // 1_000_000
        return self.entries()

    def _look_at_summaries(self, threads: ThreadPoolExecutor) -> None:
        """Those of databases that are known, also of young ones that had none so far."""
        beside = [_joined(one.rpartition("/")[0], FOLDER) for one in self._single if one]
        folders = dict.fromkeys([*self._summary_folders, *beside])
        listed = dict(zip(folders, threads.map(self._objects.names, folders), strict=True))
        self._summary_folders = [folder for folder in folders if listed[folder]]
        found = {_folder_of(one): one for each in listed.values() for one in each}
        self._read(threads, {f: one for f, one in found.items() if f in self._known})
        self._single = [folder for folder in self._single if folder not in found]

    # --- where they are ---------------------------------------------------------------------------

    def _search(self, threads: ThreadPoolExecutor) -> None:
        """Look into folders, level by level, for replicas and folders of summaries."""
        there: dict[str, Found] = {}
        replicas: list[str] = []
        self._summary_folders, below = [], [""]
        for _ in range(DEPTH_MAX):
            level, below = below, []
            for folder, looked in zip(level, threads.map(self._look, level), strict=True):
                below += looked.below
                if looked.is_replica:
                    replicas.append(folder)
                if looked.summaries is not None:
                    self._summary_folders.append(_joined(folder, FOLDER))
                    there |= looked.summaries
            if not below or len(below) > LOOKS_MAX or len(there) + len(replicas) > DATABASES_MAX:
                break
        self.truncated = bool(below)
        self._single = [folder for folder in replicas if folder not in there]
        kept = {*there, *replicas}
        self._known = {folder: one for folder, one in self._known.items() if folder in kept}
        self._read(threads, there)

    def _look(self, folder: str) -> _Folder:
        folders, is_replica = self._level(folder)
        listed: dict[str, Found] | None = None
        if FOLDER in folders:
            found = self._objects.names(_joined(folder, FOLDER))
            listed = {_folder_of(one): one for one in found}
            there = {_joined(folder, one) for one in folders}  # a summary may be left alone
            listed = {replica: one for replica, one in listed.items() if replica in there}
        below = [
            _joined(folder, one)
            for one in folders
            if not one.startswith(".") and not (is_replica and _is_of_replica(one))
        ]
        return _Folder(is_replica, listed, [one for one in below if one not in (listed or ())])

    def _level(self, folder: str) -> tuple[list[str], bool]:
        """The folders in a folder, and whether it is a replica."""
        try:
            folders, objects = self._objects.level(folder)
        except BucketUnusable:
            if folder or self._objects.get(LEASE) is None:
                raise
            return [], True  # lists are refused, but this one database may be read
        names = {one.name.rpartition("/")[2] for one in objects}
        return folders, bool(names & {summaries.NAME, LEASE})

    # --- what they say ----------------------------------------------------------------------------

    def _read(self, threads: ThreadPoolExecutor, found: dict[str, Found]) -> None:
        """Read the summaries that changed since they were last read."""
        changed = {
            folder: one
            for folder, one in found.items()
            if (known := self._known.get(folder)) is None or known.found != one
        }
        read = threads.map(self._small, changed.values())
        for (folder, one), data in zip(changed.items(), read, strict=True):
            if data is not None:
                self._known[folder] = _Known(one, self._entry(folder, one.name, data))

    def _small(self, found: Found) -> Read | None:
        """A summary; nothing of what is far too large for one."""
        if found.size_bytes > SIZE_MAX:
            return Read(b"", found.modified_ms)
        return self._objects.get(found.name)

    def _read_single(self, threads: ThreadPoolExecutor) -> None:
        """Read what is known of databases whose summary is in no folder of summaries."""
        read = threads.map(self._summary_inside, self._single)
        for folder, known in zip(self._single, read, strict=True):
            if known is not None:
                self._known[folder] = known
            else:
                self._known.pop(folder, None)

    def _summary_inside(self, folder: str) -> _Known | None:
        for name in (_joined(folder, summaries.NAME), _joined(folder, LEASE)):
            if (read := self._objects.get(name)) is not None:
                found = Found(name, len(read.data), read.modified_ms)
                return _Known(found, self._entry(folder, name, read))
        return None

    def _entry(self, folder: str, name: str, read: Read) -> Entry:
        entry = Entry(folder or self._name, folder, read.modified_ms)
        try:
            if name.rpartition("/")[2] == LEASE:
                entry.lease = msgspec.json.decode(read.data, type=LeaseRow)
            else:
                entry.summary = summaries.decode(read.data)
        except (ValueError, RecursionError) as error:  # one that is odd hides no other
            entry.problem = f"{name} can't be read: {error}"
        return entry


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _folder_of(found: Found) -> str:
    """The replica that a summary in a folder of summaries is of, below the address."""
    return found.name.rpartition(FOLDER)[0] + summaries.name_in(found.name)


def _is_of_replica(folder: str) -> bool:
    """Whether a replica has a folder of this name."""
    return folder in _OF_A_REPLICA or (len(folder) == 6 and folder.isdigit())

"""A disk that loses its power, or fails, at a chosen place: an SQLite file layer over the real one.

Rules: locks and shared memory are the real ones, and data goes to the real file at once, so that
reads see it. Synced content is kept apart, with the list of later writes; after a power loss the
file is made anew from both. Each write since the last sync is then there, gone, or torn: some of
its 512-byte sectors are there, and one of them by half. Unwritten bytes stay as they were. A
file that was made or deleted is so for good after a sync of its folder, as SQLite does with the
first sync of a journal or WAL; before that any earlier state may return. Writes (truncations and
deletions too) and syncs are counted from 1.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import apsw

SECTOR_BYTES = 512
At = Literal["write", "sync"]
Kind = Literal["power", "ioerr", "full", "torn"]
_numbers = count(1)
_TRACKED = (
    apsw.SQLITE_OPEN_MAIN_DB
    | apsw.SQLITE_OPEN_MAIN_JOURNAL
    | apsw.SQLITE_OPEN_SUPER_JOURNAL
    | apsw.SQLITE_OPEN_WAL
)
_SYNCS_FOLDER = (
    apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, at which write or sync, and for how many of them in a row.

    "power" ends everything; "ioerr" and "full" are SQLite's errors, and nothing is written; with
    "torn" a part is. With `then_power` the power goes at the first write or sync that would work
    again.
    """

    kind: Kind
    at: At
    number: int
    times: int = 1
    then_power: bool = False

    def hits(self, at: At, number: int) -> Kind | None:
        """What is to go wrong with this write or sync."""
        if at != self.at or not self.number <= number <= self.number + self.times:
            return None
        if number < self.number + self.times:
            return self.kind
        return "power" if self.then_power else None


@dataclass(slots=True)
class _Kept:
    """A file as it is on the platters, and the writes since: (offset, data), or (size, None) for a
    truncation.
    """

    synced: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        for offset, data in self.since:
            _apply(self.synced, offset, data)
        self.since.clear()

    def forget(self, dice: random.Random) -> None:
        """A sync has failed. What it did not write is not tried again: no later sync makes it good,
        as on Linux.
        """
        self.synced = bytearray(self.after_loss(dice))
        self.since.clear()

    def after_loss(self, dice: random.Random) -> bytes:
        """One of the contents that may be found afterwards."""
        found, kept = bytearray(self.synced), dice.choice((0.0, 0.5, 0.9, 1.0))
        for offset, data in self.since:
            if data is not None and dice.random() < 0.2:
                for start, piece in _torn(offset, data, dice):
                    _apply(found, start, piece)
            elif dice.random() < kept:
                _apply(found, offset, data)
        return bytes(found)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
    end = offset + len(data or b"")
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if data is not None:
        content[offset:end] = data


def _torn(offset: int, data: bytes, dice: random.Random) -> Iterator[tuple[int, bytes]]:
    """Some sectors of a write; one of them ends in its middle."""
    edges = [0, *range(SECTOR_BYTES - offset % SECTOR_BYTES, len(data), SECTOR_BYTES), len(data)]
    halved = dice.randrange(len(edges) - 1)
    for number, begin in enumerate(edges[:-1]):
        end = edges[number + 1]
        if number == halved:
            yield offset + begin, data[begin : dice.randint(begin, end)]
        elif dice.random() < 0.5:
            yield offset + begin, data[begin:end]


class Disk(apsw.VFS):
    """A disk with faults, which connections name as their VFS: `apsw.Connection(path,
    vfs=disk.name)`.

    It knows one process and the files that were opened through it. `close()` takes its name away
    from SQLite.

    >>> import tempfile
    >>> disk, path = Disk(), tempfile.mkdtemp() + "/one.db"
    >>> db = apsw.Connection(path, vfs=disk.name)
    >>> db.pragma("journal_mode", "wal"), db.pragma("user_version", 7)
    ('wal', None)
    >>> disk.fault = Fault("power", "sync", disk.syncs + 1)
    >>> with contextlib.suppress(apsw.IOError):
    ...     db.pragma("user_version", 8)
    >>> with contextlib.suppress(apsw.IOError):
    ...     db.close()
    >>> disk.restart(seed=2)
    >>> apsw.Connection(path).pragma("user_version")
    7
    """

    def __init__(self) -> None:
        self.name = f"perdure-faults-{next(_numbers)}"
        self.writes = self.syncs = self.failed = 0
        self.off = False
        self.fault: Fault | None = None
        self._states: dict[
            str, list[_Kept | None]
        ] = {}  # of each path since its folder was synced; None: no such file
        super().__init__(self.name, "unix")

    def power_loss(self) -> None:
        """From now on nothing can be read or written."""
        self.off = True

    def restart(self, seed: int) -> None:
        """Give the files what a power loss leaves of them, by chance, and power. No connection may
        be open.
        """
        dice = random.Random(seed)
        for path, states in sorted(self._states.items()):
            state = dice.choice(states)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            if state is not None:
                with open(path, "wb") as file:
                    file.write(state.after_loss(dice))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + "-shm")
        self._states.clear()
        self.off, self.fault = False, None

    def close(self) -> None:
        self.unregister()

    # --- what SQLite calls ------------------------------------------------------------------------

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        self.needs_power()
        if name is None or not flags[0] & _TRACKED:
            return apsw.VFSFile("unix", name, flags)
        path = os.path.abspath(name.filename() if isinstance(name, apsw.URIFilename) else name)
        existed = os.path.exists(path)
        file = _File(self, name, flags)
        if path not in self._states:
            self._states[path] = [_Kept(bytearray(file.content()))] if existed else [None]
        states = self._states[path]
        if states[-1] is None:
            states.append(_Kept())
        file.kept = states[-1]
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        fault = self.counted("write")
        if fault in (None, "power"):
            super().xDelete(filename, syncdir)
            self._states.setdefault(os.path.abspath(filename), []).append(None)
        self.give(fault)
        if syncdir:
            self.sync_folder()

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        self.needs_power()
        return super().xAccess(pathname, flags)

    # --- what its files call ----------------------------------------------------------------------

    def needs_power(self) -> None:
        if self.off:
            raise _error(apsw.SQLITE_IOERR, "the power is off")

    def counted(self, at: At) -> Kind | None:
        """Count one call; gives what is to go wrong with it."""
        self.needs_power()
        if at == "write":
            self.writes += 1
        else:
            self.syncs += 1
        return (
            None
            if self.fault is None
            else self.fault.hits(at, self.writes if at == "write" else self.syncs)
        )

    def give(self, kind: Kind | None) -> None:
        """Raise the error of a fault."""
        if kind is None:
            return
        self.failed += 1
        if kind == "power":
            self.power_loss()
        if kind == "full":
            raise _error(apsw.SQLITE_FULL, "database or disk is full")
        raise _error(apsw.SQLITE_IOERR_WRITE, "disk I/O error")

    def sync_folder(self) -> None:
        for path, states in self._states.items():
            self._states[path] = states[-1:]


def _error(code: int, text: str) -> Exception:
    error = apsw.exception_for(code)
    error.args = (text,)
    return error


class _File(apsw.VFSFile):
    """An open file on a `Disk`. It can be closed and unlocked without power: that is the process,
    not the disk.
    """

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._syncs_folder = bool(flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & _SYNCS_FOLDER)
        self.kept: _Kept | None = None
        super().__init__("unix", name, flags)

    def content(self) -> bytes:
        return super().xRead(super().xFileSize(), 0)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.needs_power()
        return super().xRead(amount, offset)

    def xFileSize(self) -> int:  # noqa: N802
        self._disk.needs_power()
        return super().xFileSize()

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        fault, data = self._disk.counted("write"), bytes(data)
        if fault == "torn":
            data = data[: random.Random(self._disk.writes).randrange(len(data))]
        if fault in (None, "power", "torn"):
            super().xWrite(data, offset)
            self._noted(offset, data)
        self._disk.give(fault)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        fault = self._disk.counted("write")
        if fault in (None, "power"):
            super().xTruncate(newsize)
            self._noted(newsize, None)
        self._disk.give(fault)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """The real file needs none: only a real power loss would show the difference."""
        fault = self._disk.counted("sync")
        assert self.kept is not None
        if fault not in (None, "power"):
            self.kept.forget(random.Random(self._disk.syncs))
        self._disk.give(fault)
        self.kept.sync()
        if self._syncs_folder:
            self._disk.sync_folder()
            self._syncs_folder = False

    def _noted(self, offset: int, data: bytes | None) -> None:
        assert self.kept is not None
        self.kept.since.append((offset, data))

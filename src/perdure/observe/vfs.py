"""SQLite file layer over the pages of a replica: an apsw VFS that can only read.

Rules: a connection sees one version from its shared lock on until it gives it back; page 1 is
changed in two ways as it is read: no WAL, because there is none, and the version's number as change
counter, so that SQLite forgets the pages of an older version; every write is refused.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import apsw

from perdure.observe.pages import Pages, Version

NAME = "perdure-pages"
CACHE_KIB = 8_192
_numbers = itertools.count(1)


def connect(pages: Pages) -> apsw.Connection:
    """A read-only connection to a replicated database.

    It raises what `pages` raises, from any statement.
    """
    vfs = _vfs()
    name = f"replica-{next(_numbers)}"
    vfs.opening[name] = pages
    flags = apsw.SQLITE_OPEN_READONLY
    db = apsw.Connection(name, flags=flags, vfs=NAME)
    db.pragma("temp_store", "memory")
    db.pragma("cache_size", -CACHE_KIB)
    db.pragma("query_only", 1)
    return db


@cache
def _vfs() -> _PagesVfs:
    return _PagesVfs()


class _PagesVfs(apsw.VFS):
    """Registered once for the process; `opening` has the pages by the name of a connection."""

    def __init__(self) -> None:
        self.opening: WeakValueDictionary[str, Pages] = WeakValueDictionary()
        super().__init__(NAME, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        if not flags[0] & apsw.SQLITE_OPEN_MAIN_DB or text is None:
            raise apsw.CantOpenError("a replica has no other files")
        flags[1] = apsw.SQLITE_OPEN_READONLY
        return _PagesFile(self.opening[text])

    def xAccess(self, name: str, flags: int) -> bool:  # noqa: N802
        return False

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        raise apsw.ReadOnlyError("a replica is only read")


class _PagesFile:
    """The database file. SQLite calls it from one thread at a time."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._version: Version | None = None
        self._last: tuple[int, int, bytes] | None = None

    def _now(self) -> Version:
        return self._version or self._pages.current()

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        version = self._now()
        size = version.newest.page_bytes
        number, start = divmod(offset, size)
        if number >= version.newest.pages:
            return b""
        return self._page(version, number + 1)[start : start + amount]

    def _page(self, version: Version, number: int) -> bytes:
        if self._last is not None and self._last[:2] == (version.number, number):
            return self._last[2]
        data = self._pages.page(version, number)
        if number == 1:
            data = as_read(data, version.number)
        self._last = version.number, number, data
        return data

    def xFileSize(self) -> int:  # noqa: N802
        about = self._now().newest
        return about.page_bytes * about.pages

    def xLock(self, level: int) -> None:  # noqa: N802
        if level > apsw.SQLITE_LOCK_SHARED:
            raise apsw.ReadOnlyError("a replica is only read")
        self._version = self._pages.current()

    def xUnlock(self, level: int) -> None:  # noqa: N802
        if level == apsw.SQLITE_LOCK_NONE:
            self._version = None

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        raise apsw.ReadOnlyError("a replica is only read")

    def xTruncate(self, size: int) -> None:  # noqa: N802
        raise apsw.ReadOnlyError("a replica is only read")

    def xSync(self, flags: int) -> None: ...  # noqa: N802

    def xSectorSize(self) -> int:  # noqa: N802
        return 4096

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: N802
        return False

    def xClose(self) -> None:  # noqa: N802
        self._last = None


def as_read(page: bytes, number: int) -> bytes:
    """Page 1 as a connection gets it: without a WAL, and with this number as change counter."""
    counter = (number & 0xFFFFFFFF).to_bytes(4)
    return page[:18] + b"\x01\x01" + page[20:24] + counter + page[28:92] + counter + page[96:]

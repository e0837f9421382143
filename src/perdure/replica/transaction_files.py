"""Transaction files of Litestream: whether each follows the one before, and how far they reach.

Rules: names and the first bytes of a file are enough, so a look is cheap. What can't be shown to
follow counts as a hole, because a needless new copy costs less than one that can't be restored
(docs/adr/0020).
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterable
from pathlib import Path

import msgspec

# Of an LTX file: which part of the WAL it was read from, and that WAL's salts.
_HEAD = struct.Struct(">48xQQII")
_WAL_HEAD_BYTES = 32
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.ltx$")


class Head(msgspec.Struct, frozen=True):
    """The part of a WAL that a file was made from.

    `salts` differ for each WAL; the first counts the WAL's restarts.
    """

    offset: int
    size: int
    salts: tuple[int, int]

    def follows(self, last: Head, *, may_restart: bool) -> bool:
        """Whether nothing lies between the end of `last` and the beginning of this one.

        A WAL that has begun anew is proof of it only where Litestream was there and had read the
        old one to its end.
        """
        if self.salts == last.salts:
            return self.offset <= last.offset + last.size
        begins_anew = self.offset == _WAL_HEAD_BYTES
        return may_restart and begins_anew and self.salts[0] == (last.salts[0] + 1) & 0xFFFFFFFF


def head_of(path: Path) -> Head:
    """Raises `OSError` where it can't be read, `struct.error` where it is cut off."""
    with open(path, "rb") as file:
        offset, size, *salts = _HEAD.unpack(file.read(_HEAD.size))
    return Head(offset, size, (salts[0], salts[1]))


class Chain:
    """The files that Litestream makes from one WAL, in its folder on this disk.

    Those up to `after` were looked at before.
    """

    def __init__(self, folder: Path, after: int = 0) -> None:
        self._folder = folder / "ltx" / "0"
        self._txid, self._begun_after = after, 0
        self._last = head_of(self._file(after)) if after else None

    def _file(self, txid: int) -> Path:
        return self._folder / f"{txid:016x}-{txid:016x}.ltx"

    def litestream_begins(self) -> None:
        """A new process continues from what the last one has left.

        While none ran, another program may have begun the WAL anew.
        """
        self._begun_after = max((spans[1] for spans in spans_of(self._names())), default=0)

    def _names(self) -> list[str]:
        with contextlib.suppress(OSError):
            return [path.name for path in self._folder.iterdir()]
        return []

    def broken_before(self, txid: int) -> str:
        """Look at what is new up to a transaction; why the chain has a hole there, "" if none."""
        while self._txid < txid:
            next_txid = self._txid + 1
            try:
                head = head_of(self._file(next_txid))
            except (OSError, struct.error) as error:
                return f"transaction {next_txid} can't be read on this disk ({error})"
            may_restart = next_txid != self._begun_after + 1
            if self._last is not None and not head.follows(self._last, may_restart=may_restart):
                moved = "and what it moved was not copied yet"
                before = f"before transaction {next_txid}"
                return f"another program has checkpointed the file {before}, {moved}"
            self._txid, self._last = next_txid, head
        return ""


def spans_of(names: Iterable[str]) -> list[tuple[int, int]]:
    """First and last transaction of each file, by its name.

    >>> spans_of(["000001/ltx/1/0000000000000002-000000000000001f.ltx", "lease.json"])
    [(2, 31)]
    """
    found = (_NAME.search(name) for name in names)
    return [(int(one[1], 16), int(one[2], 16)) for one in found if one]


def reach(spans: Iterable[tuple[int, int]]) -> int:
    """The last transaction up to which these files leave no gap.

    >>> reach([(1, 1), (2, 2), (1, 4), (5, 5), (7, 7)])
    5
    """
    end = 0
    for first, last in sorted(spans):
        if first > end + 1:
            break
        end = max(end, last)
    return end

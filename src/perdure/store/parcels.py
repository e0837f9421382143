"""Parcels: the rows of some runs at hand, so that a transaction waits for no file of other people.

Rules: what is large lies in a temporary file, which no other process can open; rows come back in
slices, in the order in which they were put; a slice is small, whatever the run is.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

SLICE_ROWS_MAX = 1_000
SLICE_BYTES_MAX = 1 << 20
IN_MEMORY_BYTES_MAX = 8 << 20
"""Of one parcel; what is more is in a file."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[Any, ...]]).decode


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a run is known by, and the runs that it names."""

    run: int
    id: str
    workflow: str
    status: str
    seed: int
    created_ms: int
    ended_ms: int | None
    parent: int | None
    parent_seq: int | None
    successor: int | None
    origin: int | None
    chain: int | None
    root: int | None


class Parcel:
    """Whole families of runs, and all their rows."""

    def __init__(self) -> None:
        self.families: list[list[Head]] = []
        self.ends: dict[int, tuple[int, str, int]] = {}
        """The last row of the history of a run: its number, its kind and its time."""
        self.rows_put = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES_MAX)  # noqa: SIM115
        self.close = weakref.finalize(self, self._file.close)
        """Delete what it holds; else that is done when nothing refers to it."""
        self._slices: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._gathered: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self._bytes: dict[str, int] = defaultdict(int)

    @property
    def runs(self) -> list[Head]:
        """All runs of its families."""
        return [head for family in self.families for head in family]

    def put(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows of a table."""
        gathered, row = self._gathered[table], None
        for row in rows:
            gathered.append(row)
            self.rows_put += 1
            self._bytes[table] += sum([len(one) for one in row if type(one) in (str, bytes)])
            if len(gathered) >= SLICE_ROWS_MAX or self._bytes[table] >= SLICE_BYTES_MAX:
                self._keep(table)
        if table == "event" and row is not None:
            self.ends[row[0]] = row[1:4]

    def slices(self, table: str) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a table."""
        self._keep(table)
        for at, size in self._slices[table]:
            self._file.seek(at)
            yield _decode(self._file.read(size))

    def _keep(self, table: str) -> None:
        if rows := self._gathered[table]:
            raw = _encode(rows)
            self._slices[table].append((self._file.seek(0, 2), len(raw)))
            self._file.write(raw)
            rows.clear()
            self._bytes[table] = 0

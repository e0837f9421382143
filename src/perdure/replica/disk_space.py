"""Disk space that a replica takes beside its store, measured a few times a second.

Rules: what counts is the WAL and what is not copied yet. Litestream's folder has to be listed, so
that is done less often, and more often in trouble. What is copied already is deleted where it takes
much space, because Litestream needs only the newest of it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from pathlib import Path

import msgspec

from perdure.process.threads import in_thread
from perdure.replica.transaction_files import spans_of

log = logging.getLogger("perdure")

SIZE_EVERY, SIZE_EVERY_IN_TROUBLE = 20, 2  # measures between two listings of the folder
COPIED_SHARE_MAX = 0.25
WARN_SHARE, WARN_S = 0.5, 60.0


class Sizes(msgspec.Struct, frozen=True):
    """Bytes beside a store: its WAL, and transactions that wait for the replica or are copied."""

    wal: int = 0
    waiting: int = 0
    copied: int = 0


class DiskSpace:
    """Measures for the store at `path`; `folder` is Litestream's, `bytes_max` the limit."""

    def __init__(self, path: str, folder: Path, bytes_max: int) -> None:
        self._wal, self._folder, self.bytes_max = path + "-wal", folder, bytes_max
        self.sizes = Sizes()
        self.folded_bytes = 0
        """What waits for the replica as well, and was moved into the store for want of space."""
        self._measures, self._warned_s = 0, -math.inf

    @property
    def waiting_bytes(self) -> int:
        """What counts against the limit."""
        return self.sizes.wal + self.sizes.waiting

    @property
    def share(self) -> float:
        """Of the limit; 1 is all of it."""
        return self.waiting_bytes / self.bytes_max

    async def measure(self, replicated: int, *, in_trouble: bool, lacks_room: bool) -> None:
        """Measure. `replicated` is the last transaction in the replica; `lacks_room` says that
        Litestream has found the disk full.
        """
        often = in_trouble or self.share > COPIED_SHARE_MAX
        every = min(SIZE_EVERY_IN_TROUBLE, SIZE_EVERY) if often else SIZE_EVERY
        if self._measures % every == 0:
            self.sizes = await in_thread(sizes, self._wal, self._folder, replicated)
            if lacks_room or self.sizes.copied > COPIED_SHARE_MAX * self.bytes_max:
                await in_thread(drop_copied, self._folder, replicated)
        else:
            with contextlib.suppress(OSError):
                self.sizes = msgspec.structs.replace(self.sizes, wal=os.path.getsize(self._wal))
        self._measures += 1
        self._warn()

    def _warn(self) -> None:
        now_s = time.monotonic()
        if self.share >= WARN_SHARE and now_s - self._warned_s > WARN_S:
            self._warned_s = now_s
            log.warning(
                "what waits for the replica needs %s bytes on this disk, of %s allowed",
                f"{self.waiting_bytes:,}", f"{self.bytes_max:,}",
            )  # fmt: skip

    def folded(self) -> None:
        """What waited is in the store now, but for a WAL that a reader holds."""
        left_bytes = 0
        with contextlib.suppress(OSError):
            left_bytes = os.path.getsize(self._wal)
        self.folded_bytes += max(0, self.waiting_bytes - left_bytes)
        self.sizes, self._measures = Sizes(wal=left_bytes), 0


def sizes(wal: str, folder: Path, replicated: int) -> Sizes:
    """Measure the WAL and Litestream's folder; `replicated` is the last transaction in the replica.

    A file that is gone meanwhile counts as nothing.
    """
    wal_bytes = 0
    with contextlib.suppress(OSError):
        wal_bytes = os.path.getsize(wal)
    waiting = copied = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone by now
                size = os.path.getsize(os.path.join(root, name))
                newer = any(last > replicated for _, last in spans_of([name]))
                waiting, copied = (waiting + size, copied) if newer else (waiting, copied + size)
    return Sizes(wal_bytes, waiting, copied)


def drop_copied(folder: Path, replicated: int) -> None:
    """Delete Litestream's own copies of what is in the replica, but for the last one.

    It reads the last one again, and the others from the replica if at all.
    """
    level = folder / "ltx" / "0"
    with contextlib.suppress(OSError):
        found = sorted(
            (last, path) for path in level.iterdir() for _, last in spans_of([path.name])
        )
        for last, path in found[:-1]:
            if last <= replicated:
                path.unlink(missing_ok=True)

"""The room that a replica takes beside its store, measured a few times a second, and the share of
its limit.

Rules: what counts is the WAL and what is not copied yet; Litestream's folder has to be listed, so
that is done less often, and more often in trouble; what is copied already is deleted where it takes
much room, because Litestream needs only the newest of it.
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
from perdure.replica.status import Sizes, drop_copied, sizes

log = logging.getLogger("perdure")

SIZE_EVERY, SIZE_EVERY_IN_TROUBLE = 20, 2  # measures between two listings of the folder
COPIED_SHARE_MAX = 0.25
WARN_SHARE, WARN_S = 0.5, 60.0


class Room:
    """Measures for the store at `path`; `folder` is Litestream's."""

    def __init__(self, path: str, folder: Path, bytes_max: int) -> None:
        self._wal, self._folder, self.bytes_max = path + "-wal", folder, bytes_max
        self.sizes = Sizes()
        self.put_away_bytes = 0
        """What waits for the replica as well, and is in the store since it had no more room beside
        it.
        """
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
        """Look; `replicated` is the last transaction in the replica, `lacks_room` whether
        Litestream has found the disk full.
        """
        every = SIZE_EVERY_IN_TROUBLE if in_trouble or self.share > COPIED_SHARE_MAX else SIZE_EVERY
        if self._measures % min(every, SIZE_EVERY) == 0:
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
            waiting = f"{self.waiting_bytes:,}"
            log.warning(
                "what the replica has not taken yet needs %s bytes on this disk, of %s allowed",
                waiting,
                f"{self.bytes_max:,}",
            )

    def emptied(self) -> None:
        """What waited is in the store now, but for a WAL that a reader holds."""
        left_bytes = 0
        with contextlib.suppress(OSError):
            left_bytes = os.path.getsize(self._wal)
        self.put_away_bytes += max(0, self.waiting_bytes - left_bytes)
        self.sizes, self._measures = Sizes(wal=left_bytes), 0

"""Drills: restores the replica to a temporary folder, and compares it with the store.

Rules: a drill never touches the store; one that fails leads to a new copy, unless this disk was
full or another epoch has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from perdure.errors import PerdureError
from perdure.process.periodic import Loop
from perdure.process.threads import in_thread
from perdure.replica import litestream_binary, verify
from perdure.replica.acquire import Acquired
from perdure.replica.barrier import Barrier
from perdure.replica.copier import Copier
from perdure.replica.epochs import folder_of
from perdure.replica.supervisor import tells_of_a_full_disk
from perdure.replica.temporary_folders import TempFolder
from perdure.store.sqlite.driver import SqliteStore

log = logging.getLogger("perdure")


class Drills:
    """Drills every `every_s` seconds, if at all. `last` is the result of the last drill."""

    def __init__(
        self, acquired: Acquired, store: SqliteStore, copier: Copier, barrier: Barrier
    ) -> None:
        self._acquired, self._store = acquired, store
        self._copier, self._barrier = copier, barrier
        self._loop = Loop("replica-drill", self._tick)
        self.last: dict[str, Any] | None = None

    def start(self) -> None:
        if self._acquired.options.drill_every is not None:
            self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def _tick(self) -> float:
        await asyncio.sleep(self._acquired.options.drill_every or 0)  # a start is a drill itself
        with contextlib.suppress(PerdureError):
            await self.run()
        return 0.0

    async def run(self) -> dict[str, Any]:
        """Drill now. Raises what is wrong with the copy; the result is kept as `last`."""
        checksum = self._store.checksum()
        await self._barrier.wait()  # before the lock: a new epoch may have to begin for it
        async with self._copier.moving:
            return await self._run(checksum.rows if checksum else 0)

    async def _run(self, rows: int) -> dict[str, Any]:
        began_s, copier = time.monotonic(), self._copier
        epoch = self._acquired.lease.row.base or copier.epoch  # a young one may have no copy yet
        found: dict[str, Any] = {"at_ms": time.time_ns() // 1_000_000, "ok": False}
        try:
            found |= {"ok": True, **await self._compared(epoch, rows)}
        except PerdureError as error:
            found["error"] = str(error)
            log.error("the drill found that the replica can't be trusted: %s", error)
            if epoch == copier.epoch and not tells_of_a_full_disk(str(error)):
                detail = getattr(error, "detail", error)
                copier.doubt(f"a drill could not restore it: {detail}")
            raise
        finally:
            found["took_ms"] = round((time.monotonic() - began_s) * 1000)
            self.last = found
        return found

    async def _compared(self, epoch: int, rows: int) -> dict[str, int]:
        """Rows and last transaction of the restored copy. Raises `ReplicaDamaged`."""
        acquired = self._acquired
        place = acquired.address.child(folder_of(epoch))
        with TempFolder(acquired.folder, verify.TEMPORARY) as folder:
            copy = folder.path / "copy.db"
            txid = await litestream_binary.restore(acquired.binary, place, copy)
            checksum = await in_thread(verify.verified, copy, str(place), rows)
            missing = await in_thread(verify.missing_rows, acquired.path, copy)
        if missing:
            raise verify.differs(place, missing)
        return {"rows": checksum.rows, "txid": txid}

"""Maintenance of a copy: disk space beside the store, new epochs, missing objects, old epochs.

Rules: what to do is decided in `epoch_policy`; a new copy goes below an epoch of its own, and
nothing is confirmed between the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from perdure.errors import PerdureError, ReplicaFull
from perdure.process.periodic import Loop
from perdure.process.threads import in_thread
from perdure.replica import bucket, transaction_files
from perdure.replica.acquire import Acquired
from perdure.replica.barrier import Barrier
from perdure.replica.confirm_server import ConfirmServer
from perdure.replica.copier import Copier
from perdure.replica.disk_space import DiskSpace
from perdure.replica.epoch_policy import ANEW_SHARE, EpochPolicy, Facts, Fold, NewEpoch
from perdure.replica.epochs import folder_of
from perdure.replica.supervisor import clear, tells_of_a_full_disk
from perdure.store.sqlite import connection
from perdure.store.writes import BeginEpoch, Write

log = logging.getLogger("perdure")

MAINTAIN_S = 0.25
OBJECTS_S = 60.0
SYNC_S_MAX = 5.0
SWEEP_S = 3_600.0
RETENTION_MS = 7 * 24 * 3_600_000


class Maintenance:
    """Looks after what `copier` makes. `write` has the engine's writer write something."""

    def __init__(
        self, acquired: Acquired, copier: Copier, barrier: Barrier, server: ConfirmServer,
        write: Callable[[Write], Awaitable[Any]], bytes_max: int,
    ) -> None:  # fmt: skip
        self._acquired, self._lease, self._address = acquired, acquired.lease, acquired.address
        self._copier, self._barrier, self._server, self._write = copier, barrier, server, write
        self._litestream_folder = acquired.folder / "litestream"
        self.disk = DiskSpace(acquired.path, self._litestream_folder, bytes_max)
        self._policy = EpochPolicy()
        self._loops = (
            Loop("replica-maintenance", self._maintain),
            Loop("replica-objects", self.look_at_objects),
            Loop("replica-sweep", self._sweep),
        )

    def start(self) -> None:
        for loop in self._loops:
            loop.start()

    async def stop(self) -> None:
        for loop in self._loops:
            await loop.stop()

    async def _maintain(self) -> float:
        if self._lease.lost.done():
            return MAINTAIN_S
        copier, barrier = self._copier, self._barrier
        await self.disk.measure(
            barrier.position.replicated if copier.based else 0,
            in_trouble=barrier.last_error is not None,
            lacks_room=copier.process.lacks_room,
        )
        await self._see_to_the_disk()
        match self._policy.decide(self._facts()):
            case NewEpoch(why):
                log.error("the replica %s gets a new copy: %s", self._address, why)
                await self.begin_epoch()
            case Fold():
                await self._fold()
            case None:
                pass
        return MAINTAIN_S

    def _facts(self) -> Facts:
        process, last_error = self._copier.process, self._barrier.last_error
        return Facts(
            now_s=time.monotonic(),
            bucket_well=self._lease.renewed_in_time,  # what still fails is not the bucket's fault
            trouble=last_error is not None and not tells_of_a_full_disk(str(last_error)),
            refusals=process.refusals,
            broken=self._copier.broken,
            resting=not self._copier.running,
            share=self.disk.share,
            copying=process.copying,
        )

    # --- disk space -------------------------------------------------------------------------------

    async def _see_to_the_disk(self) -> None:
        """At the limit begin nothing new, until the replica takes something again."""
        disk, barrier = self.disk, self._barrier
        if self._copier.based:  # there is a copy that holds what was folded into the store
            disk.folded_bytes = 0
        waiting_bytes = disk.waiting_bytes + disk.folded_bytes
        if waiting_bytes >= disk.bytes_max and barrier.full is None:
            full = ReplicaFull(str(self._address), waiting_bytes, disk.bytes_max)
            await self.set_full(full)
            log.error("%s", full)
        elif barrier.full is not None and self._copies and self._has_room:
            await self.set_full(None)
            log.warning("the replica takes writes again; so does this engine")

    @property
    def _has_room(self) -> bool:
        """Whether new work fits. A WAL keeps its size when all that is in it has been copied."""
        share = self.disk.share
        return share < ANEW_SHARE or (share < 1 and not self._barrier.lag_s())

    @property
    def _copies(self) -> bool:
        """Whether there is a whole copy, and the last sync has succeeded."""
        return self._copier.based and self._barrier.last_error is None

    async def set_full(self, full: ReplicaFull | None) -> None:
        """Say, here and to clients, why nothing new can be begun, or that it can."""
        await self._server.advertise(full=full and (full.size_bytes, full.limit_bytes))
        self._barrier.full = full

    async def _fold(self) -> None:
        """Copy nothing for now, and move what waits into the store.

        Beside the store there is no room for it, and a new copy will hold it.
        """
        if self._copier.running:
            log.warning("nothing is copied to %s for now: its disk space is used up", self._address)
        why = (
            "what waits for it had no more room beside the store, and is in the store now; "
            "a new copy follows"
        )
        await self._copier.rest(why, at_once=True)
        await in_thread(clear, self._litestream_folder)
        await in_thread(connection.fold_wal, self._acquired.path)
        self.disk.folded()

    # --- epochs -----------------------------------------------------------------------------------

    async def begin_epoch(self) -> None:
        """Begin a new epoch with a copy of the whole file; the old one's local files are dropped.

        Raises `ReplicaLeaseLost`, `ReplicaUnavailable`, and what the store fails with.
        """
        copier = self._copier
        async with copier.moving:
            self._policy.begun(time.monotonic())
            await self._lease.advance()
            in_trouble = self._barrier.last_error is not None
            await copier.rest("a new copy begins", at_once=in_trouble)
            await in_thread(connection.fold_wal, self._acquired.path)
            epoch = self._lease.row.epoch
            await self._write(BeginEpoch(self._acquired.store_id, str(self._address), epoch))
            await self._server.advertise(epoch=epoch, commits=-1)
            await copier.start()

    async def look_at_objects(self) -> float:
        """Doubt the copy if confirmed objects are missing; Litestream does not look for them."""
        with contextlib.suppress(TimeoutError, PerdureError):
            # Each local file must have been looked at before Litestream drops it after 5 minutes.
            async with asyncio.timeout(SYNC_S_MAX):
                await self._barrier.round()
        copier = self._copier
        wanted, epoch, process = copier.txid, copier.epoch, copier.process
        if not copier.based or not wanted:
            return OBJECTS_S
        found = await self._acquired.bucket.names(folder_of(epoch))
        reached = transaction_files.reach(transaction_files.spans_of(one.name for one in found))
        same = process is copier.process and copier.based
        if reached < wanted and same and len(found) < bucket.NAMES_MAX:
            copier.doubt(
                f"objects of epoch {epoch} are missing in the bucket: they reach transaction "
                f"{reached}, and {wanted} was confirmed"
            )
        return OBJECTS_S

    async def _sweep(self) -> float:
        gone = await self._lease.sweep(RETENTION_MS, time.time_ns() // 1_000_000)
        if gone:
            log.info("old epochs removed from the replica: %s", ", ".join(map(str, gone)))
        return SWEEP_S

"""What an engine does for its copy while it runs: the room beside the store, a new copy where only
that helps, objects that are missing.

Rules: what is decided is `mending`'s; a new copy goes below an epoch of its own, and nothing is
confirmed between the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.errors import PerdureError, ReplicaFull, brief
from perdure.process.periodic import Loop, to_its_end
from perdure.process.threads import in_thread
from perdure.replica import bucket, transaction_files
from perdure.replica.address import Address
from perdure.replica.barrier import Barrier
from perdure.replica.confirm_server import Door
from perdure.replica.disk_space import Room
from perdure.replica.epoch_policy import ANEW_SHARE, Anew, Facts, Fold, Mender
from perdure.replica.lease import Lease, folder_of
from perdure.replica.supervisor import Litestream, clear, tells_of_a_full_disk
from perdure.store.sqlite import connection
from perdure.store.writes import BeginEpoch

log = logging.getLogger("perdure")

TEND_S = 0.25
OBJECTS_S = 60.0
LAST_SYNC_S_MAX = 5.0
SWEEP_S = 3_600.0
RETENTION_MS = 7 * 24 * 3_600_000


class Tended:
    """The part of a replica that tends its copy; the replica sets what stands here."""

    path: str
    address: Address
    lease: Lease
    store_id: str | None
    full: ReplicaFull | None
    _bucket: bucket.Bucket
    _lease_ms: int
    _side: Path
    _litestream: Litestream | None
    _door: Door | None
    _barrier: Barrier
    _room: Room
    _mender: Mender
    _tends: Loop
    _moving: asyncio.Lock
    _ask: Callable[[Any], Awaitable[Any]]
    _based: bool
    _paused: str
    _broken: str
    _folder: int
    _txid: int

    if TYPE_CHECKING:

        @property
        def broken(self) -> str: ...

        async def _start_litestream(self) -> None: ...

    async def _tend(self) -> float:
        """Four times a second: what waits for the replica beside the store, and whether only a new
        copy helps.
        """
        if self.lease.lost.done():
            return TEND_S
        litestream, replicated = (
            self._litestream,
            self._barrier.position.replicated if self._based else 0,
        )
        lacks_room = litestream is not None and litestream.lacks_room
        await self._room.measure(
            replicated, in_trouble=self._barrier.trouble is not None, lacks_room=lacks_room
        )
        await self._see_to_the_disk()
        match self._mender.decide(self._facts()):
            case Anew(why):
                log.error("the replica %s gets a new copy: %s", self.address, why)
                await self.begin_anew()
            case Fold():
                await self._pause()
            case None:
                pass
        return TEND_S

    def _facts(self) -> Facts:
        litestream = self._litestream
        return Facts(
            time.monotonic(),
            self._bucket_is_well(),
            self._barrier.trouble is not None
            and not tells_of_a_full_disk(str(self._barrier.trouble)),
            litestream.refusals if litestream else 0,
            self.broken,
            litestream is None,
            self._room.share,
            litestream is not None and litestream.copying,
        )

    def _bucket_is_well(self) -> bool:
        """Whether the lease was renewed in time: what still fails then is not the
        bucket's fault.
        """
        return self.lease.held_left_ms() > 0.3 * self._lease_ms

    async def _see_to_the_disk(self) -> None:
        """At the limit take nothing new, until the replica takes something again."""
        room = self._room
        if self._based:  # there is a copy that holds what was put into the store
            room.put_away_bytes = 0
        waiting_bytes = room.waiting_bytes + room.put_away_bytes
        if waiting_bytes >= room.bytes_max and self.full is None:
            await self._say_full(ReplicaFull(str(self.address), waiting_bytes, room.bytes_max))
            log.error("%s", self.full)
        elif (
            self.full is not None
            and room.share < ANEW_SHARE
            and self._based
            and self._barrier.trouble is None
        ):
            await self._say_full(None)
            log.warning("the replica takes writes again; so do we")

    async def _say_full(self, full: ReplicaFull | None) -> None:
        if self._door is not None:
            await self._door.advertise(
                full=None if full is None else (full.size_bytes, full.limit_bytes)
            )
        self.full = full

    async def _pause(self) -> None:
        """Copy nothing for now, and put what waits into the store: beside it there is no room, and
        a new copy will hold it.
        """
        if self._litestream is not None:
            self._paused = (
                "what waits for it had no more room beside the store, and is in the store now; "
                "a new copy follows"
            )
            log.warning("nothing is copied to %s for now: %s", self.address, self._paused)
        self._broken = self.broken
        old, self._litestream, self._based = self._litestream, None, False
        if old is not None:
            await to_its_end(old.stop(at_once=True), old.kill)
        await in_thread(clear, self._side / "litestream")
        await in_thread(connection.fold_wal, self.path)
        self._room.emptied()

    async def begin_anew(self) -> None:
        """Go on below a new epoch with a new copy of the whole file; what lies locally for the old
        one is dropped.
        """
        async with self._moving:
            self._mender.begun(time.monotonic())
            await self.lease.advance()
            self._broken = self.broken
            old, self._litestream, self._based = self._litestream, None, False
            self._paused = self._paused or "a new copy begins"
            if old is not None:
                await to_its_end(
                    old.stop(at_once=self._barrier.trouble is not None), old.kill
                )  # nobody else knows of it now
            await in_thread(connection.fold_wal, self.path)
            await self._ask(
                BeginEpoch(self.store_id or "", str(self.address), self.lease.row.epoch)
            )
            if self._door is not None:
                await self._door.advertise(epoch=self.lease.row.epoch, commits=-1)
            self._broken = ""
            await self._start_litestream()
            self._paused = ""

    async def _look_at_objects(self) -> float:
        """Every minute: whether what was confirmed is still in the bucket, which Litestream does
        not ask itself again.
        """
        with contextlib.suppress(
            TimeoutError, PerdureError
        ):  # the chain must see each file before Litestream drops it, after 5 minutes
            async with asyncio.timeout(LAST_SYNC_S_MAX):
                await self._barrier.round()
        wanted, epoch, litestream = self._txid, self._folder, self._litestream
        if not self._based or not wanted:
            return OBJECTS_S
        found = await self._bucket.names(folder_of(epoch))
        reached = transaction_files.reach(transaction_files.spans_of(one.name for one in found))
        if (
            reached < wanted
            and litestream is self._litestream
            and self._based
            and len(found) < bucket.NAMES_MAX
        ):
            self._doubt(
                f"objects of epoch {epoch} are missing in the bucket: they reach "
                f"transaction {reached}, and {wanted} was confirmed"
            )
        return OBJECTS_S

    def _doubt(self, why: str) -> None:
        """The copy is not good: it is said, and a new one is made."""
        if self._bucket_is_well():
            self._broken = brief(why)
            self._tends.wake()

    async def _sweep(self) -> float:
        gone = await self.lease.sweep(RETENTION_MS, time.time_ns() // 1_000_000)
        if gone:
            log.info("old epochs removed from the replica: %s", ", ".join(map(str, gone)))
        return SWEEP_S

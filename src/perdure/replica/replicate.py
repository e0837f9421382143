"""The second phase of a replica: copies the store, and confirms what is committed.

Rules: every holding of the lease writes below an epoch of its own, unless it continues the copy of
an engine that ended in order on this disk; a restore begins from the epoch that the lease names,
which is ours only after a first whole copy is there; nothing is confirmed before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

import msgspec

from perdure.errors import PerdureError, ReplicaLeaseLost, StoreError
from perdure.process.periodic import Loop, to_its_end
from perdure.process.threads import in_thread
from perdure.replica import handover
from perdure.replica.acquire import Acquired
from perdure.replica.barrier import Barrier
from perdure.replica.confirm_server import ConfirmServer
from perdure.replica.copier import Copier
from perdure.replica.drills import Drills
from perdure.replica.handover import Copied, Handover
from perdure.replica.maintenance import SYNC_S_MAX, Maintenance
from perdure.replica.status import Status
from perdure.replica.summary import SummaryWriter
from perdure.replica.supervisor import BYTES_A_SECOND_MIN
from perdure.store.sqlite import checksum as checksums
from perdure.store.sqlite import connection
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.first_checksum import FirstChecksum
from perdure.store.writes import Write

log = logging.getLogger("perdure")

WATCH_S = 1.0
FIRST_COPY_S_MIN = 30.0


async def replicate(
    acquired: Acquired,
    store: SqliteStore,
    durability: str,
    write: Callable[[Write], Awaitable[Any]],
    *,
    bytes_max: int,
) -> Replication:
    """Copy the store below a new epoch, or continue its copy; done when the copy is confirmed.

    `write` has the engine's writer write something, `bytes_max` is the disk space that may wait
    beside the store. Raises what keeps the first copy from being made; then nothing runs any more.
    """
    left = acquired.left
    if left is not None and not handover.can_continue(left, acquired.folder, acquired.path):
        left = None
    if store.checksum() is None:
        await _first_checksum(acquired)
    store.begin_epoch(acquired.store_id, str(acquired.address), acquired.lease.row.epoch)
    replication = Replication(acquired, store, durability, write, bytes_max, left)
    await replication.begin()
    return replication


async def _first_checksum(acquired: Acquired) -> None:
    """Add up the whole history, in a thread, because that takes a second for 400,000 rows."""
    first = FirstChecksum(acquired.path)

    async def report() -> float:
        if first.rows:
            acquired.on_progress(
                f"Reading the history of {acquired.path} for its first copy: {first.rows:,} rows"
            )
        return WATCH_S

    reporting = Loop("replica-first-checksum", report)
    reporting.start()
    try:
        epoch = acquired.lease.row.epoch
        await in_thread(first.put, acquired.store_id, str(acquired.address), epoch)
    finally:
        first.stopped = True
        await reporting.stop()


class Replication:
    """A store's replication, from its first copy to `end`; `engine.replica` is one.

    `began` says what was done with the file at the start, `ended` how far the replica was at the
    end, for logs and terminals.
    """

    def __init__(
        self,
        acquired: Acquired,
        store: SqliteStore,
        durability: str,
        write: Callable[[Write], Awaitable[Any]],
        bytes_max: int,
        left: Handover | None,
    ) -> None:
        self._acquired, self._store, self._left = acquired, store, left
        self.path, self.address, self.lease = acquired.path, acquired.address, acquired.lease
        self.began, self.ended = acquired.began, ""
        where, fencing = str(acquired.address), acquired.options.fencing
        self.copier = Copier(acquired)
        self.barrier = Barrier(
            where,
            self.copier.sync,
            self._committed,
            self._obstacle,
            self.lease.still_ours if fencing is True else None,  # docs/adr/0017
        )
        self.server = ConfirmServer(
            acquired.folder, durability, store.file, self.barrier.round, self.barrier.waiting_for
        )
        self.maintenance = Maintenance(
            acquired, self.copier, self.barrier, self.server, write, bytes_max
        )
        self.drills = Drills(acquired, store, self.copier, self.barrier)
        self.summary = SummaryWriter(acquired, self.status)
        self._watch = Loop("replica", self._look)
        self.lease.on_back = self._retry
        self._loss = asyncio.create_task(
            self._stop_when_lost(), name="perdure-replica-loss", context=Context()
        )

    # --- life -------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Make the first copy, or continue one; called by `replicate` alone."""
        copying, path = Loop("replica-copying", self._report_copying), self.path
        try:
            if self._left is None or not await self.copier.go_on(self._left):
                await in_thread(connection.fold_wal, path)  # ours to do while no Litestream runs
                await self.copier.start()
            await self.server.open(self.lease.row.epoch)  # clients may wait for the first copy, too
            copying.start()
            async with asyncio.timeout(
                FIRST_COPY_S_MIN + os.path.getsize(path) / BYTES_A_SECOND_MIN
            ):
                await self.barrier.wait()
        except BaseException as error:
            await to_its_end(self._close(at_once=True), lambda: None)
            late = isinstance(error, TimeoutError)
            raise self.barrier.waiting_for() if late else error from None
        finally:
            await copying.stop()
        self._watch.start()
        self.maintenance.start()
        self.drills.start()
        self.summary.start()

    async def _report_copying(self) -> float:
        size_bytes = os.path.getsize(self.path)
        self._acquired.on_progress(f"Copying {self.path}, {size_bytes:,} bytes, to {self.address}")
        return WATCH_S

    async def end(self) -> None:
        """Sync a last time, and end Litestream. What is not confirmed is in the local file."""
        for part in (self._watch, self.maintenance, self.drills):
            await part.stop()
        await self.server.close()
        complete = not self.lease.lost.done() and await self._sync_last()
        await self.summary.stop(ended=complete)
        await self._close(at_once=not complete)
        checksum, process = self.barrier.confirmed, self.copier.process
        fenced = bool(self._acquired.options.fencing)
        if complete and checksum and fenced and process.ended_by_itself and not self.copier.broken:
            self._acquired.copied = Copied(
                checksum, self.copier.epoch, self.copier.txid, self._store.file
            )

    async def _sync_last(self) -> bool:
        """Whether the replica has everything."""
        barrier = self.barrier
        try:
            async with asyncio.timeout(SYNC_S_MAX):
                await barrier.round()
            await self._advertise_confirmed()
            await self.maintenance.set_full(None)  # nothing else would until the next engine
        except TimeoutError:
            what = "at the end that it has everything"
            if barrier.behind:
                what = f"the last {barrier.lag_s():.1f} s"
            self.ended = f"the replica has not confirmed {what}; it is in {self.path}"
        except PerdureError as error:  # everything else has to end all the same
            self.ended = f"the replica could not be brought up to date at the end: {error}"
        else:
            self.ended = "the replica has everything, and its lease is released"
            return True
        log.warning("%s", self.ended)
        return False

    def on_lost(self, act: Callable[[StoreError], None]) -> None:
        """Call `act` when another engine holds the lease: nothing here is confirmed any more."""
        self.lease.lost.add_done_callback(
            lambda done: None if done.cancelled() else act(done.result())
        )

    async def _stop_when_lost(self) -> None:
        """Another engine has the lease: copy nothing more to where no restore begins."""
        await asyncio.wait([self.lease.lost])
        await self._stop(at_once=True)

    async def _close(self, *, at_once: bool) -> None:
        if not self.lease.lost.done():
            self._loss.cancel()
        await asyncio.wait([self._loss])
        await self._stop(at_once=at_once)

    async def _stop(self, *, at_once: bool) -> None:
        """Confirm nothing more, and end Litestream."""
        lost = self.lease.lost
        closed = ReplicaLeaseLost(str(self.address), "the engine has closed")
        await self.barrier.shut(lost.result() if lost.done() else closed)
        await self.server.close()
        await self.copier.process.stop(at_once=at_once)
        self._report()  # the last time that the store is open

    def _retry(self) -> None:
        """The bucket answers again."""
        if self.barrier.wanted:
            self.copier.retry()

    # --- what is confirmed ------------------------------------------------------------------------

    def _committed(self) -> checksums.HistoryChecksum | None:
        """The checksum of the file as all read it now, which each commit of each process changes.

        None where it can't be read.
        """
        try:
            return self._store.checksum()
        except PerdureError:
            return None

    def _obstacle(self) -> str:
        """Why nothing may be confirmed now, if so."""
        if broken := self.copier.broken:
            return f"{broken}; a new copy is made"
        return "" if self.lease.held() else "the lease in the bucket is not held now; it is renewed"

    async def _look(self) -> float:
        """Every second: copy what nothing waits for."""
        barrier = self.barrier
        if self.lease.lost.done():
            return WATCH_S
        now_s = asyncio.get_running_loop().time()
        if not barrier.behind:
            barrier.all_copied(now_s)
        elif barrier.confirmed_s < now_s - WATCH_S / 2:  # else others keep rounds going
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await barrier.round()
        await self._advertise_confirmed()
        self._report()
        return WATCH_S

    async def _advertise_confirmed(self) -> None:
        """Publish it where clients look for it."""
        confirmed = self.barrier.confirmed
        now = self._committed()
        # The epoch is the file's and not the lease's: one may be claimed there that did not begin.
        if confirmed is not None and now is not None and confirmed.epoch == now.epoch:
            await self.server.advertise(epoch=confirmed.epoch, commits=confirmed.commits)

    def _report(self) -> None:
        """Write the status into the lease, for the next holder and for `perdure replica status`."""
        notes: dict[str, Any] = msgspec.to_builtins(self.status())
        self.lease.report(rows=self._rows, txid=self.copier.txid, notes=notes)

    @property
    def _rows(self) -> int:
        """How many rows of history the replica has at least."""
        confirmed = self.barrier.confirmed
        return confirmed.rows if confirmed else self._left.rows if self._left else 0

    # --- what is asked of it ----------------------------------------------------------------------

    async def verify(self) -> dict[str, Any]:
        """Restore the replica to a temporary folder, and compare it with the store.

        Returns `ok`, `at_ms`, `took_ms`, `rows`, `txid`. Raises `ReplicaDamaged` for a copy that
        can't be trusted; a new one is made then.
        """
        return await self.drills.run()

    def status(self) -> Status:
        """Its status at this moment."""
        process, position, sizes = (
            self.copier.process, self.barrier.position, self.maintenance.disk.sizes
        )  # fmt: skip
        lag_s = self.barrier.lag_s()
        state, reason = self._state(lag_s)
        return Status(
            address=str(self.address),
            state=state,
            reason=reason,
            epoch=self.lease.row.epoch,
            lag_s=round(lag_s, 3),
            lag_transactions=position.txid - position.replicated,
            lag_bytes=sizes.waiting if lag_s else 0,
            lease_left_ms=self.lease.held_left_ms(),
            local_bytes=sizes.wal + sizes.waiting + sizes.copied,
            restarts=process.restarts,
            rows=self._rows,
            txid=position.replicated,
            drill=self.drills.last,
        )

    def _state(self, lag_s: float) -> tuple[str, str]:
        """The state and its reason, the gravest first."""
        lease, copier = self.lease, self.copier
        if lease.lost.done():
            return "stopped", str(lease.lost.result().detail)
        if not lease.held():
            return "failing", "the lease in the bucket could not be renewed"
        if copier.doubted:
            return "failing", f"{copier.doubted}; a new copy is made"
        state, reason = copier.process.state, copier.process.reason
        return ("behind" if state == "replicating" and lag_s > 2 * WATCH_S else state), reason

"""One store's replica as the engine uses it: the lease, the file, Litestream and the barrier in the
right order.

Rules: nothing is written before the lease is held; a local file is used only if it has all that the
replica has, else it is set aside; every holding writes below an epoch of its own, unless it
continues the copy of an engine that ended in order on this disk; a restore begins from the epoch
that the lease names, which is ours only after a first whole copy is there; nothing is confirmed
before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from perdure.errors import PerdureError, ReplicaLeaseLost, ReplicaUnavailable, StoreError
from perdure.process.periodic import Loop, to_its_end
from perdure.process.threads import in_thread
from perdure.replica import bucket, handover, litestream_binary, sockets, temporary_folders, verify
from perdure.replica.address import Address
from perdure.replica.barrier import Barrier
from perdure.replica.confirm_server import Door
from perdure.replica.disk_space import Room
from perdure.replica.epoch_policy import Mender
from perdure.replica.lease import Lease, LeaseRow, folder_of
from perdure.replica.local_file import LocalFile
from perdure.replica.maintenance import LAST_SYNC_S_MAX, Tended
from perdure.replica.standby import Standby
from perdure.replica.status import Status
from perdure.replica.supervisor import (
    BYTES_A_SECOND_MIN,
    Litestream,
    Position,
    tells_of_a_full_disk,
)
from perdure.store.sqlite import checksum, connection
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.first_checksum import FirstChecksum
from perdure.store.writes import Write

log = logging.getLogger("perdure")

WATCH_S = 1.0
FIRST_COPY_S_MIN = 30.0
CONTINUE_S_MAX = 10.0

OnWait = Callable[[LeaseRow, float], None]


class Replica(Tended):
    """See the module's text. `on_wait` hears who holds the lease and for how many seconds it may
    still be theirs.
    """

    def __init__(
        self,
        path: str,
        address: Address,
        *,
        lease_ms: int,
        fencing: bool | str,
        bytes_max: int,
        drill_s: float | None,
        on_wait: OnWait | None,
        standby: bool = False,
    ) -> None:
        self.path, self.address = os.path.abspath(path), address
        self._lease_ms, self._drill_s, self._on_wait = lease_ms, drill_s, on_wait
        self._fencing, self._reads_lease = (
            bool(fencing),
            fencing is True,
        )  # "clock" trusts the machine's clocks (docs/adr/0017)
        self._side = Path(self.path + "-replica")
        self._follows, self._standby = standby, cast("Standby | None", None)
        self.on_progress: Callable[[str], None] = _to_nobody
        """Hears how far a long restore or a first copy is."""
        self.began: list[str] = []  # what happened at the start, for people
        self.ended = ""  # and at the end
        self._litestream: Litestream | None = None
        self._door: Door | None = None
        self._watch = Loop("replica", self._look)
        self._sweeps = Loop("replica-sweep", self._sweep)
        self._drills = Loop("replica-drill", self._drill)
        self._tends = Loop("replica-tending", self._tend)
        self._objects = Loop("replica-objects", self._look_at_objects)
        self.store_id: str | None = None
        self._ending: asyncio.Task[None] | None = None
        self._room, self._rows, self._txid = (
            Room(self.path, self._side / "litestream", bytes_max),
            0,
            0,
        )
        self._based, self._paused, self._broken = False, "", ""
        self._mender = Mender()
        self._folder = 0  # the epoch that our copy lies below
        self._left, self._last_seal = (
            cast("handover.Left | None", None),
            cast("checksum.HistoryChecksum | None", None),
        )
        self._drill_due = False  # the start has just restored or compared
        self._moving = asyncio.Lock()  # a drill and a new epoch must not meet
        self.drill: dict[str, Any] | None = None
        self.full = None

    # --- before the store is opened ---------------------------------------------------------------

    async def acquire(self) -> None:
        """Take the lease and bring the file: restored, or the local one where that has
        everything.
        """
        self._program = litestream_binary.find()
        await litestream_binary.check(self._program)
        self._bucket = bucket.open_bucket(self.address)
        await bucket.probe(self._bucket, str(self.address), fencing=self._fencing)
        file = LocalFile(self.path, self.address, self._side, self._tell)
        local = file.seal()
        self.lease = Lease(
            self._bucket, str(self.address), ttl_ms=self._lease_ms, fencing=self._fencing
        )
        row = await self.lease.look()
        file.check_same(row, local)
        self._side.mkdir(mode=0o700, exist_ok=True)
        temporary_folders.sweep(self._side, verify.TEMPORARY)
        sockets.sweep_left(self._side)
        if self._follows:
            self._standby = Standby(self.address, self._program, self._bucket, self._side)
            self._standby.start()
        try:
            row = await self.lease.take(
                store_id=local.store_id if local else row.store_id if row else None,
                on_wait=self._waits,
            )
        except BaseException:
            if self._standby is not None:
                await self._standby.stop()
            raise
        self.lease.start(self._again)  # a restore may take longer than the lease
        try:
            local = file.seal()  # another engine may have worked on this file while we waited
            file.check_same(row, local)
            self.store_id = row.store_id or (local.store_id if local else None)
            left = handover.found(
                self._side, self.path, local, self.lease.handed if self._fencing else None
            )
            if left is not None and left.folder == row.base:
                self._left = left
                self._tell(
                    f"the last engine ended in order on this disk; going on with {self.path}"
                )
            elif row.base is not None:
                self.store_id = await file.bring(
                    row, self._program, self._standby, self.on_progress
                )
            if self.lease.lost.done():
                raise self.lease.lost.result()
        except BaseException:
            await self.lease.release()
            raise
        finally:
            if self._standby is not None:
                await self._standby.stop()

    def _waits(self, row: LeaseRow, seconds: float) -> None:
        if self._standby is not None:
            self._standby.heard(row)
        if self._on_wait is not None:
            self._on_wait(row, seconds)

    def _tell(self, text: str) -> None:
        log.info("%s", text)
        self.began.append(text)

    # --- with the store ---------------------------------------------------------------------------

    async def begin(
        self, store: SqliteStore, durability: str, ask: Callable[[Write], Awaitable[Any]]
    ) -> None:
        """Copy the whole file below our epoch, or continue a copy that has it; from then on others
        may ask what is confirmed.

        `ask` has the engine's writer write something.
        """
        self._store, self._ask = store, ask
        self.store_id = self.store_id or uuid.uuid4().hex
        left, self._left = self._left, None
        continues = left is not None and handover.can_continue(left, self._side, self.path)
        if store.checksum() is None:
            await self._seal_first(self.store_id)
        store.begin_epoch(self.store_id, str(self.address), self.lease.row.epoch)
        still_ours = self.lease.still_ours if self._reads_lease else None
        self._barrier = Barrier(
            str(self.address), self, self._committed, self.lease.held, still_ours
        )
        self._door = Door(
            self._side, durability, store.file, self._barrier.round, lambda: self.trouble
        )
        self.lease.lost.add_done_callback(self._stop_at_once)
        copying = Loop("replica-copying", self._tell_copying)
        try:
            if left is None or not continues or not await self._continue(left):
                await in_thread(
                    connection.fold_wal, self.path
                )  # while no Litestream runs it is ours to do
                await self._start_litestream()
            await self._door.open(
                self.lease.row.epoch
            )  # others may ask, and wait with us for the first copy
            copying.start()
            async with asyncio.timeout(
                FIRST_COPY_S_MIN + os.path.getsize(self.path) / BYTES_A_SECOND_MIN
            ):
                await self._barrier.wait()
        except BaseException as error:
            await to_its_end(self._let_go(), lambda: None)
            raise self.trouble if isinstance(error, TimeoutError) else error from None
        finally:
            await copying.stop()
        for loop in (
            self._watch,
            self._tends,
            self._objects,
            self._sweeps,
            *([self._drills] if self._drill_s else []),
        ):
            loop.start()

    async def _seal_first(self, store_id: str) -> None:
        """Add up the whole history, in a thread, because that takes a second for 400,000 rows."""
        first = FirstChecksum(self.path)

        async def tell() -> float:
            if first.rows:
                self.on_progress(
                    f"Reading the history of {self.path} for its first copy: {first.rows:,} rows"
                )
            return WATCH_S

        telling = Loop("replica-sealing", tell)
        telling.start()
        try:
            await in_thread(first.put, store_id, str(self.address), self.lease.row.epoch)
        finally:
            first.stopped = True
            await telling.stop()

    def _committed(self) -> checksum.HistoryChecksum | None:
        """The seal of the file as everybody may read it now, which each commit of each process
        moves; None: it can't be read.
        """
        try:
            return self._store.checksum()
        except PerdureError:
            return None

    async def _tell_copying(self) -> float:
        self.on_progress(
            f"Copying {self.path}, {os.path.getsize(self.path):,} bytes, to {self.address}"
        )
        return WATCH_S

    async def _continue(self, left: handover.Left) -> bool:
        """Let Litestream go on where that of the last engine has ended; False where it can't, and
        none runs then.
        """
        try:
            async with asyncio.timeout(CONTINUE_S_MAX):
                await self._start_litestream(left)
                await self.sync()
        except (TimeoutError, OSError, PerdureError) as error:
            log.warning(
                (
                    "the copy that the last engine has left can't be continued, so a new one is "
                    "made: %s"
                ),
                error,
            )
            old, self._litestream = self._litestream, None
            if old is not None:
                await old.stop(at_once=True)
            return False
        return True

    async def _start_litestream(self, left: handover.Left | None = None) -> None:
        if (
            self.lease.lost.done()
        ):  # on the same disk the next engine may have one of its own by now
            raise self.lease.lost.result()
        if left is None:
            self._folder, self._based, self._txid = self.lease.row.epoch, False, 0
            self.lease.report(txid=0)  # numbers of transactions begin anew with the epoch
        else:
            self._folder, self._based, self._txid, self._rows = (
                left.folder,
                True,
                left.txid,
                left.rows,
            )
        self._litestream = Litestream(self.path, self._place, self._side, self._program, self._txid)
        try:
            await self._litestream.start()
        except BaseException:
            litestream, self._litestream = self._litestream, None
            await to_its_end(
                litestream.stop(at_once=True), litestream.kill
            )  # nobody else knows of it now
            raise

    @property
    def _place(self) -> Address:
        return self.address.child(folder_of(self._folder))

    def _stop_at_once(self, lost: asyncio.Future[ReplicaLeaseLost]) -> None:
        """Somebody else goes on: nothing is confirmed any more, and nothing more is copied to where
        nobody looks.
        """
        if not lost.cancelled():
            self._ending = asyncio.create_task(self._let_go())

    def _again(self) -> None:
        """The bucket is there again: Litestream would try it after a pause that may be
        long by now.
        """
        if self._litestream is not None and self._based and self._barrier.wanted:
            self._litestream.kill()

    async def _let_go(self, *, at_once: bool = True) -> None:
        """Nothing is confirmed any more, and Litestream ends."""
        await self._barrier.shut(self._last_word())
        if self._door is not None:
            await self._door.close()
        if self._litestream is not None:
            await self._litestream.stop(at_once=at_once)
        self.lease.report(
            rows=self._rows, txid=self._txid, notes=self._notes()
        )  # the last time that the store is open

    def _last_word(self) -> ReplicaLeaseLost:
        lost = self.lease.lost
        return (
            lost.result()
            if lost.done()
            else ReplicaLeaseLost(str(self.address), "the engine has closed")
        )

    def on_lost(self, tell: Callable[[StoreError], None]) -> None:
        """Call `tell` when somebody else holds the lease: from then on nothing here is confirmed
        any more.
        """
        self.lease.lost.add_done_callback(
            lambda done: None if done.cancelled() else tell(done.result())
        )

    async def end(self) -> None:
        """A last sync, and Litestream ends. What is not confirmed by then is in the local file."""
        for loop in (self._watch, self._tends, self._objects, self._sweeps, self._drills):
            await loop.stop()
        if self._door is not None:
            await self._door.close()
        through = False
        if not self.lease.lost.done():
            try:
                async with asyncio.timeout(LAST_SYNC_S_MAX):
                    await self._barrier.round()
                await self._say_confirmed()
                await self._say_full(
                    None
                )  # it has taken everything, and nobody else would say so until the next engine
                through, self._last_seal = True, self._barrier.confirmed
                self.ended = "the replica has everything, and its lease is released"
            except TimeoutError:
                what = (
                    f"the last {self._barrier.lag_s():.1f} s"
                    if self._barrier.behind
                    else "at the end that it has everything"
                )
                self.ended = f"the replica has not confirmed {what}; it is in {self.path}"
                log.warning("%s", self.ended)
            # the lease or the store is lost, and everything else has to end all the same
            except PerdureError as error:
                self.ended = f"the replica could not be brought up to date at the end: {error}"
                log.warning("%s", self.ended)
        if self._ending is not None:
            await self._ending
        await self._let_go(at_once=not through)

    async def release(self) -> None:
        """Let others have the lease at once."""
        try:
            await self.lease.release(self._leave())
        except PerdureError as error:
            log.warning("the lease could not be released and will run out: %s", error)

    def _leave(self) -> str | None:
        """A token for the next engine on this disk, where all is copied and nothing of ours can
        write any more.
        """
        ended = self._litestream is not None and self._litestream.ended_by_itself
        if (
            self._last_seal is None
            or not ended
            or self.broken
            or not self._fencing
            or self._store.file != verify.identity(self.path)
        ):
            return None
        return handover.leave(self._side, self.path, self._last_seal, self._folder, self._txid)

    # --- the barrier ------------------------------------------------------------------------------

    @property
    def broken(self) -> str:
        """Why the copy can't be restored, until a new one begins."""
        return self._broken or (self._litestream.broken if self._litestream is not None else "")

    def passed(self) -> bool:
        return self._barrier.passed()

    def after(self, action: Callable[[], None]) -> None:
        self._barrier.after(action)

    async def wait(self) -> None:
        await self._barrier.wait()

    @property
    def trouble(self) -> PerdureError:
        """Why who waits is still waiting."""
        slow = "it has not confirmed yet what was written, and gives no reason"
        return self._barrier.trouble or ReplicaUnavailable(str(self.address), slow)

    @property
    def trouble_now(self) -> StoreError | None:
        """What the last round failed with, if it did."""
        return self._barrier.trouble

    async def sync(self) -> Position:
        """Litestream's word; what it says counts only when the lease names our epoch as the one to
        restore from.
        """
        if self._litestream is None:
            raise ReplicaUnavailable(str(self.address), self._paused or "litestream does not run")
        litestream, folder = self._litestream, self._folder
        try:
            position = await litestream.sync()
        finally:
            if litestream.broken:
                self._tends.wake()
        self._check_current(litestream)
        if (
            not self._based and position.replicated > 0
        ):  # the first transaction of an epoch is the whole file
            await self.lease.name_base(
                folder, position.replicated, self.store_id, time.time_ns() // 1_000_000
            )
            self._check_current(litestream)
            self._based = True
            self.lease.report(txid=position.replicated)
        if self._based:
            self._txid = max(self._txid, position.replicated)
        return position

    def _check_current(self, litestream: Litestream) -> None:
        if litestream is not self._litestream:
            raise ReplicaUnavailable(str(self.address), "a new epoch has begun")

    # --- looking after it -------------------------------------------------------------------------

    async def _look(self) -> float:
        """Every second: copy what nobody waits for."""
        if self.lease.lost.done():
            return WATCH_S
        now_s = asyncio.get_running_loop().time()
        if not self._barrier.behind:
            self._barrier.all_copied(now_s)
        elif (
            self._barrier.confirmed_s < now_s - WATCH_S / 2
        ):  # else others keep it going, and a round more would be in their way
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._barrier.round()
        await self._say_confirmed()
        self.lease.report(rows=self._rows, txid=self._txid, notes=self._notes())
        return WATCH_S

    async def _say_confirmed(self) -> None:
        """Where the next holder and clients look for it."""
        seal = self._barrier.confirmed
        if seal is not None:
            self._rows = seal.rows
            # the file's epoch, and not the lease's, in which one may be claimed that did not begin
            now = self._committed()
            if self._door is not None and now is not None and seal.epoch == now.epoch:
                await self._door.advertise(epoch=seal.epoch, commits=seal.commits)

    def _rows_now(self) -> int:
        seal = self._store.checksum()
        return seal.rows if seal else 0

    # --- trust, but verify ------------------------------------------------------------------------

    async def _drill(self) -> float:
        assert self._drill_s is not None
        if self._drill_due:
            with contextlib.suppress(PerdureError):
                await self.verify()
        self._drill_due = True
        return self._drill_s

    async def verify(self) -> dict[str, Any]:
        """Restore to a temporary place and compare with what is here. Raises what is wrong; the
        result is kept as `drill`.
        """
        rows = self._rows_now()
        await self._barrier.wait()  # before the lock: a new epoch may have to begin for it
        async with self._moving:
            return await self._verify(rows)

    async def _verify(self, rows: int) -> dict[str, Any]:
        began_s = time.monotonic()
        epoch = (
            self.lease.row.base or self._folder
        )  # of a young one the first copy may not be there yet
        place = self.address.child(folder_of(epoch))
        found: dict[str, Any] = {"at_ms": time.time_ns() // 1_000_000, "ok": False}
        try:
            with temporary_folders.TempFolder(self._side, verify.TEMPORARY) as folder:
                copy = folder.path / "copy.db"
                txid = await litestream_binary.restore(self._program, place, copy)
                seal = await in_thread(verify.verified, copy, str(place), rows)
                missing = await in_thread(verify.missing_rows, self.path, copy)
            if missing:
                raise verify.differs(place, missing)
            found |= {"ok": True, "rows": seal.rows, "txid": txid}
        except PerdureError as error:
            found["error"] = str(error)
            log.error("the drill found that the replica can't be trusted: %s", error)
            if epoch == self._folder and not tells_of_a_full_disk(
                str(error)
            ):  # of this disk, which says nothing of the copy
                self._doubt(f"a drill could not restore it: {getattr(error, 'detail', error)}")
            raise
        finally:
            found["took_ms"] = round((time.monotonic() - began_s) * 1000)
            self.drill = found
        return found

    def status(self) -> Status:
        """How it stands at this moment."""
        litestream, position, room = self._litestream, self._barrier.position, self._room.sizes
        lag_s = self._barrier.lag_s()
        state, reason = (
            (litestream.state, litestream.reason) if litestream else ("failing", self._paused)
        )
        if state == "replicating" and lag_s > 2 * WATCH_S:
            state = "behind"
        if self._broken:
            state, reason = "failing", f"{self._broken}; a new copy is made"
        if self.lease.lost.done():
            state, reason = "stopped", str(self.lease.lost.result().detail)
        elif not self.lease.held():
            state, reason = "failing", "the lease in the bucket could not be renewed"
        return Status(
            str(self.address),
            state,
            reason,
            self.lease.row.epoch,
            round(lag_s, 3),
            position.txid - position.replicated,
            room.waiting if lag_s else 0,
            self.lease.held_left_ms(),
            room.wal + room.waiting + room.copied,
            litestream.restarts if litestream else 0,
            self._rows,
            position.replicated,
            self.drill,
        )

    def _notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = msgspec.to_builtins(self.status())
        return notes


def _to_nobody(text: str) -> None: ...

"""The lease of a replica: exclusive ownership that expires unless renewed; an object in the bucket.

Rules: the object is written by conditional writes. No two clocks are compared: a holder counts from
the moment at which it sent its last renewal, others from the moment at which they first saw it, so
the holder's time always ends first; a clock that stops while the machine sleeps is not used.
An engine that finds another holder in the object has lost the lease for good. Every holding is a
new epoch, whose number is claimed before. An object that was deleted is not free: a row without a
living holder is put in its place, the holder takes it back at its next renewal, and others wait a
whole lease from there (docs/adr/0018).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from perdure.errors import (
    ReplicaDamaged,
    ReplicaLeaseLost,
    ReplicaMismatch,
    ReplicaUnavailable,
    StoreError,
)
from perdure.process import identity
from perdure.process.periodic import Loop
from perdure.process.threads import Liveness, LoopThread
from perdure.replica.bucket import TIMEOUT_S, Bucket
from perdure.replica.epochs import Epochs
from perdure.replica.lease_rules import Hold, LeaseRow, Patience

log = logging.getLogger("perdure")

NAME = "lease.json"
RENEWALS_PER_TTL = 4
POLL_S = 0.25
RENEWED_SHARE = 0.3
NOTES_BYTES_MAX = 100_000
T = TypeVar("T")


def boot_ms() -> int:
    """Milliseconds since the boot, those of the machine's sleep too if the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


class Lease:
    """One holding of the lease.

    `row` is what we last wrote, `handed` the token that the last holder has left for us, `lost`
    gets the error when another engine has taken the lease. `on_back` is called, on the event loop,
    when renewals succeed again after they had failed.
    """

    def __init__(
        self, bucket: Bucket, where: str, *,
        ttl_ms: int, clock_ms: Callable[[], int] = boot_ms, fencing: bool = True,
    ) -> None:  # fmt: skip
        self._bucket, self._where, self._ttl_ms = bucket, where, ttl_ms
        self._clock_ms, self._fencing = clock_ms, fencing
        self._id = uuid.uuid4().hex
        self._epochs = Epochs(bucket, self._id, fencing=fencing)
        self._hold, self._patience = Hold(ttl_ms), Patience()
        self._tag: str | None = None
        self._writing = asyncio.Lock()
        # Of one request: a hung one must leave time for another.
        self._try_s = min(TIMEOUT_S, ttl_ms / 1000 / 3)
        self._main = asyncio.get_running_loop()
        self._thread: LoopThread | None = None
        self._alive: Liveness | None = None
        self._loop = Loop("replica-lease", self._renew_in_time)
        self._report: dict[str, Any] = {}
        self._failing = False
        self._error: ReplicaLeaseLost | None = None
        self.row = LeaseRow()
        self.handed: str | None = None
        self.on_back: Callable[[], None] = _nothing
        self.lost: asyncio.Future[ReplicaLeaseLost] = self._main.create_future()

    async def look(self) -> LeaseRow | None:
        """The object as it is, or None. Raises `ReplicaDamaged` for what is not a lease."""
        found = await self._read()
        return None if found is None else found[0]

    # --- taking it --------------------------------------------------------------------------------

    async def take(
        self, *, store_id: str | None, on_wait: Callable[[LeaseRow, float], None] | None = None
    ) -> LeaseRow:
        """Take the lease, waiting for its holder's time to end.

        `on_wait` is called every quarter of a second with the seconds that are left at most.
        Raises `ReplicaMismatch`, `ReplicaDamaged`, `ReplicaUnavailable`.
        """
        sent_ms, seen = 0, False
        known: LeaseRow | None = None
        while True:
            try:
                found = await self._read() or await self._where_none_is(known)
                seen = True
            except ReplicaUnavailable as error:
                if not seen:
                    raise
                log.warning("%s", error)
                await asyncio.sleep(POLL_S)
                continue
            if found is None:
                continue  # another machine was faster
            row, tag = found
            known = row if tag else None
            if row.holder == self._id:  # the answer to our own write had got lost
                return self._holds(row, tag, sent_ms)
            self._check_store(row, store_id)
            left_ms = self._left_ms(row)
            if left_ms == 0 or await self._is_first(row):
                with contextlib.suppress(ReplicaUnavailable):
                    ours = await self._next(row, store_id)
                    sent_ms = self._clock_ms()
                    if ours is not None and (written := await self._write(ours, tag)) is not None:
                        return self._holds(ours, written, sent_ms)
                continue
            if on_wait is not None:
                on_wait(row, left_ms / 1000)
            await asyncio.sleep(min(POLL_S, left_ms / 1000))

    def _check_store(self, row: LeaseRow, store_id: str | None) -> None:
        if store_id is not None and row.store_id not in (None, store_id):
            detail = f"it is of store {row.store_id}, and ours is {store_id}"
            raise ReplicaMismatch(self._where, detail)

    def _left_ms(self, row: LeaseRow) -> int:
        """How long its holder may still hold it, at most."""
        if identity.is_dead(row.host, row.pid, row.born):
            return 0
        return self._patience.left_ms(row, self._clock_ms())

    async def _is_first(self, row: LeaseRow) -> bool:
        """Whether the first epoch is ours, and another engine took our object for deleted."""
        with contextlib.suppress(ReplicaUnavailable):
            if row.deleted and row.epoch == 1 and row.base is None:
                return await self._epochs.is_ours(1)
        return False

    async def _next(self, row: LeaseRow, store_id: str | None) -> LeaseRow | None:
        """Our row after this one, in a new epoch; None where the replica is not new after all."""
        if row.epoch == 0 or await self._is_first(row):
            if not await self._epochs.claim(1):
                await asyncio.sleep(POLL_S)  # another machine is about to take it
                return None
            return self._ours(row, 1, store_id)
        if row.deleted:
            row = await self._by_epochs(row)
        return self._ours(row, await self._epochs.claim_after(row.epoch), store_id)

    def _ours(self, row: LeaseRow, epoch: int, store_id: str | None) -> LeaseRow:
        pid, self.handed = os.getpid(), row.ended
        return msgspec.structs.replace(
            row, epoch=epoch, holder=self._id, host=identity.host(), pid=pid,
            born=identity.born(pid), ttl_ms=self._ttl_ms, beats=row.beats + 1,
            store_id=store_id or row.store_id, deleted=False, ended=None, format=1,
        )  # fmt: skip

    def _holds(self, row: LeaseRow, tag: str | None, sent_ms: int) -> LeaseRow:
        self.row, self._tag = row, tag
        self._hold.renewed(sent_ms)
        return row

    # --- where the object is missing --------------------------------------------------------------

    async def _where_none_is(
        self, known: LeaseRow | None
    ) -> tuple[LeaseRow, str] | tuple[LeaseRow, None] | None:
        """A free row without a tag for a new replica, else a row in place of the deleted object.

        None: something is there by now.
        """
        if known is None:
            newest = await self._epochs.newest()
            if newest == 0 or (newest == 1 and await self._epochs.is_ours(1)):
                return LeaseRow(), None
        return await self._put_deleted(known or LeaseRow())

    async def _put_deleted(self, known: LeaseRow) -> tuple[LeaseRow, str] | None:
        """Put a row there without a living holder.

        An engine that holds the lease can't renew it now without seeing that. So if the row still
        is there one lease later, it is free. None where something else is there by now.
        """
        row = msgspec.structs.replace(
            await self._by_epochs(known), holder=uuid.uuid4().hex, host="", pid=0, born="",
            ttl_ms=max(self._ttl_ms, known.ttl_ms), deleted=True, ended=None,
        )  # fmt: skip
        written = await self._write(row, None)
        if written is None:
            return None
        deleted = "the lease object in %s was deleted; it counts as held for %d ms more"
        log.warning(deleted, self._where, row.ttl_ms)
        return row, written

    async def _by_epochs(self, row: LeaseRow) -> LeaseRow:
        """This row with the bucket's newest epoch, and as base the newest that holds anything."""
        base = await self._epochs.newest_filled()
        epoch = max(row.epoch, await self._epochs.newest())
        txid, rows = row.txid if base == row.base else 0, 0 if base is None else row.rows
        return msgspec.structs.replace(row, epoch=epoch, base=base, txid=txid, rows=rows)

    async def _take_back(self, row: LeaseRow, tag: str) -> None:
        """Our object was deleted: while the lease is surely ours, it still is.

        After that we wait as all others do. It is lost in any case if another epoch was begun: our
        clock may not have counted a pause of the machine.
        """
        if not self.held() and (left_ms := self._patience.left_ms(row, self._clock_ms())) > 0:
            deleted = f"its lease object was deleted, and may be taken again in {left_ms} ms"
            raise ReplicaUnavailable(self._where, deleted)
        for epoch in range(self.row.epoch + 1, await self._epochs.newest() + 1):
            if not await self._epochs.is_ours(epoch):  # ours: one that we were about to begin
                self._lose(f"epoch {epoch} was begun while its object was missing")
                return
        self._tag = tag

    # --- the object -------------------------------------------------------------------------------

    async def _read(self) -> tuple[LeaseRow, str] | None:
        stored = await self._in_time(self._bucket.get(NAME))
        if stored is None:
            return None
        try:
            row = msgspec.json.decode(stored.data, type=LeaseRow)
        except msgspec.DecodeError as error:
            raise ReplicaDamaged.lease(self._where, str(error)) from error
        if row.format != 1:
            newer = f"it has format {row.format}, which is a newer Perdure's"
            raise ReplicaDamaged.lease(self._where, newer)
        return row, stored.tag

    async def _write(self, row: LeaseRow, tag: str | None) -> str | None:
        data = msgspec.json.format(msgspec.json.encode(row))
        if not self._fencing:
            return await self._in_time(self._bucket.put(NAME, data))
        if tag is None:
            return await self._in_time(self._bucket.put_new(NAME, data))
        return await self._in_time(self._bucket.put_if(NAME, data, tag))

    async def _in_time(self, request: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._try_s):
                return await request
        except TimeoutError:
            late = f"it has not answered for {self._try_s:g} s"
            raise ReplicaUnavailable(self._where, late) from None

    # --- holding it -------------------------------------------------------------------------------

    def start(self) -> None:
        """Renew it from here on, from a thread of its own."""
        self._alive = Liveness(self._ttl_ms / 1000)
        self._thread = LoopThread("perdure-replica-lease")
        self._writing = asyncio.Lock()  # a lock belongs to one event loop
        self._thread.soon(self._loop.start)

    def held(self) -> bool:
        """Whether it is surely ours at this moment."""
        return self._hold.left_ms(self._clock_ms()) > 0

    def held_left_ms(self) -> int:
        return self._hold.left_ms(self._clock_ms())

    @property
    def renewed_in_time(self) -> bool:
        """Whether the last renewal was on time, so that the bucket is well."""
        return self.held_left_ms() > RENEWED_SHARE * self._ttl_ms

    async def still_ours(self) -> None:
        """Read the object, and return if it still names us.

        What is durable before this call is then in every copy that a later holder reads. Raises
        `ReplicaLeaseLost` for good where it names another holder, `ReplicaUnavailable` where it
        can't be read or is missing.
        """
        found = await self._read()
        missing = found is None or found[0].deleted
        if found is not None and not missing and found[0].holder != self._id:
            self._lose_to(found[0])
        if self._error is not None:
            raise self._error
        if missing:
            if self._thread is not None:
                self._thread.soon(self._loop.wake)  # the renewal takes it back
            gone = "the lease object is missing from the bucket, and is made anew"
            raise ReplicaUnavailable(self._where, gone)

    def report(self, **facts: Any) -> None:
        """What renewals say of the replica from here on: `rows`, `txid`, `notes`.

        Notes that are very long are left out.
        """
        if len(msgspec.json.encode(facts.get("notes"))) > NOTES_BYTES_MAX:
            facts["notes"] = {}
        self._report = self._report | facts  # never changed in place: the thread reads it

    async def renew(self, **changes: Any) -> None:
        """Write the row anew, with a new `base`, `epoch` or `store_id`.

        Raises `ReplicaUnavailable`, or `ReplicaLeaseLost` for good.
        """
        renewal = self._renew(changes)
        await (renewal if self._thread is None else self._thread.call(renewal))

    async def _renew(self, changes: dict[str, Any]) -> None:
        async with self._writing:
            while not self._hold.lost:
                changed = {**self._report, **changes, "beats": self.row.beats + 1}
                row, sent_ms = msgspec.structs.replace(self.row, **changed), self._clock_ms()
                if (tag := await self._write(row, self._tag)) is not None:
                    self._holds(row, tag, sent_ms)
                    return
                await self._look_at_writer()
        raise self._error or ReplicaLeaseLost(self._where, "it has been released")

    async def _look_at_writer(self) -> None:
        """Our condition was not met: find out why.

        The answer to our own write got lost, or the object was deleted, or another engine wrote it.
        """
        found = await self._read() or await self._put_deleted(self.row)
        if found is None:
            return  # something is there by now: the next write is refused, and we look again
        if found[0].holder == self._id:
            self.row, self._tag = found  # with its beats: one that was seen before renews nothing
        elif found[0].deleted:
            await self._take_back(*found)
        else:
            self._lose_to(found[0])

    def _lose_to(self, row: LeaseRow) -> None:
        self._lose(f"{row.who} has taken it, in epoch {row.epoch}")

    def _lose(self, why: str) -> None:
        self._error, self._hold.lost = ReplicaLeaseLost(self._where, why), True
        if self._thread is None:
            self._set_lost()
        else:
            self._main.call_soon_threadsafe(self._set_lost)

    def _set_lost(self) -> None:
        if not self.lost.done() and self._error is not None:
            self.lost.set_result(self._error)

    async def _renew_in_time(self) -> float:
        every_s = self._ttl_ms / 1000 / RENEWALS_PER_TTL
        if self._alive is not None and self._alive.stalled:
            stalled = "the event loop has been blocked for more than %g s; the lease is not renewed"
            log.error(stalled, self._alive.stall_s_max)
        elif not self._hold.lost:
            try:
                await self._renew({})
            except ReplicaLeaseLost:
                return self._ttl_ms / 1000
            except StoreError as error:
                if not self._failing:
                    failed = "the lease can't be renewed, and is tried again; %d ms are left: %s"
                    log.warning(failed, self.held_left_ms(), error)
                self._failing = True
                return every_s / 4
            if self._failing:
                log.warning("the lease is renewed again")
                self._main.call_soon_threadsafe(self.on_back)
            self._failing = False
        return every_s

    async def name_base(self, epoch: int, txid: int, store_id: str | None, now_ms: int) -> None:
        """A restore begins from this epoch of ours from here on: it has a whole copy up to `txid`.

        By its number: our newest epoch may be a later one already, which holds nothing.
        """
        begun_ms = {**self.row.begun_ms, epoch: now_ms}
        await self.renew(base=epoch, txid=txid, store_id=store_id, begun_ms=begun_ms)

    async def advance(self) -> None:
        """Begin a new epoch of our own."""
        await self.renew(epoch=await self._epochs.claim_after(self.row.epoch))

    async def release(self, ended: str | None = None) -> None:
        """Let other engines have it at once; `ended` is for the next holder alone, as `handed`.

        Cancelled, it is renewed no more all the same.
        """
        try:
            if self._thread is not None:
                await self._thread.call(self._loop.stop())
            # From before the write on: others may have it before the answer to it arrives.
            self._hold.released = True
            if self.row.holder == self._id and not self._hold.lost:
                await self.renew(holder=None, ended=ended)
        finally:
            self._hold.lost = True
            self._end_thread()

    def _end_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()
        if self._alive is not None:
            self._alive.stop()

    async def sweep(self, older_than_ms: int, now_ms: int) -> list[int]:
        """Delete epochs before ours and before the base that are old enough; returns them."""
        oldest_kept = min(self.row.epoch, self.row.base if self.row.base is not None else 0)
        gone = await self._epochs.sweep(oldest_kept, now_ms - older_than_ms)
        if gone:
            kept = {epoch: ms for epoch, ms in self.row.begun_ms.items() if epoch not in gone}
            await self.renew(begun_ms=kept)
        return gone


def _nothing() -> None: ...

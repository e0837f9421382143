"""The right to go on with a database: one object in the bucket, taken and renewed by conditional
writes, counted in epochs.

Rules: no two clocks are compared: a holder counts from the moment at which it sent its last
renewal, others from the moment at which they first saw it, so the holder's time always ends first;
a clock that stands still while the machine sleeps is not used; who finds another holder in the
object has lost for good; every taking is a new epoch, whose number is claimed before; an object
that was deleted is not free: a row that nobody holds is put in its place, the holder takes it back
at its next renewal, and others wait a whole lease from there (docs/adr/0018).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import msgspec

from perdure.errors import (
    LeaseHeld,
    ReplicaCorrupt,
    ReplicaLeaseLost,
    ReplicaOfAnother,
    ReplicaUnavailable,
    StoreError,
)
from perdure.process import identity
from perdure.process.periodic import Loop
from perdure.process.threads import Liveness, LoopThread
from perdure.replica.bucket import TIMEOUT_S, Bucket

log = logging.getLogger("perdure")

NAME = "lease.json"
CLAIMS = "taken"
RENEWALS_PER_TTL = 4
POLL_S = 0.25
MARGIN_MS_MIN = 200
NOTES_BYTES_MAX = 100_000
T = TypeVar("T")


class LeaseRow(msgspec.Struct, frozen=True):
    """The object. `base` is the epoch that a restore begins from, `rows` and `txid` what it has at
    least, `begun_ms` when each epoch that is still there became the base, `notes` are for people,
    `ended` is what the last holder, if it ended in order, has left for the next one on its disk.
    With `deleted` the row stands where the object was missing: `holder` is no engine then, and the
    last holder may not know yet.
    """

    epoch: int = 0
    holder: str | None = None
    host: str = ""
    pid: int = 0
    born: str = ""
    ttl_ms: int = 0
    beats: int = 0
    base: int | None = None
    rows: int = 0
    txid: int = 0
    store_id: str | None = None
    begun_ms: dict[int, int] = {}
    notes: dict[str, Any] = {}
    deleted: bool = False
    ended: str | None = None
    format: int = 1

    @property
    def who(self) -> str:
        if self.deleted:
            return "an engine that is unknown, because the lease object was deleted"
        return f"pid {self.pid} on {self.host.partition('/')[0] or 'an unknown machine'}"


def folder_of(epoch: int) -> str:
    """Where an epoch lies below the address.

    >>> folder_of(7)
    '000007'
    """
    return f"{epoch:06}"


def _claim_of(epoch: int) -> str:
    return f"{CLAIMS}/{folder_of(epoch)}.json"


async def newest_epoch(bucket: Bucket) -> int:
    """The last one that was taken, with a copy or without; 0 for none."""
    claims = [
        found.name.rpartition("/")[2].partition(".")[0] for found in await bucket.names(CLAIMS)
    ]
    return max(
        [0, *(int(number) for number in claims if number.isdigit()), *await epochs_in(bucket)]
    )


async def epochs_in(bucket: Bucket) -> list[int]:
    """Those that have a folder, in order."""
    return sorted(int(name) for name in await bucket.folders() if name.isdigit())


def boot_ms() -> int:
    """Milliseconds since the machine began, those in which it slept too, where the system counts
    them.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


# --- the rules, without a clock or a bucket -------------------------------------------------------


class Patience:
    """How long the lease that we see may still be held, by our own clock."""

    def __init__(self) -> None:
        self._seen: tuple[str | None, int] | None = None
        self._since_ms = 0

    def left_ms(self, row: LeaseRow, now_ms: int) -> int:
        """What is left to wait; 0: it may be taken. `now_ms` is when the answer with this row had
        arrived.
        """
        if row.holder is None:
            return 0
        if (row.holder, row.beats) != self._seen:
            self._seen, self._since_ms = (row.holder, row.beats), now_ms
        return max(0, self._since_ms + row.ttl_ms - now_ms)


class Hold:
    """How long a lease that we have written is surely ours, by our own clock."""

    def __init__(self, ttl_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._until_ms = 0
        self.lost = self.released = False

    def renewed(self, sent_ms: int) -> None:
        """A renewal that was sent then has succeeded."""
        self._until_ms = max(
            self._until_ms, sent_ms + self._ttl_ms - max(self._ttl_ms // 5, MARGIN_MS_MIN)
        )

    def left_ms(self, now_ms: int) -> int:
        return 0 if self.lost or self.released else max(0, self._until_ms - now_ms)


# --- the driver -----------------------------------------------------------------------------------


class Lease:
    """One taking of the lease. `row` is what we last wrote; `lost` gets the error when somebody
    else has taken it.
    """

    def __init__(
        self,
        bucket: Bucket,
        where: str,
        *,
        ttl_ms: int,
        clock_ms: Callable[[], int] = boot_ms,
        fencing: bool = True,
    ) -> None:
        self._bucket, self._where, self._ttl_ms, self._clock_ms, self._fencing = (
            bucket,
            where,
            ttl_ms,
            clock_ms,
            fencing,
        )
        self._id = uuid.uuid4().hex
        self._hold, self._patience = Hold(ttl_ms), Patience()
        self._tag: str | None = None
        self._writing = asyncio.Lock()
        self._try_s = min(
            TIMEOUT_S, ttl_ms / 1000 / 3
        )  # of one request: a hung one must leave time for another
        self._main = asyncio.get_running_loop()
        self._thread: LoopThread | None = None
        self._alive: Liveness | None = None
        self._loop = Loop("replica-lease", self._renew_in_time)
        self._report: dict[str, Any] = {}
        self._trouble = False
        self._on_back: Callable[[], None] | None = None
        self._error: ReplicaLeaseLost | None = None
        self.row, self.handed = LeaseRow(), cast("str | None", None)
        self.lost: asyncio.Future[ReplicaLeaseLost] = self._main.create_future()

    async def look(self) -> LeaseRow | None:
        """The object as it is, or None. Raises `ReplicaCorrupt` for rubbish."""
        found = await self._read()
        return None if found is None else found[0]

    async def take(
        self,
        *,
        store_id: str | None,
        on_wait: Callable[[LeaseRow, float], None] | None = None,
        wait_s: float | None = None,
    ) -> LeaseRow:
        """Take the lease, waiting for its holder's time to end; `on_wait` hears every quarter of a
        second how long that is, at most.

        Raises `LeaseHeld` after `wait_s` seconds, `ReplicaOfAnother`, `ReplicaCorrupt`.
        """
        began_ms, sent_ms = self._clock_ms(), 0
        seen, known = False, cast("LeaseRow | None", None)
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
            if store_id is not None and row.store_id not in (None, store_id):
                raise ReplicaOfAnother(
                    self._where, f"it is of store {row.store_id}, and ours is {store_id}"
                )
            left_ms = (
                0
                if identity.is_dead(row.host, row.pid, row.born)
                else self._patience.left_ms(row, self._clock_ms())
            )
            if left_ms == 0 or await self._is_first(row):
                with contextlib.suppress(ReplicaUnavailable):
                    ours = await self._next(row, store_id)
                    sent_ms = self._clock_ms()
                    if ours is not None and (written := await self._write(ours, tag)) is not None:
                        return self._holds(ours, written, sent_ms)
                continue
            waited_s = (self._clock_ms() - began_ms) / 1000
            if wait_s is not None and waited_s >= wait_s:
                raise LeaseHeld(self._where, row.who, waited_s)
            if on_wait is not None:
                on_wait(row, left_ms / 1000)
            await asyncio.sleep(min(POLL_S, left_ms / 1000))

    async def _is_first(self, row: LeaseRow) -> bool:
        """Whether ours is the first epoch, and this row was put there by who had to think that the
        object of another one was deleted.
        """
        with contextlib.suppress(ReplicaUnavailable):
            return (
                row.deleted and row.epoch == 1 and row.base is None and await self._has_claimed(1)
            )
        return False

    async def _next(self, row: LeaseRow, store_id: str | None) -> LeaseRow | None:
        """Our row after this one, with an epoch that was never anybody's. None where the replica is
        not as new as it looked.
        """
        if row.epoch == 0 or await self._is_first(row):
            if not await self._claim(1):
                await asyncio.sleep(POLL_S)  # another machine is about to take it
                return None
            return self._ours(row, 1, store_id)
        if row.deleted:
            row = await self._by_epochs(row)
        return self._ours(row, await self._claim_after(row.epoch), store_id)

    async def _claim_after(self, epoch: int) -> int:
        """The next epoch that nobody has claimed."""
        while not await self._claim(epoch := epoch + 1):
            pass
        return epoch

    async def _claim(self, epoch: int) -> bool:
        """Whether an epoch is ours; a claim stays, also where its lease is deleted before anybody
        has seen it.
        """
        name, data = _claim_of(epoch), self._id.encode()
        if not self._fencing:
            return bool(await self._bucket.put(name, data))
        return await self._bucket.put_new(name, data) is not None or await self._has_claimed(epoch)

    async def _has_claimed(self, epoch: int) -> bool:
        found = await self._bucket.get(_claim_of(epoch))
        return found is not None and found.data == self._id.encode()

    def _ours(self, row: LeaseRow, epoch: int, store_id: str | None) -> LeaseRow:
        pid, self.handed = os.getpid(), row.ended
        return msgspec.structs.replace(
            row,
            epoch=epoch,
            holder=self._id,
            host=identity.host(),
            pid=pid,
            born=identity.born(pid),
            ttl_ms=self._ttl_ms,
            beats=row.beats + 1,
            store_id=store_id or row.store_id,
            deleted=False,
            ended=None,
            format=1,
        )

    def _holds(self, row: LeaseRow, tag: str | None, sent_ms: int) -> LeaseRow:
        self.row, self._tag = row, tag
        self._hold.renewed(sent_ms)
        return row

    # --- where the object is missing --------------------------------------------------------------

    async def _where_none_is(
        self, known: LeaseRow | None
    ) -> tuple[LeaseRow, str] | tuple[LeaseRow, None] | None:
        """What to go by: a free row without a tag for a new replica, else what stands in for the
        deleted object; None: look again.
        """
        if known is None and (
            (newest := await newest_epoch(self._bucket)) == 0
            or (newest == 1 and await self._has_claimed(1))
        ):
            return LeaseRow(), None
        return await self._stand_in(known or LeaseRow())

    async def _stand_in(self, known: LeaseRow) -> tuple[LeaseRow, str] | None:
        """Put a row there that nobody holds. Whoever held the lease can't renew it now without
        seeing that, so one lease later, if the row still stands, it is free. None where something
        else is there by now.
        """
        row = msgspec.structs.replace(
            await self._by_epochs(known),
            holder=uuid.uuid4().hex,
            host="",
            pid=0,
            born="",
            ttl_ms=max(self._ttl_ms, known.ttl_ms),
            deleted=True,
            ended=None,
        )
        written = await self._write(row, None)
        if written is None:
            return None
        log.warning(
            "the lease object in %s was deleted; it counts as held for %d ms more",
            self._where,
            row.ttl_ms,
        )
        return row, written

    async def _by_epochs(self, row: LeaseRow) -> LeaseRow:
        """This row, with what the bucket tells: the newest epoch, and as the base the newest one
        that holds anything.
        """
        epochs, newest = await epochs_in(self._bucket), await newest_epoch(self._bucket)
        filled = [
            epoch
            for epoch in epochs
            if any(
                found.name.endswith(".ltx") for found in await self._bucket.names(folder_of(epoch))
            )
        ]
        base = max(filled, default=None)
        txid = row.txid if base == row.base else 0
        return msgspec.structs.replace(
            row,
            epoch=max(row.epoch, newest),
            base=base,
            txid=txid,
            rows=0 if base is None else row.rows,
        )

    async def _take_back(self, row: LeaseRow, tag: str) -> None:
        """Our object was deleted. While the lease is surely ours it is still ours; after that we
        wait as all others do. It is lost in any case if another epoch was begun: our clock may not
        have counted a pause of the machine.
        """
        if not self.held() and (left_ms := self._patience.left_ms(row, self._clock_ms())) > 0:
            raise ReplicaUnavailable(
                self._where, f"its lease object was deleted, and may be taken again in {left_ms} ms"
            )
        ours, newest = self.row.epoch, await newest_epoch(self._bucket)
        for epoch in range(ours + 1, newest + 1):
            if not await self._has_claimed(epoch):  # ours may be one that we were about to begin
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
            raise ReplicaCorrupt(self._where, str(error)) from error
        if row.format != 1:
            raise ReplicaCorrupt(
                self._where, f"it has format {row.format}, which is a newer Perdure's"
            )
        return row, stored.tag

    async def _write(self, row: LeaseRow, tag: str | None) -> str | None:
        data = msgspec.json.format(msgspec.json.encode(row))
        if not self._fencing:
            return await self._in_time(self._bucket.put(NAME, data))
        return await self._in_time(
            self._bucket.put_new(NAME, data)
            if tag is None
            else self._bucket.put_if(NAME, data, tag)
        )

    async def _in_time(self, request: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._try_s):
                return await request
        except TimeoutError:
            raise ReplicaUnavailable(
                self._where, f"it has not answered for {self._try_s:g} s"
            ) from None

    # --- holding it -------------------------------------------------------------------------------

    def start(self, on_back: Callable[[], None] | None = None) -> None:
        """Renew it from here on, from a thread of its own; `on_back` is called when that works
        again after it had not.
        """
        self._on_back = on_back
        self._alive, self._thread = (
            Liveness(self._ttl_ms / 1000),
            LoopThread("perdure-replica-lease"),
        )
        self._writing = asyncio.Lock()  # a lock belongs to one event loop
        self._thread.soon(self._loop.start)

    def held(self) -> bool:
        """Whether it is surely ours at this moment."""
        return self._hold.left_ms(self._clock_ms()) > 0

    def held_left_ms(self) -> int:
        return self._hold.left_ms(self._clock_ms())

    async def still_ours(self) -> None:
        """Read the object: what is durable before this call is in every copy that a later holder
        takes, if it still names us.

        Raises `ReplicaLeaseLost` for good where it names another holder, `ReplicaUnavailable` where
        it can't be read or is missing.
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
            raise ReplicaUnavailable(
                self._where, "the lease object is missing from the bucket, and is made anew"
            )

    def report(self, **facts: Any) -> None:
        """What renewals say of the replica from here on: `rows`, `txid`, `notes`. Notes that are
        very long are left out.
        """
        if len(msgspec.json.encode(facts.get("notes"))) > NOTES_BYTES_MAX:
            facts["notes"] = {}
        self._report = self._report | facts  # never changed in place: the thread reads it

    async def renew(self, **changes: Any) -> None:
        """Write a sign of life, and with it `base`, `epoch` or `store_id`. Raises
        `ReplicaUnavailable`, or `ReplicaLeaseLost` for good.
        """
        await (
            self._renew(changes)
            if self._thread is None
            else self._thread.call(self._renew(changes))
        )

    async def _renew(self, changes: dict[str, Any]) -> None:
        async with self._writing:
            while not self._hold.lost:
                row = msgspec.structs.replace(
                    self.row, **{**self._report, **changes, "beats": self.row.beats + 1}
                )
                sent_ms = self._clock_ms()
                if (tag := await self._write(row, self._tag)) is not None:
                    self._holds(row, tag, sent_ms)
                    return
                await self._look_who_wrote()
        raise self._error or ReplicaLeaseLost(self._where, "it has been released")

    async def _look_who_wrote(self) -> None:
        """Our condition was not met: by our own write whose answer got lost, because the object was
        deleted, or by somebody else.
        """
        found = await self._read() or await self._stand_in(self.row)
        if found is None:
            return  # something is there by now: the next write is refused, and we look again
        if found[0].holder == self._id:
            self.row, self._tag = (
                found  # with its beats: a sign of life that has been seen before would be none
            )
        elif found[0].deleted:
            await self._take_back(*found)
        else:
            self._lose_to(found[0])

    def _lose_to(self, row: LeaseRow) -> None:
        self._lose(f"{row.who or 'somebody'} has taken it, in epoch {row.epoch}")

    def _lose(self, why: str) -> None:
        self._error, self._hold.lost = ReplicaLeaseLost(self._where, why), True
        if self._thread is None:
            self._say_lost()
        else:
            self._main.call_soon_threadsafe(self._say_lost)

    def _say_lost(self) -> None:
        if not self.lost.done() and self._error is not None:
            self.lost.set_result(self._error)

    async def _renew_in_time(self) -> float:
        if self._alive is not None and self._alive.stalled:
            log.error(
                (
                    "the event loop stands still for more than %g s; its lease is not renewed "
                    "until it moves"
                ),
                self._alive.stall_s_max,
            )
        elif not self._hold.lost:
            try:
                await self._renew({})
                if self._trouble:
                    log.warning("the lease is renewed again")
                    if self._on_back is not None:
                        self._main.call_soon_threadsafe(self._on_back)
                self._trouble = False
            except ReplicaLeaseLost:
                return self._ttl_ms / 1000
            except StoreError as error:
                if not self._trouble:
                    log.warning(
                        "the lease can't be renewed, and is tried again; %d ms of it are left: %s",
                        self.held_left_ms(),
                        error,
                    )
                self._trouble = True
                return self._ttl_ms / 1000 / RENEWALS_PER_TTL / 4
        return self._ttl_ms / 1000 / RENEWALS_PER_TTL

    async def name_base(self, epoch: int, txid: int, store_id: str | None, now_ms: int) -> None:
        """From here on a restore begins from this epoch of ours, which holds a whole copy by now,
        up to `txid`. By its number: our newest epoch may be a later one already, which holds
        nothing.
        """
        await self.renew(
            base=epoch, txid=txid, store_id=store_id, begun_ms={**self.row.begun_ms, epoch: now_ms}
        )

    async def advance(self) -> None:
        """Begin a new epoch of our own."""
        await self.renew(epoch=await self._claim_after(self.row.epoch))

    async def release(self, ended: str | None = None) -> None:
        """Let others have it at once; `ended` is for the next holder alone, as `handed`. Cancelled,
        it is renewed no more all the same.
        """
        try:
            if self._thread is not None:
                await self._thread.call(self._loop.stop())
            self._hold.released = (
                True  # from before the write: others may have it before we hear that it was done
            )
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

    # --- old epochs -------------------------------------------------------------------------------

    async def sweep(self, older_than_ms: int, now_ms: int) -> list[int]:
        """Delete what was written below epochs before ours and before the base, if its newest
        object is old enough.
        """
        oldest_kept = min(self.row.epoch, self.row.base if self.row.base is not None else 0)
        gone = []
        for epoch in await epochs_in(self._bucket):
            if epoch >= oldest_kept:
                break
            found = await self._bucket.names(folder_of(epoch))
            if found and max(one.modified_ms for one in found) < now_ms - older_than_ms:
                await self._bucket.delete([one.name for one in found])
                gone.append(epoch)
        claims = [
            found.name
            for found in await self._bucket.names(CLAIMS)
            if found.name < _claim_of(oldest_kept)
        ]
        if claims:
            await self._bucket.delete(claims)
        if gone:
            await self.renew(
                begun_ms={epoch: ms for epoch, ms in self.row.begun_ms.items() if epoch not in gone}
            )
        return gone

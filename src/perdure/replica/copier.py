"""The copier: one Litestream process that copies the store below one epoch, or none while it rests.

Rules: what Litestream answers counts only after the lease names this epoch as the one that a
restore begins from; what is known against a copy is remembered until the next one begins.
"""

from __future__ import annotations

import asyncio
import logging
import time

from perdure.errors import PerdureError, ReplicaUnavailable, brief
from perdure.process.periodic import to_its_end
from perdure.replica.acquire import Acquired
from perdure.replica.address import Address
from perdure.replica.epochs import folder_of
from perdure.replica.handover import Handover
from perdure.replica.supervisor import Litestream, Position

log = logging.getLogger("perdure")

CONTINUE_S_MAX = 10.0


class NotRunning:
    """In place of a Litestream process while none runs; `reason` says why."""

    state, broken, pid = "failing", "", None
    restarts = refusals = 0
    copying = lacks_room = ended_by_itself = False

    def __init__(self, address: Address, reason: str) -> None:
        self._address, self.reason = address, reason

    async def sync(self) -> Position:
        raise ReplicaUnavailable(str(self._address), self.reason)

    async def stop(self, *, at_once: bool = False) -> None: ...

    def kill(self) -> None: ...


class Copier:
    """Copies one store. `moving` is held while the epoch changes, and by a restore for a test.

    `epoch` is the one that the copy lies below, `txid` the last transaction there, and `based`
    whether the lease names this epoch as the one to restore from. `doubted` says why the copy can't
    be restored, where a drill or a look at the bucket has found that.
    """

    def __init__(self, acquired: Acquired) -> None:
        self._acquired, self._lease, self._address = acquired, acquired.lease, acquired.address
        self.process: Litestream | NotRunning = NotRunning(
            acquired.address, "litestream does not run"
        )
        self.moving = asyncio.Lock()
        self.epoch, self.txid, self.based = 0, 0, False
        self.doubted = ""

    @property
    def running(self) -> bool:
        return isinstance(self.process, Litestream)

    @property
    def broken(self) -> str:
        """Why the copy can't be restored, if that is known; nothing is confirmed then."""
        return self.doubted or self.process.broken

    def doubt(self, why: str) -> None:
        """The copy can't be restored, and the bucket is not to blame: a new one has to be made."""
        if self._lease.renewed_in_time:
            self.doubted = brief(why)

    async def start(self, left: Handover | None = None) -> None:
        """Begin a copy below the lease's newest epoch, or continue the one that was left.

        Raises `ReplicaLeaseLost`, and `ReplicaUnavailable` where Litestream does not start.
        """
        if self._lease.lost.done():  # on the same disk the next engine may run its own by now
            raise self._lease.lost.result()
        self.doubted = ""
        if left is None:
            self.epoch, self.txid, self.based = self._lease.row.epoch, 0, False
            self._lease.report(txid=0)  # numbers of transactions begin anew with the epoch
        else:
            self.epoch, self.txid, self.based = left.folder, left.txid, True
        place = self._address.child(folder_of(self.epoch))
        acquired, before = self._acquired, self.process
        litestream = Litestream(acquired.path, place, acquired.folder, acquired.binary, self.txid)
        self.process = litestream
        try:
            await litestream.start()
        except BaseException:
            self.process = before
            await to_its_end(litestream.stop(at_once=True), litestream.kill)
            raise

    async def go_on(self, left: Handover) -> bool:
        """Continue the copy of the last engine; False where that can't be done."""
        try:
            async with asyncio.timeout(CONTINUE_S_MAX):
                await self.start(left)
                await self.sync()
        except (TimeoutError, OSError, PerdureError) as error:
            log.warning(
                "the copy that the last engine has left can't be continued, "
                "so a new one is made: %s", error
            )  # fmt: skip
            await self.rest("the copy that was left can't be continued", at_once=True)
            return False
        return True

    async def rest(self, reason: str, *, at_once: bool) -> None:
        """End the process, if one runs, until the next `start`."""
        self.doubted, self.based = self.broken, False
        if isinstance(old := self.process, Litestream):
            self.process = NotRunning(self._address, reason)
            await to_its_end(old.stop(at_once=at_once), old.kill)  # nothing else knows it now

    async def sync(self) -> Position:
        """Copy what is committed by now. Raises `ReplicaUnavailable`, `ReplicaLeaseLost`."""
        process = self.process
        position = await process.sync()
        self._check_current(process)
        if not self.based and position.replicated > 0:  # the first transaction is the whole file
            now_ms, store_id = time.time_ns() // 1_000_000, self._acquired.store_id
            await self._lease.name_base(self.epoch, position.replicated, store_id, now_ms)
            self._check_current(process)
            self.based = True
            self._lease.report(txid=position.replicated)
        if self.based:
            self.txid = max(self.txid, position.replicated)
        return position

    def _check_current(self, process: Litestream | NotRunning) -> None:
        if process is not self.process:
            raise ReplicaUnavailable(str(self._address), "a new epoch has begun")

    def retry(self) -> None:
        """Start Litestream again at once: it tries an absent bucket after pauses that grow."""
        if self.based:
            self.process.kill()

"""The barrier: whoever must not go on before the replica has the history waits here, and all share one round trip.

Rules: who comes while a round is under way waits for the next one, because that one may have begun before his commit; a round is
through when some answer has reached the transaction that its first answer named, and our lease is still held then.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

from perdure.errors import PerdureError, ReplicaUnavailable, StoreError
from perdure.replica.litestream import Position

RETRY_S_MIN, RETRY_S_MAX = 0.1, 2.0


class Syncs(Protocol):
    """What copies: `Litestream`."""

    async def sync(self) -> Position: ...


class Barrier:
    """`commits` counts what was committed here, None while a commit may be under way; `held` says whether the lease is held now; times
    are the event loop's, in seconds.
    """

    def __init__(self, where: str, syncs: Syncs, commits: Callable[[], int | None], held: Callable[[], bool]) -> None:
        self._where, self._syncs, self._commits, self._held = where, syncs, commits, held
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Callable[[PerdureError | None], None]] = []
        self._asked, self._under_way = asyncio.Event(), False
        self._confirmed: int | None = None
        self._task = self._loop.create_task(self._run(), name="perdure-barrier")
        self.position = Position(0, 0)
        self.rounds = 0
        self.confirmed_s = self._loop.time()
        """All that was committed by then is in the replica."""
        self.trouble: StoreError | None = None
        """Why the last round failed, until one succeeds."""
        self._shut: PerdureError | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        return self._under_way or bool(self._waiting)

    def passed(self) -> bool:
        """Whether all that is committed is confirmed already."""
        return self._confirmed is not None and self._confirmed == self._commits() and self._held() and self._shut is None

    def after(self, action: Callable[[], None]) -> None:
        """Call `action` when all that is committed by now is in the replica; at once if it is, never if the lease is lost."""
        if self.passed():
            action()
        else:
            self._add(lambda error: action() if error is None else None)

    async def wait(self) -> None:
        """Come back when all that is committed by now is in the replica. Raises what ended the engine."""
        if not self.passed():
            await self.round()

    async def round(self) -> None:
        """Come back after a round that begins after this call, whether we have committed anything or not."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._add(partial(_settle, future))
        await future

    def lag_s(self, others_s: float = -math.inf) -> float:
        """For how long something has been committed that the replica does not have, here, or by others before `others_s`."""
        behind = self._confirmed != self._commits() or self.confirmed_s < others_s
        return self._loop.time() - self.confirmed_s if behind else 0.0

    def all_copied(self, s: float) -> None:
        """Whatever had been committed by then is in the replica: nobody has written since the last round."""
        self.confirmed_s = max(self.confirmed_s, s)

    def _add(self, tell: Callable[[PerdureError | None], None]) -> None:
        if self._shut is not None:
            tell(self._shut)
            return
        self._waiting.append(tell)
        self._asked.set()

    async def shut(self, error: PerdureError) -> None:
        """Confirm nothing more, and tell all who wait why."""
        self._shut = self._shut or error
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        waiting, self._waiting = self._waiting, []
        _tell_all(waiting, self._shut)

    async def _run(self) -> None:
        retry_s = RETRY_S_MIN
        while True:
            await self._asked.wait()
            self._asked.clear()
            waiting, self._waiting, self._under_way = self._waiting, [], True
            try:
                await self._round()
            except Exception as error:  # whatever it was, who waits is not told that all is well
                self.trouble = error if isinstance(error, StoreError) else ReplicaUnavailable(self._where, repr(error))
                self._waiting[:0], self._under_way = waiting, False
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
                self._asked.set()
            except asyncio.CancelledError:
                self._waiting[:0] = waiting
                raise
            else:
                self.trouble, retry_s, self._under_way = None, RETRY_S_MIN, False
                self._loop.call_soon(_tell_all, waiting, None)  # steps begin in plain callbacks, never within a task

    async def _round(self) -> None:
        commits, begin_s = self._commits(), self._loop.time()
        self.position = await self._syncs.sync()
        wanted = self.position.txid
        while self.position.replicated < wanted:  # another sync was under way, and this answer came from that
            self.position = await self._syncs.sync()
        if not self._held():
            raise ReplicaUnavailable(self._where, "the lease in the bucket is not held now; it is renewed")
        self._confirmed, self.confirmed_s = commits, begin_s
        self.rounds += 1


def _tell_all(waiting: list[Callable[[PerdureError | None], None]], error: PerdureError | None) -> None:
    for tell in waiting:
        tell(error)


def _settle(future: asyncio.Future[None], error: PerdureError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)

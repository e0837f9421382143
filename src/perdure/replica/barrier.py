"""The barrier: holds back effects and answers until the replica has the history.

Rules: all that waits shares round trips; what comes during a round waits for the next one, because
that one may have begun before its commit. A round is confirmed when an answer has reached the
transaction that its first answer named, and the lease object, read after that answer, still names
us (docs/adr/0017). While that read is under way the next round may sync already; what a later read
proves, it proves for all rounds before it. A copy that is known to be broken confirms nothing, not
even what it has confirmed before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from perdure.errors import PerdureError, ReplicaFull, ReplicaUnavailable, StoreError
from perdure.process.slices import Slices
from perdure.replica.supervisor import Position
from perdure.store.sqlite.checksum import HistoryChecksum

RETRY_S_MIN, RETRY_S_MAX = 0.1, 2.0
CHECKS_MAX = 4  # reads of the lease at once; syncs wait for the oldest one beyond that

_Done = Callable[[PerdureError | None], None]


class _Round(msgspec.Struct, eq=False):
    """Everything that was committed when it began, and the calls that wait for that."""

    waiting: list[_Done]
    checksum: HistoryChecksum | None
    begin_s: float


class Barrier:
    """Confirms commits. Times are the event loop's, in seconds.

    `sync` has Litestream copy what is committed. `committed` gives the file's checksum as of now,
    which every commit of every process changes. `obstacle` says why nothing may be confirmed now;
    "" if nothing stands in the way. `still_ours` reads the lease object and raises if it does not
    name us; None: the clock is trusted.
    """

    def __init__(
        self,
        where: str,
        sync: Callable[[], Awaitable[Position]],
        committed: Callable[[], HistoryChecksum | None],
        obstacle: Callable[[], str],
        still_ours: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._where, self._sync_once, self._committed = where, sync, committed
        self._obstacle, self._still_ours = obstacle, still_ours
        self._loop = asyncio.get_running_loop()
        self._calls = Slices(self._loop)
        self._waiting: list[_Done] = []
        self._asked, self._syncing = asyncio.Event(), False
        self._synced: deque[_Round] = deque()  # rounds for which the lease is being read
        self._checks: set[asyncio.Task[None]] = set()
        self._retry_s = RETRY_S_MIN
        self._shut: PerdureError | None = None
        self._task = self._loop.create_task(self._run(), name="perdure-barrier")
        self.position = Position(0, 0)
        self.rounds = 0
        self.confirmed: HistoryChecksum | None = None
        """The file's checksum as of the beginning of the last round that was confirmed."""
        self.confirmed_s = self._loop.time()
        """All that was committed by then is in the replica."""
        self.last_error: StoreError | None = None
        """Why the last round failed, until one succeeds."""
        self.full: ReplicaFull | None = None
        """Why nothing new may be begun: what waits for the replica fills the disk."""
        self.on_confirmed: Callable[[float], None] | None = None
        """Is called with the milliseconds that a round took, when it is confirmed."""

    @property
    def wanted(self) -> bool:
        """Whether a sync is waited for."""
        return self._syncing or bool(self._waiting)

    @property
    def behind(self) -> bool:
        """Whether anything is committed, by whichever process, that is not confirmed."""
        return self.confirmed is None or self.confirmed != self._committed()

    def passed(self) -> bool:
        """Whether all that is committed is confirmed, and nothing is known against the copy."""
        return not self.behind and self._shut is None and not self._obstacle()

    def after(self, action: Callable[[], None]) -> None:
        """Call `action` when all that is committed by now is in the replica.

        At once if it is; never if the lease is lost.
        """
        if self.passed():
            action()
        else:
            self._add(lambda error: action() if error is None else None)

    async def wait(self) -> None:
        """Return when all that is committed by now is in the replica.

        Raises what ended the engine.
        """
        if not self.passed():
            await self.round()

    async def round(self) -> None:
        """Return after a round that begins after this call, whether anything was committed or not.

        Raises what ended the engine.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._add(partial(_settle, future))
        await future

    def waiting_for(self) -> PerdureError:
        """Why a wait takes so long."""
        slow = "it has not confirmed yet what was written, and gives no reason"
        return self.last_error or ReplicaUnavailable(self._where, slow)

    def lag_s(self) -> float:
        """For how long something has been committed that the replica does not have."""
        return self._loop.time() - self.confirmed_s if self.behind else 0.0

    def all_copied(self, s: float) -> None:
        """All that was committed by then is in the replica: nothing was written since."""
        self.confirmed_s = max(self.confirmed_s, s)

    def _add(self, done: _Done) -> None:
        if self._shut is not None:
            done(self._shut)
            return
        self._waiting.append(done)
        self._asked.set()

    async def shut(self, error: PerdureError) -> None:
        """Confirm nothing more; all waits end with `error`."""
        self._shut = self._shut or error
        ending = [task for task in (self._task, *self._checks) if not task.done()]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        waiting = [done for one in self._synced for done in one.waiting] + self._waiting
        self._synced.clear()
        self._waiting = []
        for done in waiting:
            done(self._shut)

    # --- rounds -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            if self.last_error is not None:
                await asyncio.sleep(self._retry_s)
                self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)
            while len(self._checks) >= CHECKS_MAX:
                await asyncio.wait(self._checks, return_when=asyncio.FIRST_COMPLETED)
            self._asked.clear()
            one = _Round(self._waiting, self._committed(), self._loop.time())
            self._waiting, self._syncing = [], True
            try:
                await self._sync()
            except Exception as error:
                self._failed(one, error)
            except asyncio.CancelledError:
                self._waiting[:0] = one.waiting
                raise
            else:
                self._synced.append(one)
                self._prove(one)
            finally:
                self._syncing = False

    async def _sync(self) -> None:
        self.position = await self._sync_once()
        wanted = self.position.txid
        while self.position.replicated < wanted:  # the answer came from a sync that was under way
            self.position = await self._sync_once()
        self._check_obstacle()

    def _check_obstacle(self) -> None:
        if obstacle := self._obstacle():
            raise ReplicaUnavailable(self._where, obstacle)

    def _prove(self, one: _Round) -> None:
        """Confirm a round that is synced: by the lease object, unless the clock is trusted."""
        if self._still_ours is None:
            self._confirm(one)
            return
        check = self._loop.create_task(
            self._check(one, self._still_ours), name="perdure-barrier-check"
        )
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    async def _check(self, one: _Round, still_ours: Callable[[], Awaitable[None]]) -> None:
        """The clock may have stood still with the whole machine; the bucket has not.

        Another engine that takes the lease writes the object before it reads the copy.
        """
        try:
            await still_ours()
            self._check_obstacle()
        except Exception as error:
            if one in self._synced:  # else a later read has proved it
                self._synced.remove(one)
                self._failed(one, error)
        else:
            self._confirm(one)

    def _confirm(self, one: _Round) -> None:
        """This round is confirmed, and with it all before it."""
        waiting: list[_Done] = []
        while one in self._synced:
            first = self._synced.popleft()
            waiting += first.waiting
            self.confirmed, self.confirmed_s = first.checksum, first.begin_s
            self.rounds += 1
            self.last_error, self._retry_s = None, RETRY_S_MIN
            if self.on_confirmed is not None:
                self.on_confirmed((self._loop.time() - first.begin_s) * 1000)
        for done in waiting:  # steps begin in plain callbacks, and not thousands of them in one
            self._calls.add(done, None)

    def _failed(self, one: _Round, error: Exception) -> None:
        """Whatever it was, nothing is confirmed; the next round is for these calls, too."""
        if not isinstance(error, StoreError):
            error = ReplicaUnavailable(self._where, repr(error))
        self.last_error = error
        self._waiting[:0] = one.waiting
        self._asked.set()


def _settle(future: asyncio.Future[None], error: PerdureError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)

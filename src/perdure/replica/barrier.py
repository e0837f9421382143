"""The barrier: what must not go on before the replica has the history waits here, and all that
waits shares round trips.

Rules: what comes while a round is under way waits for the next one, because that one may have begun
before its commit; a round is confirmed when some answer has reached the transaction that its first
answer named, and the lease object, read after that answer, still names us (docs/adr/0017); while
that read is under way the next round may sync already, and what a later read proves it proves for
all rounds before it; a copy that is known to be broken confirms nothing, not even what it has
confirmed before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import msgspec

from perdure.errors import PerdureError, ReplicaUnavailable, StoreError
from perdure.process.slices import Slices
from perdure.replica.supervisor import Position
from perdure.store.sqlite.checksum import HistoryChecksum

RETRY_S_MIN, RETRY_S_MAX = 0.1, 2.0
CHECKS_MAX = 4  # reads of the lease at once; syncs wait for the oldest one beyond that

_Tell = Callable[[PerdureError | None], None]


class Syncs(Protocol):
    """What copies: `Replica`."""

    @property
    def broken(self) -> str:
        """Why the copy can't be restored, if it is known."""
        ...

    async def sync(self) -> Position: ...


class _Round(msgspec.Struct, eq=False):
    """Everything that was committed when it began, and who waits for that."""

    waiting: list[_Tell]
    seal: HistoryChecksum | None
    begin_s: float


class Barrier:
    """`committed` gives the file's seal as of now, which every commit of every process moves;
    `held` says whether the lease is held by our clock; `still_ours` reads the lease object and
    raises if it does not name us (None: the clock is trusted). Times are the event loop's, in
    seconds.
    """

    def __init__(
        self,
        where: str,
        syncs: Syncs,
        committed: Callable[[], HistoryChecksum | None],
        held: Callable[[], bool],
        still_ours: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._where, self._syncs, self._committed, self._held, self._still_ours = (
            where,
            syncs,
            committed,
            held,
            still_ours,
        )
        self._loop = asyncio.get_running_loop()
        self._telling = Slices(self._loop)
        self._waiting: list[_Tell] = []
        self._asked, self._syncing = asyncio.Event(), False
        self._synced: deque[_Round] = deque()  # whose lease is being looked at
        self._checks: set[asyncio.Task[None]] = set()
        self._retry_s = RETRY_S_MIN
        self._shut: PerdureError | None = None
        self._task = self._loop.create_task(self._run(), name="perdure-barrier")
        self.position = Position(0, 0)
        self.rounds = 0
        self.confirmed: HistoryChecksum | None = None
        """The file's seal as of the beginning of the last round that was confirmed: all that it
        counts is in the replica.
        """
        self.confirmed_s = self._loop.time()
        """All that was committed by then is in the replica."""
        self.trouble: StoreError | None = None
        """Why the last round failed, until one succeeds."""

    @property
    def wanted(self) -> bool:
        """Whether a sync is waited for."""
        return self._syncing or bool(self._waiting)

    @property
    def behind(self) -> bool:
        """Whether anything is committed, by whichever process, that is not confirmed."""
        return self.confirmed is None or self.confirmed != self._committed()

    def passed(self) -> bool:
        """Whether all that is committed is confirmed already, by a copy that nothing is known
        against.
        """
        return not self.behind and self._held() and self._shut is None and not self._syncs.broken

    def after(self, action: Callable[[], None]) -> None:
        """Call `action` when all that is committed by now is in the replica; at once if it is,
        never if the lease is lost.
        """
        if self.passed():
            action()
        else:
            self._add(lambda error: action() if error is None else None)

    async def wait(self) -> None:
        """Come back when all that is committed by now is in the replica. Raises what ended the
        engine.
        """
        if not self.passed():
            await self.round()

    async def round(self) -> None:
        """Come back after a round that begins after this call, whether anything was committed or
        not.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._add(partial(_settle, future))
        await future

    def lag_s(self) -> float:
        """For how long something has been committed that the replica does not have."""
        return self._loop.time() - self.confirmed_s if self.behind else 0.0

    def all_copied(self, s: float) -> None:
        """Whatever had been committed by then is in the replica: nothing was written since the last
        round.
        """
        self.confirmed_s = max(self.confirmed_s, s)

    def _add(self, tell: _Tell) -> None:
        if self._shut is not None:
            tell(self._shut)
            return
        self._waiting.append(tell)
        self._asked.set()

    async def shut(self, error: PerdureError) -> None:
        """Confirm nothing more, and tell all who wait why."""
        self._shut = self._shut or error
        ending = [task for task in (self._task, *self._checks) if not task.done()]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        waiting = [tell for one in self._synced for tell in one.waiting] + self._waiting
        self._synced.clear()
        self._waiting = []
        _tell_all(waiting, self._shut)

    # --- rounds -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            if self.trouble is not None:
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
                if self._still_ours is None:
                    self._confirm(one)
                else:
                    check = self._loop.create_task(
                        self._check(one, self._still_ours), name="perdure-barrier-check"
                    )
                    self._checks.add(check)
                    check.add_done_callback(self._checks.discard)
            finally:
                self._syncing = False

    async def _sync(self) -> None:
        self.position = await self._syncs.sync()
        wanted = self.position.txid
        while (
            self.position.replicated < wanted
        ):  # another sync was under way, and this answer came from that
            self.position = await self._syncs.sync()
        self._check_well()

    def _check_well(self) -> None:
        if self._syncs.broken:
            raise ReplicaUnavailable(self._where, f"{self._syncs.broken}; a new copy is made")
        if not self._held():
            raise ReplicaUnavailable(
                self._where, "the lease in the bucket is not held now; it is renewed"
            )

    async def _check(self, one: _Round, still_ours: Callable[[], Awaitable[None]]) -> None:
        """The clock may have stood still with the whole machine. The bucket has not: whoever takes
        the lease writes it before reading.
        """
        try:
            await still_ours()
            self._check_well()
        except Exception as error:
            if one in self._synced:  # else a later read has proved it
                self._synced.remove(one)
                self._failed(one, error)
        else:
            self._confirm(one)

    def _confirm(self, one: _Round) -> None:
        """This round is confirmed, and with it all before it."""
        waiting: list[_Tell] = []
        while one in self._synced:
            first = self._synced.popleft()
            waiting += first.waiting
            self.confirmed, self.confirmed_s = first.seal, first.begin_s
            self.rounds += 1
            self.trouble, self._retry_s = None, RETRY_S_MIN
        for tell in (
            waiting
        ):  # steps begin in plain callbacks, never within a task, and not thousands of them in one
            self._telling.add(tell, None)

    def _failed(self, one: _Round, error: Exception) -> None:
        """Whatever it was, nothing is told; the next round is for these, too."""
        self.trouble = (
            error if isinstance(error, StoreError) else ReplicaUnavailable(self._where, repr(error))
        )
        self._waiting[:0] = one.waiting
        self._asked.set()


def _tell_all(waiting: list[_Tell], error: PerdureError | None) -> None:
    for tell in waiting:
        tell(error)


def _settle(future: asyncio.Future[None], error: PerdureError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)

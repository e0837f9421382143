"""Group commit: all writes of an engine, in order, many in one transaction.

Rules: writes that come in one turn of the event loop share a transaction, and so do all that come
while one is being committed; on a fast disk a commit runs inline, because a hop to a thread costs
more than the fsync, on a slow or contended one it runs in the writer's thread; what nobody waits
for rides along with the next transaction; what the engine itself must write is kept and tried again
until the store takes it, a write that a caller waits for is refused with the error; a write that
can't be applied, and an error while one run hands in its changes, cost that run only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from time import perf_counter
from typing import Any, Protocol

from perdure.core import lifecycle
from perdure.errors import (
    EngineClosed,
    PerdureError,
    StoreError,
    StoreLocked,
    StoreUnavailable,
    WriteRefused,
)
from perdure.process import eager
from perdure.process.slices import slice_end_s
from perdure.runtime.observer import Notifier
from perdure.store.base import Store
from perdure.store.import_writes import ImportRuns
from perdure.store.writes import Append, BatchRolledBack, Suspend, Transact, Turn, Write

log = logging.getLogger("perdure")

INLINE_MS_MAX = 2.0
COMMIT_MS_MAX = 20.0  # more than this is counted as this
ROWS_OF_A_LARGE_BATCH = 50
ROUNDS_MAX, ROUNDS_MS_MAX = (
    16,
    3.0,
)  # transactions in a row before the event loop gets its turn, and how long they may take
RETRY_S_MIN, RETRY_S_MAX = 0.05, 2.0


class Dirty(Protocol):
    """An object with changes that `collect` turns into writes."""

    def collect(self) -> None: ...

    def failed(self, error: BaseException) -> None:
        """`collect` has raised this error; changes that were not put are lost."""


class Rider(Protocol):
    """What nobody waits for, so that it is written with whatever comes next."""

    @property
    def pending(self) -> Sized:
        """What it has; always the same object."""
        ...

    def take(self) -> list[tuple[Write, Callable[[Any], None]]]:
        """Writes, each with what to call with its result. They are kept until the store takes
        them.
        """
        ...


_Answer = tuple[Callable[[Any], None], bool]
"""What to call with the result of a write, and whether the write is kept until the store takes it.
"""


class Writer:
    """See the module's text. `put` never blocks; `done` is called on the event loop with the
    result.
    """

    def __init__(self, store: Store, batch_max: int, observer: Notifier | None = None) -> None:
        self._observer = observer
        self._store, self._batch_max = store, batch_max
        self._loop = asyncio.get_running_loop()
        self._thread = _new_thread()
        self._writes: list[Write] = []
        self._answers: list[_Answer] = []  # of each write, at the same index
        self._dirty: deque[Dirty] = deque()
        self._scheduled = self._busy = False
        self._inline_only, self._thread_only = store.path == ":memory:", not store.inline
        self._commit_ms = 0.0
        self._retry_s = RETRY_S_MIN
        self._retry: asyncio.TimerHandle | None = None
        self._news: asyncio.Event | None = None  # set after each batch, for `drain`
        self._transacts = (
            0  # waiting ones, which take as long as a user's function or a file: never inline
        )
        self._rider: Rider | None = None
        self._riding: Sized = ()  # what the rider has
        self._hurry = False  # what rides along is written even if it is alone
        self.last_error: StoreError | None = None
        self._shut = self._closed = False

    # --- what others call -------------------------------------------------------------------------

    def put(self, write: Write, done: Callable[[Any], None], *, keep: bool) -> None:
        """Queue a write; with `keep` it is tried until the store takes it."""
        if self._closed:
            self._loop.call_soon(done, EngineClosed(), context=Context())
            return
        self._writes.append(write)
        self._answers.append((done, keep))
        if not self._scheduled:
            self._schedule()

    def put_transact(self, transact: Transact, done: Callable[[Any], None]) -> None:
        """Queue a transactional step."""
        self._transacts += 1
        self.put(transact, done, keep=True)

    async def ask_apart(self, write: ImportRuns) -> Any:
        """As `ask`, for a write that takes long: the event loop goes on meanwhile."""
        self._transacts += 1
        return await self.ask(write)

    def touch(self, dirty: Dirty) -> None:
        """Ask `dirty` for its writes just before the next transaction, so that they come as one."""
        self._dirty.append(dirty)
        if not self._scheduled:
            self._schedule()

    def carry(self, rider: Rider) -> None:
        """Write what `rider` has with whatever comes next, from now on."""
        self._rider, self._riding = rider, rider.pending

    def hurry(self) -> None:
        """Write what rides along, also where nothing else is to be written."""
        self._hurry = True
        if not self._scheduled:
            self._schedule()

    def _ride(self) -> None:
        """Put what rides along before everything else: it may be of a run whose end comes now."""
        self._hurry = False
        taken = [] if self._rider is None else self._rider.take()
        self._writes[:0] = [write for write, _ in taken]
        self._answers[:0] = [(done, True) for _, done in taken]

    async def ask(self, write: Write, then: Callable[[Any], None] | None = None) -> Any:
        """Write and wait for the commit. Raises the error that the store returns.

        `then` is called with the result of a commit before `ask` returns, also when the caller has
        given up waiting.
        """
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any) -> None:
            if then is not None and not isinstance(result, PerdureError):
                then(result)
            if not future.done():
                future.set_result(result)

        self.put(write, done, keep=False)
        result = await future
        if isinstance(result, PerdureError):
            raise result
        return result

    @property
    def waiting(self) -> bool:
        """Whether writes wait for a transaction, or one is under way in the thread."""
        return self._busy or bool(self._writes)

    @property
    def busy(self) -> bool:
        """Whether the thread holds the connection at this moment."""
        return self._busy

    def rest(self) -> None:
        """End the thread until it is needed again."""
        if not self._busy:
            self._thread.shutdown(wait=False)
            self._thread = _new_thread()

    async def drain(self) -> None:
        """Wait until everything is written, or it is clear that the store takes nothing."""
        while (self._writes or self._dirty or self._busy) and self.last_error is None:
            self._news = asyncio.Event()
            await self._news.wait()

    def shut(self, error: StoreError) -> None:
        """Write nothing more: callers get the error, and kept writes are dropped."""
        self._shut, self.last_error = True, error

    def close(self) -> None:
        """End the thread. Callers whose writes came too late get `EngineClosed`."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()  # the store is closed next, and the event loop may live on
        self._thread.shutdown(wait=True)
        late = [done for done, keep in self._answers if not keep]
        self._writes, self._answers = [], []
        self._dirty.clear()
        for done in late:
            self._loop.call_soon(done, EngineClosed(), context=Context())

    # --- transactions -----------------------------------------------------------------------------

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(
            self._flush, context=Context()
        )  # not in that of the caller: what follows is not its own

    def _flush(self) -> None:
        """Let everybody hand in what they have and write it; again at once while only its own
        results bring more.
        """
        if self._closed:
            return
        self._scheduled, self._retry = True, None
        try:
            self._write_rounds()
        finally:  # also when the process is interrupted here: closing has to come to an end
            self._scheduled = self._retry is not None
            if not self._writes and not self._dirty:
                if self._news is not None:
                    self._news.set()
            elif not self._busy and not self._scheduled:
                self._schedule()

    def _write_rounds(self) -> None:
        until_s, dirty = slice_end_s(self._loop), self._dirty
        for _ in range(max(1, min(ROUNDS_MAX, int(ROUNDS_MS_MAX / (self._commit_ms + 0.01))))):
            while dirty:  # outcomes of steps make their runs dirty in turn
                item = dirty.popleft()
                try:
                    item.collect()
                except (
                    Exception,
                    asyncio.CancelledError,
                ) as error:  # of one run: the others must not suffer for it
                    log.exception("the changes of %r could not be collected", item)
                    item.failed(error)
                if dirty and perf_counter() > until_s:
                    # a burst of starts must not hold up the event loop: what is left comes with the
                    # next transaction
                    break
            if self._busy:
                break
            if self._hurry or (self._riding and self._writes):
                self._ride()
            if not self._writes:
                break
            self._write_next()
            if self._retry is not None or not eager.idle(self._loop) or perf_counter() > until_s:
                break

    def _write_next(self) -> None:
        writes, answers, self._writes, self._answers = self._writes, self._answers, [], []
        if len(writes) > self._batch_max:
            self._writes, self._answers = writes[self._batch_max :], answers[self._batch_max :]
            del writes[self._batch_max :], answers[self._batch_max :]
        slow = self._thread_only or self._commit_ms >= INLINE_MS_MAX
        if not self._inline_only and (slow or self._transacts):
            self._write_in_thread(writes, answers)
            return
        try:
            results, refusal = self._attempt(writes, False)
        except (
            BaseException
        ):  # the process is interrupted: nothing is written, and nothing is forgotten
            self._writes[:0], self._answers[:0] = writes, answers
            raise
        if type(refusal) is StoreLocked and not self._inline_only:
            done = len(results)
            if done:
                self._finish(writes[:done], answers[:done], results, None)
            self._write_in_thread(
                writes[done:], answers[done:]
            )  # another process is writing: wait for it in the thread
        else:
            self._finish(writes, answers, results, refusal)

    def _write_in_thread(self, writes: list[Write], answers: list[_Answer]) -> None:
        self._busy = True
        future = self._loop.run_in_executor(self._thread, self._attempt, writes, True)
        future.add_done_callback(
            lambda done: self._thread_done(writes, answers, done), context=Context()
        )

    def _attempt(
        self, writes: list[Write], wait_for_lock: bool
    ) -> tuple[list[Any], StoreError | None]:
        """Results for the writes from the first on, and for the rest, if there is one, the error
        for which the store took none of it.
        """
        if self._shut:
            return [], self.last_error
        try:
            results = self._store.write(writes, wait_for_lock)
        except StoreError as error:
            return [], error
        except BatchRolledBack as error:
            return self._attempt_apart(writes, wait_for_lock, error)
        except Exception as error:  # the store promises that there is none
            log.exception("the store failed in a way of its own")
            return [], StoreUnavailable(self._store.path, f"{type(error).__name__}: {error}")
        # A large batch takes longer on any disk; and one stall must not start a hop to the thread
        # per commit.
        commit_ms = self._store.commit_ms / (1 + len(writes) / ROWS_OF_A_LARGE_BATCH)
        self._commit_ms += 0.1 * ((min(COMMIT_MS_MAX, commit_ms)) - self._commit_ms)
        return results, None

    def _attempt_apart(
        self, writes: list[Write], wait_for_lock: bool, spoiled: BatchRolledBack
    ) -> tuple[list[Any], StoreError | None]:
        """Apply a batch without the one write that spoils it, in as few transactions as that takes;
        that one is refused.
        """
        if len(writes) == 1:
            cause = spoiled.__cause__
            log.error("a write could not be applied: %r", cause, exc_info=cause)
            refused = WriteRefused(f"{type(cause).__name__}: {cause}")
            if isinstance(writes[0], Append | Turn):
                self._fence(writes[0], refused, wait_for_lock)
            return [refused], None
        place, results = spoiled.index, []
        parts = (writes[: len(writes) // 2], writes[len(writes) // 2 :]) if place is None else (
            writes[:place], writes[place : place + 1], writes[place + 1 :])  # fmt: skip
        for part in parts:
            more, refusal = self._attempt(part, wait_for_lock) if part else ([], None)
            results += more
            if refusal is not None:
                return results, refusal
        return results, None

    def _fence(self, write: Append | Turn, refused: WriteRefused, wait_for_lock: bool) -> None:
        """Take the run away from its owner: rows that are queued behind those that are refused
        would leave a hole.
        """
        park = Suspend(
            lifecycle.BLOCKED,
            blocked_by="store",
            reason=f"its history could not be written: {refused}",
            release=True,
        )
        at_ms = write.at_ms if isinstance(write, Turn) else write.rows[-1].at_ms
        with contextlib.suppress(StoreError, BatchRolledBack):  # the run tries it again
            self._store.write(
                [Turn(write.run, write.owner, [], at_ms, suspend=park)], wait_for_lock
            )

    def _thread_done(
        self, writes: list[Write], answers: list[_Answer], done: asyncio.Future[Any]
    ) -> None:
        self._busy = False
        if done.exception() is not None:  # no `Exception`: the process is to end
            self._writes[:0], self._answers[:0] = writes, answers
        self._finish(writes, answers, *done.result())

    def _finish(
        self,
        writes: list[Write],
        answers: list[_Answer],
        results: list[Any],
        refusal: StoreError | None,
    ) -> None:
        """Answer those that have a result; the store has refused the others."""
        if self._transacts:
            self._transacts -= _transacts(writes)
        if self._news is not None:
            self._news.set()
        if results and self._observer is not None:
            self._observer.committed(len(results), self._store.commit_ms)
        if results and self.last_error is not None and not self._shut:
            log.warning("the store takes writes again: %s", self._store.path)
            self.last_error, self._retry_s = None, RETRY_S_MIN
        for (done, _), result in zip(answers, results, strict=False):
            try:
                done(result)
            except (Exception, asyncio.CancelledError):
                log.exception("what follows from a write could not be done")
        if refusal is not None:
            self._refused(writes[len(results) :], answers[len(results) :], refusal)
        elif (self._writes or self._dirty or self._hurry) and not self._scheduled:
            self._schedule()

    def _refused(self, writes: list[Write], answers: list[_Answer], error: StoreError) -> None:
        """The store took nothing: callers get the error; what the engine needs is kept."""
        kept = (
            []
            if self._shut
            else [
                (write, answer) for write, answer in zip(writes, answers, strict=True) if answer[1]
            ]
        )
        if not self._shut and type(self.last_error) is not type(error):
            log.error("the store does not take writes, trying again until it does: %s", error)
        self.last_error = error
        for done, keep in answers:
            if not keep:
                done(error)
        self._writes[:0] = [write for write, _ in kept]
        self._answers[:0] = [answer for _, answer in kept]
        self._transacts += _transacts([write for write, _ in kept])
        if not self._writes and not self._dirty:
            return
        self._scheduled = True
        self._retry = self._loop.call_later(self._retry_s, self._flush)
        self._retry_s = min(self._retry_s * 2, RETRY_S_MAX)


def _transacts(writes: list[Write]) -> int:
    return sum(type(write) in (Transact, ImportRuns) for write in writes)


def _new_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="perdure-writer")

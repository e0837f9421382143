"""Thread pool of plain steps: an executor that replaces threads that hang.

Rules: a thread whose attempt was abandoned (timeout, cancellation) can't be stopped, so another one
replaces it, up to `hung_max` of them; beyond that the attempt keeps its place at the capacity
limiter until its function returns; threads are daemons, so none keeps the process from ending; all
bookkeeping happens on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Context
from queue import SimpleQueue
from typing import Any

log = logging.getLogger("perdure")

NAME = "perdure-step"


class Job(Future[Any]):
    """One attempt in a thread. If it is cancelled while its function runs, it is abandoned."""

    def __init__(self, pool: ThreadPool, work: Callable[..., Any], what: str) -> None:
        super().__init__()
        self._pool, self.work, self.what = pool, work, what
        self.given_up = False

    def cancel(self) -> bool:
        """As usual; called on the event loop."""
        cancelled = super().cancel()
        if not cancelled and not self.given_up:
            self.given_up = True  # before the look: the thread looks after it has ended
            if not self.done():
                self._pool.give_up(self)
        return cancelled


class ThreadPool(Executor):
    """See the module's text. `on_lost` and `on_back` are called on the event loop: the capacity is
    one less, or one more again.
    """

    def __init__(
        self,
        threads_max: int,
        hung_max: int,
        on_lost: Callable[[], None],
        on_back: Callable[[], None],
    ) -> None:
        self._threads_max, self._hung_max = threads_max, hung_max
        self._on_lost, self._on_back = on_lost, on_back
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._hung: dict[Job, None] = {}
        self._closed = False

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin `work` at once: the capacity limiter has admitted it, so a thread is idle or may be
        started. `args` is its description.
        """
        job = Job(self, work, *args)
        if self._closed:
            job.cancel()
            return job
        self._jobs.put(job)
        if (
            not self._idle.acquire(blocking=False)
            and len(self._threads) < self._threads_max + self._hung_max
        ):
            thread = threading.Thread(
                target=self._serve, name=f"{NAME}_{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            Context().run(
                thread.start
            )  # newer Pythons let a thread inherit the variables of whatever starts it
        return job

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.set_running_or_notify_cancel():
                self._idle.release()
                continue
            value = failed = None
            try:
                value = job.work()
            except BaseException as error:
                failed = error
            # before the end is reported: the next job must not make a thread
            self._idle.release()
            job.set_exception(failed) if failed is not None else job.set_result(value)
            if job.given_up:
                with contextlib.suppress(
                    RuntimeError
                ):  # the event loop is closed: nothing is left to report
                    self._loop.call_soon_threadsafe(self._back, job, context=Context())
            del job, value, failed  # an idle thread keeps nothing alive

    # --- threads that hang ------------------------------------------------------------------------

    def give_up(self, job: Job) -> None:
        """The attempt has ended, its function has not."""
        if self._closed:
            return
        self._hung[job] = None
        hung = len(self._hung)
        if hung <= self._hung_max:
            log.warning(
                (
                    "%s was given up, but its thread can't be stopped: number %s of %s that are "
                    "replaced"
                ),
                job.what,
                hung,
                self._hung_max,
            )
        else:
            self._on_lost()
            left = self._threads_max + self._hung_max - hung
            log.error(
                "%s was given up, and %s threads hang by now: only %s of %s are left for plain "
                "steps. Give what they wait for a time limit "
                "(sockets, locks, subprocesses), and "
                "restart the process.", job.what, hung, left, self._threads_max,
            )  # fmt: skip

    def _back(self, job: Job) -> None:
        if job in self._hung:
            if len(self._hung) > self._hung_max:
                self._on_back()
            del self._hung[job]

    @property
    def hung(self) -> list[str]:
        """Descriptions of abandoned attempts whose functions still run, the oldest first."""
        return [job.what for job in self._hung]

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        """Let idle threads end; with `wait` until all have, hanging ones included."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

"""Cost: how much of a processor some work takes, on its event loop and in threads that read.

Rules: time of the processor, not of the clock, so that a machine with much else to do counts for
nothing; work that no cost is kept of is not measured; a task that the work begins is measured in
its reads only.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from time import thread_time
from typing import Any, TypeVar

T = TypeVar("T")


class Cost:
    """An account: `spent_s` seconds of a processor."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def of_read(self, read: Callable[[], T]) -> T:
        """Read in this thread."""
        began_s = thread_time()
        try:
            return read()
        finally:
            self.spent_s += thread_time() - began_s

    async def of(self, work: Coroutine[Any, Any, T]) -> T:
        """Await some work and its reads."""
        before = kept.set(self)
        try:
            return await self._steps(work)
        finally:
            kept.reset(before)

    @types.coroutine
    def _steps(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Each stretch between two waits by itself: in between the loop does other things."""
        sent: Any = None
        error: BaseException | None = None
        while True:
            began_s = thread_time()
            try:
                waits = work.send(sent) if error is None else work.throw(error)
            except StopIteration as ended:
                found: T = ended.value
                return found
            finally:
                self.spent_s += thread_time() - began_s
            sent = error = None
            try:
                sent = yield waits
            except BaseException as raised:  # cancellation among them: it is the work's
                error = raised


kept: ContextVar[Cost | None] = ContextVar("perdure-cost", default=None)
"""What reads of this task are added to."""

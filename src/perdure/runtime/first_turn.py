"""A run that is started here: executed up to its first wait before it is written, so that one
commit is enough for both.

Rules: nothing of it is in the file or outside before that commit; where the store refuses the run,
it leaves memory without a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.errors import WriteRefused
from perdure.store.rows import Started, new_run_row
from perdure.store.writes import StartRun

if TYPE_CHECKING:
    from perdure.runtime.scheduler import Scheduler


class FirstTurn:
    """A run that is about to be written: it is executed up to its first wait, so that one commit is
    enough for both.
    """

    def __init__(self, scheduler: Scheduler, start: StartRun, told: Callable[[Any], None]) -> None:
        self._scheduler, self._start, self._told = scheduler, start, told
        self._active = scheduler.new_active(new_run_row(start, 0))
        scheduler.unwritten.add(self._active)

    def collect(self) -> None:
        """Execute it up to its first wait, and queue it."""
        self._start.first = self._active.first_rows()
        self._scheduler.writer.put(self._start, self._done, keep=False)

    def failed(self, error: BaseException) -> None:
        """Its first turn could not be made."""
        self._done(WriteRefused(f"{type(error).__name__} in the run's first turn"))

    def _done(self, result: Any) -> None:
        scheduler, active = self._scheduler, self._active
        scheduler.unwritten.discard(active)
        if isinstance(result, Started) and result.owned:
            scheduler.active[result.run] = active
            active.stopping = scheduler.closing
            active.written(result.run, self._start.first)
            if scheduler.closing:
                active.release()
        else:
            active.drop()
            scheduler.claims.room_again()
        self._told(result)

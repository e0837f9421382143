"""First turn of a run that is started here: executed up to its first wait before it is written, so
that one commit is enough for the start and the turn.

Rules: nothing of the run is in the store or outside before that commit; where the store refuses the
run, it leaves memory without a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.core.events import Command, Event
from perdure.errors import WriteRefused
from perdure.runtime.queues import Asked
from perdure.runtime.run import ActiveRun
from perdure.runtime.writer import Writer
from perdure.store.writes import StartRun

Rows = list[Event | Command]


class FirstTurn:
    """A run that is about to be written. `done` is called with the run, its first rows, the result
    of the write, and the places that it asked for.
    """

    def __init__(
        self,
        run: ActiveRun,
        start: StartRun,
        writer: Writer,
        done: Callable[[ActiveRun, Rows | None, Any, list[Asked]], None],
    ) -> None:
        self._run, self._start, self._writer, self._done = run, start, writer, done
        self._places: list[Asked] = []

    def collect(self) -> None:
        """Execute the run up to its first wait, and queue the write."""
        start = self._start
        start.first = self._run.first_rows()
        if start.first is not None and (places := self._run.first_places()):
            self._places = places
            start.places = [ask for _, ask in places]
        self._writer.put(self._start, self._written, keep=False)

    def failed(self, error: BaseException) -> None:
        """Report that the first turn could not be made."""
        self._written(WriteRefused(f"{type(error).__name__} in the run's first turn"))

    def _written(self, result: Any) -> None:
        self._done(self._run, self._start.first, result, self._places)

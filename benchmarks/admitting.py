"""What the store alone can admit through one queue with a limit: a claim and the ends of what it
took, in one transaction, again and again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from perdure import Limits
from perdure.core import events as ev
from perdure.core.events import Event
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Claim, EndWorker, Finish, JoinWorker, SetQueue, StartRun, Turn

AT_ONCE = 1_000
QUEUE = "bench"


class Admitting:
    """A store with a queue in which so many runs wait, made where there is none."""

    def __init__(self, path: Path, waiting: int, limit: int) -> None:
        self._store = SqliteStore(str(path), limits=Limits())
        join = JoinWorker("bench", "here", 1, "", 0, 10**9)
        self._worker = cast("int", self._write([join])[0])
        self._write([SetQueue(QUEUE, {"concurrency": limit, "paused": True}, 1)])
        for first in range(0, waiting, AT_ONCE):
            numbers = range(first, min(waiting, first + AT_ONCE))
            self._write([StartRun(f"r{n}", "empty", b"{}", n, 1, 1, queue=QUEUE) for n in numbers])
        self._write([SetQueue(QUEUE, {"paused": False}, 1)])
        self._limit, self._runs = limit, list[int]()

    def _write(self, writes: list[Any]) -> list[Any]:
        found = self._store.write(writes, True)
        for one in found:
            if isinstance(one, Exception):
                raise one
        return cast("list[Any]", found)

    def admit(self, runs: int) -> float:
        """Seconds until so many more have been admitted."""
        begin, admitted = time.perf_counter(), 0
        while admitted < runs:
            claim = Claim(self._worker, ("empty",), self._limit, 2)
            self._runs = self._write([*self._ends(), claim])[-1].runs
            admitted += len(self._runs)
        return time.perf_counter() - begin

    def _ends(self) -> list[Turn]:
        return [
            Turn(run, self._worker, [Event(1, ev.FINISH, 2)], 2, finish=Finish("completed"))
            for run in self._runs
        ]

    def close(self) -> None:
        """Leave a queue that is paused, and nothing admitted."""
        paused = SetQueue(QUEUE, {"paused": True}, 3)
        self._write([*self._ends(), paused, EndWorker(self._worker, 3, crashed=False)])
        self._store.close()

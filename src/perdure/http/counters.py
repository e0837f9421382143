"""Counters of an engine for metrics and pages: commits, attempts and runs since it was entered.

Rules: an event costs additions and no lock, on the event loop of the engine; the number of names
is bounded, further ones count as "other".
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import msgspec

from perdure.runtime.observer import Observer

if TYPE_CHECKING:
    from perdure.runtime.engine import Engine

NAMES_MAX = 500
OTHER = "other"
SECONDS = 60


class Recent(msgspec.Struct, frozen=True):
    """Commits and writes in each of the last 60 whole seconds, the newest last."""

    commits: list[int]
    writes: list[int]


class Counters(Observer):
    """What an engine has done. Times are in milliseconds."""

    def __init__(self) -> None:
        self.commits, self.writes, self.commit_ms = 0, 0, 0.0
        self.confirmations, self.confirm_ms = 0, 0.0
        self.running = 0
        self.attempts = Counter[tuple[str, str]]()
        self.attempt_ms = Counter[str]()
        self.started = Counter[str]()
        self.ended = Counter[tuple[str, str]]()
        self._names: set[str] = set()
        self._recent: dict[int, tuple[int, int]] = {}

    def run_started(self, run_id: str, workflow: str, resumed: bool) -> None:
        if not resumed:
            self.started[self._name(workflow)] += 1

    def run_ended(self, run_id: str, workflow: str, status: str) -> None:
        self.ended[self._name(workflow), status] += 1

    def attempt_started(self, run_id: str, seq: int, step: str, attempt: int) -> None:
        self.running += 1

    def attempt_ended(
        self,
        run_id: str,
        seq: int,
        step: str,
        attempt: int,
        took_ms: int,
        error: BaseException | None,
        again_ms: int | None,
    ) -> None:
        name = self._name(step)
        self.running -= 1
        self.attempts[name, _outcome(error, again_ms)] += 1
        self.attempt_ms[name] += took_ms

    def committed(self, writes: int, took_ms: float) -> None:
        self.commits += 1
        self.writes += writes
        self.commit_ms += took_ms
        second = int(time.monotonic())
        commits, before = self._recent.pop(second, (0, 0))
        self._recent[second] = commits + 1, before + writes
        if len(self._recent) > SECONDS + 1:
            del self._recent[next(iter(self._recent))]

    def confirmed(self, took_ms: float) -> None:
        self.confirmations += 1
        self.confirm_ms += took_ms

    def recent(self) -> Recent:
        """The last minute, for a sparkline."""
        now = int(time.monotonic())
        found = [self._recent.get(second, (0, 0)) for second in range(now - SECONDS, now)]
        return Recent([commits for commits, _ in found], [writes for _, writes in found])

    def _name(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= NAMES_MAX:
                return OTHER
            self._names.add(name)
        return name


def _outcome(error: BaseException | None, again_ms: int | None) -> str:
    if error is None:
        return "succeeded"
    return "failed" if again_ms is None else "retried"


_known: WeakKeyDictionary[Engine, Counters] = WeakKeyDictionary()


def counters_of(engine: Engine) -> Counters | None:
    """The counters of an engine; None where it was entered without any observer, and so notifies
    none.
    """
    found = _known.get(engine)
    if found is None and engine.add_observer(made := Counters()):
        found = _known[engine] = made
    return found

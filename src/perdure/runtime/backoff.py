"""The steps of one run that wait for their next attempt.

Rules: nothing here holds a place, a task or a thread; the time is a date in the history's note, so
a restart changes nothing; one timer of the run is enough for all of them.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from perdure.runtime.plans import PendingAttempt


class Backoff:
    """See the module's text. `steps` has the attempts by the row of their step."""

    __slots__ = ("_deadlines", "steps")

    def __init__(self) -> None:
        self.steps: dict[int, PendingAttempt] = {}
        self._deadlines: list[tuple[int, int]] = []

    def add(self, attempt: PendingAttempt) -> None:
        """Let an attempt wait until it is due."""
        self.steps[attempt.command.seq] = attempt
        heappush(self._deadlines, (attempt.again_ms, attempt.command.seq))

    def drop(self, seq: int) -> None:
        """Forget the step in row `seq`: it was cancelled, or has its outcome."""
        self.steps.pop(seq, None)

    def due_ms(self) -> int | None:
        """When the next attempt is due."""
        deadlines = self._deadlines
        while deadlines and (
            (step := self.steps.get(deadlines[0][1])) is None or step.again_ms != deadlines[0][0]
        ):
            heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def take_due(self, now_ms: int) -> list[PendingAttempt]:
        """Remove and return the attempts that are due, the earliest first."""
        due: list[PendingAttempt] = []
        while (at_ms := self.due_ms()) is not None and at_ms <= now_ms:
            due.append(self.steps.pop(heappop(self._deadlines)[1]))
        return due

    def waiting_for(self, limit: int) -> list[dict[str, Any]]:
        """What is waited for, human-readable: the step, which attempt of how many, and when."""
        soonest = sorted(self.steps.values(), key=lambda step: step.again_ms)[:limit]
        return [
            {
                "step": step.command.name,
                "seq": step.command.seq,
                "attempt": step.attempt,
                "attempts": step.command.call.options.retry.attempts
                + step.attempt
                - step.failures
                - 1,
                "again_ms": step.again_ms,
            }
            for step in soonest
        ]
